//! stub
use super::container::{Expected, Size};
use super::{corrupt, payload::Progress};
use crate::Rejection;

#[derive(Debug)]
pub(super) struct Vp8l {
    expected: Expected,
    size: Option<Size>,
}
impl Vp8l {
    pub(super) fn new(expected: Expected) -> Self {
        Self { expected, size: None }
    }
    pub(super) fn size(&self) -> Option<Size> {
        self.size
    }
    pub(super) fn read(&mut self, data: &[u8]) -> Result<(usize, Progress), Rejection> {
        let &[0x2f, b0, b1, b2, b3, ..] = data else {
            if data.first().is_some_and(|&b| b != 0x2f) {
                return Err(corrupt("the lossless signature is missing"));
            }
            return Ok((0, Progress::NeedsMore));
        };
        let bits = u32::from_le_bytes([b0, b1, b2, b3]);
        let size = (1 + (bits & 0x3fff), 1 + (bits >> 14 & 0x3fff));
        self.expected.check(size)?;
        self.size = Some(size);
        Ok((5, Progress::Done))
    }
}
#[derive(Debug)]
pub(super) struct Alpha;
impl Alpha {
    pub(super) fn new(_size: Size) -> Self {
        Self
    }
    pub(super) fn read(&mut self, _data: &[u8]) -> Result<(usize, Progress), Rejection> {
        Ok((0, Progress::Done))
    }
}
