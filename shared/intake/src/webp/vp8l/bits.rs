//! Bits of a VP8L stream: least significant first, with pauses at the window's end.
//!
//! Reading never fails: past the last byte the reader supplies zero bits and counts them, and
//! [`Bits::is_short`] says whether any of them was used.

/// Bits read from a window but not yet used, kept from one window to the next.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Held {
    acc: u64,
    bits: u32,
}

/// A bit reader over one window. Copying it takes a snapshot.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bits<'w> {
    window: &'w [u8],
    at: usize,
    /// The next bits, the first one lowest. From `held` up stand zeros or the bits that will be loaded next.
    acc: u64,
    held: u32,
    /// How many zero bits were supplied past the last byte, at the end of `held`.
    padding: u32,
}

/// Bits that [`Bits::refill`] makes available.
pub(super) const REFILL_BITS: u32 = 56;

impl<'w> Bits<'w> {
    pub(super) fn resume(window: &'w [u8], held: Held) -> Self {
        Self { window, at: 0, acc: held.acc, held: held.bits, padding: 0 }
    }

    /// Bytes of the window that were read, and the bits of them that are still unused.
    ///
    /// Must not be called while the reader is short.
    pub(super) fn suspend(self) -> (usize, Held) {
        (self.at, Held { acc: self.acc, bits: self.held.saturating_sub(self.padding) })
    }

    /// Bytes of the window that are not loaded.
    pub(super) fn unread(&self) -> usize {
        self.window.len() - self.at
    }

    /// Makes at least [`REFILL_BITS`] bits available.
    #[inline(always)]
    pub(super) fn refill(&mut self) {
        if self.held >= REFILL_BITS {
            return;
        }
        if let Some(next) = self.window.get(self.at..).and_then(|rest| rest.first_chunk::<8>()) {
            self.acc |= u64::from_le_bytes(*next) << self.held;
            let bytes = (63 - self.held) >> 3;
            self.at += bytes as usize;
            self.held += bytes * 8;
            return;
        }
        self.refill_bytewise();
    }

    #[cold]
    #[inline(never)]
    fn refill_bytewise(&mut self) {
        while self.held < REFILL_BITS {
            match self.window.get(self.at) {
                Some(&byte) => {
                    self.acc |= u64::from(byte) << self.held;
                    self.at += 1;
                }
                None => self.padding += 8,
            }
            self.held += 8;
        }
    }

    /// The next `count` (at most 32) bits of those available, without using them.
    #[inline(always)]
    pub(super) fn peek(&self, count: u32) -> usize {
        (self.acc & ((1 << count) - 1)) as usize
    }

    /// Uses `count` of the available bits.
    #[inline(always)]
    pub(super) fn skip(&mut self, count: u32) {
        self.acc >>= count;
        self.held = self.held.wrapping_sub(count);
    }

    /// Takes `count` (at most 32) bits.
    #[inline]
    pub(super) fn take(&mut self, count: u32) -> u32 {
        self.refill();
        let value = self.peek(count) as u32;
        self.skip(count);
        value
    }

    /// Whether bits were used that are not there.
    #[inline(always)]
    pub(super) fn is_short(&self) -> bool {
        self.padding > self.held
    }

    /// Runs `unit`; if the window ends in it, undoes it and returns `Ok(None)`.
    #[inline(always)]
    pub(super) fn attempt<T, E>(
        &mut self,
        unit: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<Option<T>, E> {
        let snapshot = *self;
        let outcome = unit(self);
        if self.is_short() {
            *self = snapshot;
            return Ok(None);
        }
        outcome.map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bits_come_back_in_order_over_any_pause(
            bytes in prop::collection::vec(any::<u8>(), 0..40),
            counts in prop::collection::vec(0u32..=32, 1..40),
            split in 0usize..40,
        ) {
            let split = split.min(bytes.len());
            let mut bits = Bits::resume(&bytes[..split], Held::default());
            let mut seen = 0;
            let mut at = 0;
            for count in counts {
                let mut got = bits.attempt(|bits| Ok::<_, ()>(bits.take(count))).unwrap();
                if got.is_none() && seen == 0 {
                    let (read, held) = bits.suspend();
                    seen = read;
                    bits = Bits::resume(&bytes[seen..], held);
                    got = bits.attempt(|bits| Ok::<_, ()>(bits.take(count))).unwrap();
                }
                let known = at + count as usize <= bytes.len() * 8;
                let value = (0..count as usize).rev().fold(0u64, |value, i| {
                    value << 1 | bytes.get((at + i) / 8).map_or(0, |byte| u64::from(byte >> ((at + i) % 8) & 1))
                });
                if seen > 0 || split == bytes.len() || got.is_some() {
                    prop_assert_eq!(got, known.then_some(value as u32));
                }
                if got.is_none() {
                    break;
                }
                at += count as usize;
            }
        }
    }
}
