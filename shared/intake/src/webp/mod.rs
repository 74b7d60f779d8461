//! WebP (RFC 9649): the RIFF chunks, their order and sizes, and every bit of the picture's data: VP8 tokens
//! (`vp8`), VP8L codes (`vp8l`), alpha.
//!
//! ```text
//!  mod: RIFF ─▶ container: chunks ─▶ payload: VP8 │ VP8L │ ALPH │ EXIF │ skipped
//! ```

mod container;
mod payload;
mod vp8;
mod vp8l;

use crate::inspector::Picture;
use crate::{ImageFormat, Limits, Rejection};
use container::Container;
use payload::{Payload, Progress};

const RIFF_HEADER_BYTES: usize = 12;
const CHUNK_HEADER_BYTES: usize = 8;
/// Bytes in front of the chunks of an animation frame.
const FRAME_HEADER_BYTES: u64 = 16;

/// Chunks of one file. Still pictures have fewer than ten.
const CHUNKS_MAX: u32 = 4096;

/// Reads one WebP file from its RIFF header to the end that the header declares.
#[derive(Debug)]
pub(crate) struct WebpWalker {
    state: State,
    container: Container,
    /// Bytes of the file that follow the chunks opened so far, by the RIFF header.
    file_left: u64,
    /// The same for the frame that is open, by its chunk header.
    frame_left: Option<u64>,
    chunks: u32,
}

#[derive(Debug)]
enum State {
    RiffHeader,
    ChunkHeader,
    /// `left` bytes of data and then `padding` bytes follow.
    Chunk {
        left: u64,
        padding: u64,
        payload: Payload,
    },
    End(Picture),
}

fn corrupt(reason: &'static str) -> Rejection {
    Rejection::Corrupt { format: ImageFormat::Webp, reason }
}

impl WebpWalker {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            state: State::RiffHeader,
            container: Container::new(limits),
            file_left: 0,
            frame_left: None,
            chunks: 0,
        }
    }

    pub(crate) fn picture(&self) -> Option<Picture> {
        match self.state {
            State::End(picture) => Some(picture),
            _ => None,
        }
    }

    /// What is being read.
    pub(crate) fn part(&self) -> &'static str {
        match &self.state {
            State::RiffHeader => "header",
            State::ChunkHeader => "chunks",
            State::Chunk { payload, .. } => payload.part(),
            State::End(_) => "end",
        }
    }

    /// Reads what it can of `window`; returns the number of bytes read.
    pub(crate) fn read(&mut self, window: &[u8]) -> Result<usize, Rejection> {
        let mut at = 0;
        loop {
            let rest = window.get(at..).unwrap_or_default();
            match &mut self.state {
                State::RiffHeader => {
                    let Some(head) = rest.first_chunk::<RIFF_HEADER_BYTES>() else { return Ok(at) };
                    let &[_, _, _, _, s0, s1, s2, s3, ..] = head;
                    // The size counts from behind itself: the form type "WEBP" is part of it.
                    let size = u64::from(u32::from_le_bytes([s0, s1, s2, s3]));
                    self.file_left =
                        size.checked_sub(4).ok_or_else(|| corrupt("the RIFF size is too small"))?;
                    at += RIFF_HEADER_BYTES;
                    self.state = State::ChunkHeader;
                }
                State::ChunkHeader if self.file_left == 0 => {
                    self.state = State::End(self.container.finish()?)
                }
                State::ChunkHeader => {
                    if self.file_left < CHUNK_HEADER_BYTES as u64 {
                        return Err(corrupt("the RIFF size leaves an incomplete chunk"));
                    }
                    let Some(head) = rest.first_chunk::<CHUNK_HEADER_BYTES>() else { return Ok(at) };
                    at += CHUNK_HEADER_BYTES;
                    self.start_chunk(head)?;
                }
                State::Chunk { left, padding, payload } => {
                    let is_whole = rest.len() as u64 >= *left;
                    let data = if is_whole { rest.get(..*left as usize).unwrap_or(rest) } else { rest };
                    let (read, progress) = payload.read(data, is_whole)?;
                    at += read;
                    *left -= read as u64;
                    match progress {
                        // Everything behind the picture's end, and the padding, is passed over.
                        Progress::Done if *left + *padding > 0 => {
                            let done = std::mem::replace(payload, Payload::Skipped);
                            *left += std::mem::take(padding);
                            self.container.close(done)?;
                        }
                        Progress::Done => {
                            let done = std::mem::replace(payload, Payload::Skipped);
                            self.state = State::ChunkHeader;
                            self.container.close(done)?;
                        }
                        Progress::NeedsMore if is_whole => {
                            return Err(corrupt("a chunk ends before its picture data"));
                        }
                        Progress::NeedsMore => return Ok(at),
                    }
                }
                State::End(_) => return Ok(at),
            }
        }
    }

    fn start_chunk(&mut self, head: &[u8; CHUNK_HEADER_BYTES]) -> Result<(), Rejection> {
        let &[k0, k1, k2, k3, s0, s1, s2, s3] = head;
        let kind = [k0, k1, k2, k3];
        let size = u64::from(u32::from_le_bytes([s0, s1, s2, s3]));
        self.chunks += 1;
        if self.chunks > CHUNKS_MAX {
            return Err(corrupt("there are too many chunks"));
        }
        let payload = self.container.open(&kind, size)?;
        // A frame holds chunks: its header is read, and then they are, as if they stood in the file.
        let is_frame = &kind == b"ANMF";
        let data = if is_frame { size.min(FRAME_HEADER_BYTES) } else { size };
        let scope = self.frame_left.unwrap_or(self.file_left);
        if CHUNK_HEADER_BYTES as u64 + size > scope {
            return Err(corrupt("a chunk is larger than what holds it"));
        }
        // An odd chunk is padded; some writers leave out the padding of the last one.
        let padding = if is_frame { 0 } else { (size % 2).min(scope - CHUNK_HEADER_BYTES as u64 - size) };
        let taken = CHUNK_HEADER_BYTES as u64 + data + padding;
        self.file_left -= taken;
        self.frame_left = match self.frame_left {
            _ if is_frame => Some(size - data),
            frame => frame.map(|left| left - taken),
        }
        .filter(|&left| left > 0);
        self.state = State::Chunk { left: data, padding, payload };
        Ok(())
    }
}
