//! stub
use super::container::{Expected, Size};
use super::{corrupt, payload::Progress};
use crate::Rejection;

#[derive(Debug)]
pub(super) struct Vp8 {
    expected: Expected,
    size: Option<Size>,
}
impl Vp8 {
    pub(super) fn new(_chunk_bytes: u64, expected: Expected) -> Self {
        Self { expected, size: None }
    }
    pub(super) fn size(&self) -> Option<Size> {
        self.size
    }
    pub(super) fn read(&mut self, data: &[u8], is_whole: bool) -> Result<(usize, Progress), Rejection> {
        if self.size.is_none() {
            let &[tag, _, _, s0, s1, s2, w0, w1, h0, h1, ..] = data else {
                return Ok((0, Progress::NeedsMore));
            };
            if [s0, s1, s2] != [0x9d, 0x01, 0x2a] || tag & 1 != 0 {
                return Err(corrupt("the picture is not a VP8 key frame"));
            }
            let size = (
                u32::from(u16::from_le_bytes([w0, w1]) & 0x3fff),
                u32::from(u16::from_le_bytes([h0, h1]) & 0x3fff),
            );
            self.expected.check(size)?;
            self.size = Some(size);
        }
        Ok((data.len(), if is_whole { Progress::Done } else { Progress::NeedsMore }))
    }
}
