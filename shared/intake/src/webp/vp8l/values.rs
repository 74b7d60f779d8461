//! The values of an entropy image, the one kind of image whose pixels the walker has to know.

/// Multiplier of the colour cache's hash (RFC 9649, 3.6.2.3).
const HASH_MULTIPLIER: u32 = 0x1e35_a7bd;

/// Pixels decoded so far, and the colour cache.
#[derive(Debug)]
pub(super) struct Values {
    argb: Vec<u32>,
    cache: Vec<u32>,
    cache_bits: u32,
}

impl Values {
    pub(super) fn new(pixels: usize) -> Self {
        Self { argb: Vec::with_capacity(pixels), cache: Vec::new(), cache_bits: 0 }
    }

    pub(super) fn set_cache(&mut self, cache_bits: u32) {
        self.cache_bits = cache_bits;
        self.cache = if cache_bits > 0 { vec![0; 1 << cache_bits] } else { Vec::new() };
    }

    pub(super) fn push(&mut self, value: u32) {
        self.argb.push(value);
        if self.cache_bits > 0 {
            let index = value.wrapping_mul(HASH_MULTIPLIER) >> (32 - self.cache_bits);
            if let Some(slot) = self.cache.get_mut(index as usize) {
                *slot = value;
            }
        }
    }

    pub(super) fn push_cached(&mut self, index: usize) {
        self.push(self.cache.get(index).copied().unwrap_or_default());
    }

    /// Repeats `length` pixels from `distance` (checked by the caller) before the end.
    pub(super) fn copy(&mut self, distance: usize, length: usize) {
        for _ in 0..length {
            let from = self.argb.len().wrapping_sub(distance);
            self.push(self.argb.get(from).copied().unwrap_or_default());
        }
    }

    /// The group numbers that the pixels stand for: their red and green parts.
    pub(super) fn into_groups(self) -> Vec<u16> {
        self.argb.iter().map(|argb| (argb >> 8) as u16).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_overlap_and_feed_the_cache() {
        let mut values = Values::new(6);
        values.set_cache(4);
        values.push(0x0001_0200);
        values.push(0x0000_0500);
        values.copy(2, 3);
        let index = (0x0000_0500u32.wrapping_mul(HASH_MULTIPLIER) >> 28) as usize;
        values.push_cached(index);
        assert_eq!(values.into_groups(), [0x102, 5, 0x102, 5, 0x102, 5]);
    }
}
