//! The compressed pixels (IDAT): inflated to their exact length, piece by piece, looking only at the filter
//! byte in front of each row.

use fdeflate::Decompressor;

use super::corrupt;
use super::header::Pass;
use crate::Rejection;

/// How far back a deflate copy reaches.
const HISTORY_BYTES: usize = 32 * 1024;
/// Inflated bytes between two moves of the history.
const FRESH_BYTES: usize = 96 * 1024;
/// The highest filter type.
const FILTER_MAX: u8 = 4;

/// Inflates the concatenated IDAT data.
pub(super) struct Pixels {
    inflater: Decompressor,
    /// History, then fresh bytes up to `filled`.
    output: Box<[u8]>,
    filled: usize,
    rows: Rows,
}

impl std::fmt::Debug for Pixels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pixels").field("rows", &self.rows).finish_non_exhaustive()
    }
}

impl Pixels {
    pub(super) fn new(passes: Vec<Pass>) -> Self {
        Self {
            inflater: Decompressor::new(),
            output: vec![0; HISTORY_BYTES + FRESH_BYTES].into(),
            filled: 0,
            rows: Rows::new(passes),
        }
    }

    /// Inflates the next compressed bytes.
    pub(super) fn push(&mut self, compressed: &[u8]) -> Result<(), Rejection> {
        let mut rest = compressed;
        while !rest.is_empty() {
            if self.inflater.is_done() {
                return Err(invalid());
            }
            rest = self.inflate(rest, false)?;
        }
        Ok(())
    }

    /// Checks that the pixels are complete.
    pub(super) fn finish(&mut self) -> Result<(), Rejection> {
        while !self.inflater.is_done() {
            let filled = self.filled;
            self.inflate(&[], true)?;
            if self.filled == filled && !self.inflater.is_done() {
                return Err(corrupt("the compressed pixels are incomplete"));
            }
        }
        if !self.rows.complete() {
            return Err(corrupt("there are fewer pixels than the header says"));
        }
        Ok(())
    }

    fn inflate<'c>(&mut self, compressed: &'c [u8], last: bool) -> Result<&'c [u8], Rejection> {
        if self.filled == self.output.len() {
            self.output.copy_within(self.filled - HISTORY_BYTES.., 0);
            self.filled = HISTORY_BYTES;
        }
        let inflated = self.inflater.read(compressed, &mut self.output, self.filled, last);
        let (read, written) = inflated.map_err(|_| invalid())?;
        let fresh = self.output.get(self.filled..self.filled + written).unwrap_or_default();
        self.rows.pass_over(fresh)?;
        self.filled += written;
        Ok(compressed.get(read..).unwrap_or_default())
    }
}

/// One reason for all: which one is found first depends on how far the inflater looks ahead.
fn invalid() -> Rejection {
    corrupt("the compressed pixels are invalid")
}

/// Counts rows and looks at their filter bytes.
#[derive(Debug)]
struct Rows {
    /// Passes still to come, in reverse order.
    passes: Vec<Pass>,
    current: Pass,
    /// Bytes left of the current row; 0 before its filter byte.
    row_left: usize,
}

impl Rows {
    fn new(mut passes: Vec<Pass>) -> Self {
        passes.reverse();
        let current = passes.pop().unwrap_or(Pass { rows: 0, row_bytes: 1 });
        Self { passes, current, row_left: 0 }
    }

    fn complete(&self) -> bool {
        self.row_left == 0 && self.current.rows == 0 && self.passes.is_empty()
    }

    fn pass_over(&mut self, inflated: &[u8]) -> Result<(), Rejection> {
        let mut at = self.row_left;
        while let Some(&filter) = inflated.get(at) {
            if self.current.rows == 0 {
                self.current = self.passes.pop().ok_or_else(invalid)?;
            }
            if filter > FILTER_MAX {
                return Err(invalid());
            }
            self.current.rows -= 1;
            at += self.current.row_bytes;
        }
        self.row_left = at - inflated.len();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pushed(passes: Vec<Pass>, raw: &[u8], piece: usize) -> Result<(), Rejection> {
        let compressed = fdeflate::compress_to_vec(raw);
        let mut pixels = Pixels::new(passes);
        for piece in compressed.chunks(piece) {
            pixels.push(piece)?;
        }
        pixels.finish()
    }

    fn rows(rows: usize, row_bytes: usize, filter: u8) -> Vec<u8> {
        (0..rows * row_bytes).map(|i| if i % row_bytes == 0 { filter } else { (i * 7 % 251) as u8 }).collect()
    }

    #[test]
    fn exact_pixels_pass_in_any_pieces() {
        let passes = vec![Pass { rows: 300, row_bytes: 1001 }, Pass { rows: 1, row_bytes: 2 }];
        let mut raw = rows(300, 1001, 4);
        raw.extend([0, 9]);
        for piece in [1, 13, 5000, usize::MAX] {
            assert_eq!(pushed(passes.clone(), &raw, piece), Ok(()));
        }
    }

    #[test]
    fn one_byte_more_or_less_is_refused() {
        let passes = vec![Pass { rows: 30, row_bytes: 101 }];
        let raw = rows(31, 101, 0);
        assert_eq!(pushed(passes.clone(), &raw[..3030], 99), Ok(()));
        for length in [0, 1, 2929, 3029, 3031] {
            assert!(pushed(passes.clone(), &raw[..length], 99).is_err(), "{length}");
        }
    }

    #[test]
    fn unknown_filters_are_refused() {
        let passes = vec![Pass { rows: 3, row_bytes: 10 }];
        assert_eq!(pushed(passes.clone(), &rows(3, 10, 4), 9), Ok(()));
        assert_eq!(pushed(passes, &rows(3, 10, 5), 9), Err(invalid()));
    }
}
