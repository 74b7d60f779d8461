//! The image header (IHDR) and the layout of the inflated pixel data that follows from it.

use super::corrupt;
use crate::{Limits, Rejection};

/// Bytes of an IHDR chunk.
pub(super) const IHDR_BYTES: usize = 13;

/// How a pixel is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Colour {
    Grey,
    Rgb,
    Palette,
    GreyAlpha,
    RgbAlpha,
}

/// An image header that passed its checks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) colour: Colour,
    pub(super) bit_depth: u8,
    interlaced: bool,
}

/// Rows that are stored one after another with the same length: the whole image, or one Adam7 pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pass {
    pub(super) rows: u32,
    /// Bytes of a row with its filter byte.
    pub(super) row_bytes: usize,
}

/// Adam7 (PNG, 8.2): first column and row of each pass, and the steps to the next.
const ADAM7: [(u32, u32, u32, u32); 7] =
    [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)];

impl Header {
    pub(super) fn read(body: &[u8; IHDR_BYTES], limits: &Limits) -> Result<Self, Rejection> {
        let &[w3, w2, w1, w0, h3, h2, h1, h0, bit_depth, colour, compression, filter, interlace] = body;
        let width = u32::from_be_bytes([w3, w2, w1, w0]);
        let height = u32::from_be_bytes([h3, h2, h1, h0]);
        limits.check_dimensions(width, height)?;
        let colour = match colour {
            0 => Colour::Grey,
            2 => Colour::Rgb,
            3 => Colour::Palette,
            4 => Colour::GreyAlpha,
            6 => Colour::RgbAlpha,
            _ => return Err(corrupt("the colour type is invalid")),
        };
        let depths: &[u8] = match colour {
            Colour::Grey => &[1, 2, 4, 8, 16],
            Colour::Palette => &[1, 2, 4, 8],
            Colour::Rgb | Colour::GreyAlpha | Colour::RgbAlpha => &[8, 16],
        };
        if !depths.contains(&bit_depth) {
            return Err(corrupt("the bit depth is invalid"));
        }
        if compression != 0 || filter != 0 || interlace > 1 {
            return Err(corrupt("a method in the header is unknown"));
        }
        Ok(Self { width, height, colour, bit_depth, interlaced: interlace == 1 })
    }

    /// The passes that hold data, in order.
    pub(super) fn passes(&self) -> Vec<Pass> {
        if !self.interlaced {
            return vec![self.pass(self.width, self.height)];
        }
        let count = |size: u32, first: u32, step: u32| size.saturating_sub(first).div_ceil(step);
        let sizes = ADAM7.iter().map(|&(x, y, dx, dy)| (count(self.width, x, dx), count(self.height, y, dy)));
        sizes.filter(|&(width, height)| width > 0 && height > 0).map(|(w, h)| self.pass(w, h)).collect()
    }

    fn pass(&self, width: u32, rows: u32) -> Pass {
        let samples = match self.colour {
            Colour::Grey | Colour::Palette => 1,
            Colour::GreyAlpha => 2,
            Colour::Rgb => 3,
            Colour::RgbAlpha => 4,
        };
        let bits = width as usize * samples * usize::from(self.bit_depth);
        Pass { rows, row_bytes: 1 + bits.div_ceil(8) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(width: u32, height: u32, rest: [u8; 5]) -> Result<Header, Rejection> {
        let mut body = [0; IHDR_BYTES];
        body[..4].copy_from_slice(&width.to_be_bytes());
        body[4..8].copy_from_slice(&height.to_be_bytes());
        body[8..].copy_from_slice(&rest);
        Header::read(&body, &Limits::default())
    }

    #[test]
    fn rows_are_packed_to_bytes() {
        for (rest, row_bytes) in [
            ([1, 0, 0, 0, 0], 1 + 3),
            ([8, 2, 0, 0, 0], 1 + 51),
            ([16, 6, 0, 0, 0], 1 + 136),
            ([4, 3, 0, 0, 0], 1 + 9),
        ] {
            let passes = header(17, 20, rest).unwrap().passes();
            assert_eq!(passes, [Pass { rows: 20, row_bytes }]);
        }
    }

    #[test]
    fn interlaced_passes_hold_each_pixel_once() {
        for (width, height) in [(16, 16), (17, 31), (100, 23)] {
            let passes = header(width, height, [8, 0, 0, 0, 1]).unwrap().passes();
            let pixels: usize = passes.iter().map(|pass| pass.rows as usize * (pass.row_bytes - 1)).sum();
            assert_eq!(pixels, (width * height) as usize);
            assert_eq!(passes.len(), 7);
        }
    }

    #[test]
    fn impossible_headers_are_refused() {
        for rest in [
            [8, 1, 0, 0, 0],
            [3, 0, 0, 0, 0],
            [16, 3, 0, 0, 0],
            [8, 0, 1, 0, 0],
            [8, 0, 0, 1, 0],
            [8, 0, 0, 0, 2],
        ] {
            assert!(matches!(header(32, 32, rest), Err(Rejection::Corrupt { .. })), "{rest:?}");
        }
    }
}
