//! What an upload may cost: bytes, pixels, sides. Checked by the inspector (bytes) and by each walker as
//! soon as the header is read (the rest).

use crate::Rejection;

/// Bounds on one upload. [`Default`] gives the public contract's figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Largest upload in bytes.
    pub bytes_max: u64,
    /// Largest width × height.
    pub pixels_max: u64,
    /// Largest width and height in pixels.
    pub side_max: u32,
    /// Smallest width and height in pixels.
    pub side_min: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes_max: 50 * 1024 * 1024, pixels_max: 64_000_000, side_max: 16_384, side_min: 16 }
    }
}

impl Limits {
    /// Compares dimensions read from a header with the limits.
    pub(crate) fn check_dimensions(&self, width: u32, height: u32) -> Result<(), Rejection> {
        let pixels = u64::from(width) * u64::from(height);
        let fits = |side: u32| (self.side_min..=self.side_max).contains(&side);
        if fits(width) && fits(height) && pixels <= self.pixels_max {
            return Ok(());
        }
        Err(Rejection::Dimensions { width, height, limits: *self })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_inclusive() {
        let limits = Limits::default();
        for (width, height) in [(16, 16), (16_384, 16), (8_000, 8_000), (16_384, 3_906)] {
            assert_eq!(limits.check_dimensions(width, height), Ok(()), "{width}x{height}");
        }
        for (width, height) in
            [(0, 16), (15, 16), (16, 15), (16_385, 16), (8_001, 8_000), (u32::MAX, u32::MAX)]
        {
            let refused = limits.check_dimensions(width, height);
            assert_eq!(refused, Err(Rejection::Dimensions { width, height, limits }), "{width}x{height}");
        }
    }
}
