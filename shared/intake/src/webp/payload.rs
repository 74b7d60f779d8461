//! The data of one chunk, read piece by piece.

use super::container::{Expected, Size};
use super::corrupt;
use super::vp8::Vp8;
use super::vp8l::{Alpha, Vp8l};
use crate::Rejection;

/// How a chunk's data is read.
#[derive(Debug)]
pub(super) enum Payload {
    Skipped,
    Collected(Collected),
    Vp8(Box<Vp8>),
    Vp8l(Box<Vp8l>),
    Alpha(Box<Alpha>),
}

/// The first `wanted` bytes of a small chunk.
#[derive(Debug)]
pub(super) struct Collected {
    pub(super) kind: [u8; 4],
    pub(super) bytes: Vec<u8>,
    wanted: usize,
}

/// Whether a payload has read all that it wants of its chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    NeedsMore,
    Done,
}

impl Payload {
    pub(super) fn collect(kind: [u8; 4], wanted: usize) -> Self {
        Self::Collected(Collected { kind, bytes: Vec::with_capacity(wanted), wanted })
    }

    pub(super) fn vp8(chunk_bytes: u64, expected: Expected) -> Self {
        Self::Vp8(Box::new(Vp8::new(chunk_bytes, expected)))
    }

    pub(super) fn vp8l(expected: Expected) -> Self {
        Self::Vp8l(Box::new(Vp8l::new(expected)))
    }

    pub(super) fn alpha(size: Size) -> Self {
        Self::Alpha(Box::new(Alpha::new(size)))
    }

    pub(super) fn part(&self) -> &'static str {
        match self {
            Self::Skipped | Self::Collected(_) => "chunks",
            Self::Vp8(_) => "lossy picture data",
            Self::Vp8l(_) => "lossless picture data",
            Self::Alpha(_) => "alpha data",
        }
    }

    /// Reads what it can of `data`, the unread rest of the chunk as far as it has come; `is_whole` says that
    /// the chunk ends with it. Returns the number of bytes read.
    pub(super) fn read(&mut self, data: &[u8], is_whole: bool) -> Result<(usize, Progress), Rejection> {
        match self {
            Self::Skipped => Ok((data.len(), if is_whole { Progress::Done } else { Progress::NeedsMore })),
            Self::Collected(collected) => {
                let missing = collected.wanted - collected.bytes.len();
                let now = data.get(..missing).unwrap_or(data);
                collected.bytes.extend_from_slice(now);
                let is_done = now.len() == missing;
                if is_whole && !is_done {
                    return Err(corrupt("a header chunk is too short"));
                }
                Ok((now.len(), if is_done { Progress::Done } else { Progress::NeedsMore }))
            }
            Self::Vp8(vp8) => vp8.read(data, is_whole),
            Self::Vp8l(vp8l) => vp8l.read(data),
            Self::Alpha(alpha) => alpha.read(data),
        }
    }
}
