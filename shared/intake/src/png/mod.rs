//! PNG (W3C PNG, third edition; RFC 2083): every chunk's CRC and order, the header, and the pixels inflated
//! to their exact length (`pixels`).
//!
//! Palette indices are not compared with the palette: decoders show such pixels as black. An animation
//! (`acTL`) with one frame is a picture; with more it is refused.

mod header;
mod pixels;

use crc32fast::Hasher;

use crate::exif::{self, Orientation};
use crate::inspector::Picture;
use crate::{ImageFormat, Limits, Rejection};
use header::{Colour, Header, IHDR_BYTES};
use pixels::Pixels;

const SIGNATURE_BYTES: usize = 8;
const CHUNK_HEADER_BYTES: usize = 8;
const CRC_BYTES: usize = 4;

/// Chunks of one file. Pictures have tens; each costs more than its bytes.
const CHUNKS_MAX: u32 = 1 << 20;

/// Longest EXIF chunk that is read for the orientation.
const EXIF_BYTES_MAX: usize = 64 * 1024;

/// Reads one PNG file from its signature to IEND.
#[derive(Debug)]
pub(crate) struct PngWalker {
    limits: Limits,
    state: State,
    header: Option<Header>,
    pixels: Option<Box<Pixels>>,
    order: Order,
    chunks: u32,
    orientation: Option<Orientation>,
}

#[derive(Debug)]
enum State {
    Signature,
    ChunkHeader,
    /// Within a chunk's data, or before its CRC.
    Chunk(Chunk),
    End,
}

#[derive(Debug)]
struct Chunk {
    kind: [u8; 4],
    left: usize,
    crc: Hasher,
    /// The data so far, of chunks that are read as a whole.
    collected: Option<Vec<u8>>,
}

/// Which chunks have been seen.
#[derive(Debug, Default)]
struct Order {
    palette: bool,
    /// Whether pixel data has begun, and whether another chunk has followed it.
    pixels: bool,
    pixels_ended: bool,
}

fn corrupt(reason: &'static str) -> Rejection {
    Rejection::Corrupt { format: ImageFormat::Png, reason }
}

impl PngWalker {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            state: State::Signature,
            header: None,
            pixels: None,
            order: Order::default(),
            chunks: 0,
            orientation: None,
        }
    }

    pub(crate) fn picture(&self) -> Option<Picture> {
        let State::End = self.state else { return None };
        let header = self.header?;
        Some(Picture {
            format: ImageFormat::Png,
            width: header.width,
            height: header.height,
            orientation: self.orientation.unwrap_or_default(),
        })
    }

    /// What is being read.
    pub(crate) fn part(&self) -> &'static str {
        match &self.state {
            State::Chunk(chunk) if &chunk.kind == b"IDAT" => "pixel data",
            State::Chunk(chunk) if &chunk.kind == b"IEND" => "end chunk",
            _ if self.header.is_none() => "header",
            _ if self.order.pixels => "chunks, before the end chunk",
            _ => "chunks, before the pixel data",
        }
    }

    /// Reads what it can of `window`; returns the number of bytes read.
    pub(crate) fn read(&mut self, window: &[u8]) -> Result<usize, Rejection> {
        let mut at = 0;
        loop {
            let rest = window.get(at..).unwrap_or_default();
            match &mut self.state {
                State::Signature => {
                    if rest.len() < SIGNATURE_BYTES {
                        return Ok(at);
                    }
                    at += SIGNATURE_BYTES;
                    self.state = State::ChunkHeader;
                }
                State::ChunkHeader => {
                    let Some(head) = rest.first_chunk::<CHUNK_HEADER_BYTES>() else { return Ok(at) };
                    at += CHUNK_HEADER_BYTES;
                    self.start_chunk(head)?;
                }
                State::Chunk(chunk) if chunk.left > 0 => {
                    let data = rest.get(..chunk.left).unwrap_or(rest);
                    if data.is_empty() {
                        return Ok(at);
                    }
                    chunk.left -= data.len();
                    chunk.crc.update(data);
                    at += data.len();
                    let (kind, is_complete) = (chunk.kind, chunk.left == 0);
                    if let Some(collected) = &mut chunk.collected {
                        collected.extend_from_slice(data);
                        if is_complete {
                            let collected = std::mem::take(collected);
                            self.read_chunk(kind, &collected)?;
                        }
                    } else if &kind == b"IDAT"
                        && let Some(pixels) = &mut self.pixels
                    {
                        pixels.push(data)?;
                    }
                }
                State::Chunk(chunk) => {
                    let Some(crc) = rest.first_chunk::<CRC_BYTES>() else { return Ok(at) };
                    if u32::from_be_bytes(*crc) != chunk.crc.clone().finalize() {
                        return Err(corrupt("a chunk's checksum is wrong"));
                    }
                    at += CRC_BYTES;
                    let is_end = &chunk.kind == b"IEND";
                    self.state = if is_end { State::End } else { State::ChunkHeader };
                }
                State::End => return Ok(at),
            }
        }
    }

    /// Checks a chunk's kind, length and place, and decides how its data is read.
    fn start_chunk(&mut self, head: &[u8; CHUNK_HEADER_BYTES]) -> Result<(), Rejection> {
        let &[l3, l2, l1, l0, kind @ ..] = head;
        let length = u32::from_be_bytes([l3, l2, l1, l0]);
        if !kind.iter().all(u8::is_ascii_alphabetic) {
            return Err(corrupt("a chunk type is not made of letters"));
        }
        if length > i32::MAX as u32 {
            return Err(corrupt("a chunk length is out of range"));
        }
        self.chunks += 1;
        if self.chunks > CHUNKS_MAX {
            return Err(corrupt("there are too many chunks"));
        }
        let length = length as usize;
        let collects = self.place_chunk(&kind, length)?;
        let mut crc = Hasher::new();
        crc.update(&kind);
        let collected = collects.then(|| Vec::with_capacity(length));
        if collects && length == 0 {
            self.read_chunk(kind, &[])?;
        }
        self.state = State::Chunk(Chunk { kind, left: length, crc, collected });
        Ok(())
    }

    /// Order and length rules; says whether the data is read as a whole.
    fn place_chunk(&mut self, kind: &[u8; 4], length: usize) -> Result<bool, Rejection> {
        let Some(header) = &self.header else {
            let is_header = kind == b"IHDR" && length == IHDR_BYTES;
            return if is_header { Ok(true) } else { Err(corrupt("the header is not the first chunk")) };
        };
        if self.order.pixels && kind != b"IDAT" && !self.order.pixels_ended {
            self.order.pixels_ended = true;
            if let Some(mut pixels) = self.pixels.take() {
                pixels.finish()?;
            }
        }
        match kind {
            b"IHDR" => Err(corrupt("a second header")),
            b"PLTE" => {
                let entries_max = if header.colour == Colour::Palette { 1 << header.bit_depth } else { 256 };
                let fits = length.is_multiple_of(3) && (1..=entries_max).contains(&(length / 3));
                let in_place = !self.order.palette && !self.order.pixels;
                if !fits || !in_place {
                    return Err(corrupt("the palette has a wrong length or place"));
                }
                self.order.palette = true;
                Ok(false)
            }
            b"IDAT" => {
                if self.order.pixels_ended {
                    return Err(corrupt("the pixel data is interrupted by another chunk"));
                }
                if header.colour == Colour::Palette && !self.order.palette {
                    return Err(corrupt("the palette is missing"));
                }
                if !self.order.pixels {
                    self.order.pixels = true;
                    self.pixels = Some(Box::new(Pixels::new(header.passes())));
                }
                Ok(false)
            }
            b"IEND" => {
                if !self.order.pixels {
                    return Err(corrupt("there is no pixel data"));
                }
                if length != 0 { Err(corrupt("the end chunk is not empty")) } else { Ok(false) }
            }
            // Players look for the animation only before the pixels.
            b"acTL" => Ok(!self.order.pixels && length == 8),
            b"eXIf" => Ok(length <= EXIF_BYTES_MAX && self.orientation.is_none()),
            [first, ..] if first.is_ascii_uppercase() => Err(corrupt("an unknown critical chunk")),
            _ => Ok(false),
        }
    }

    /// Reads a chunk that was collected as a whole.
    fn read_chunk(&mut self, kind: [u8; 4], data: &[u8]) -> Result<(), Rejection> {
        match &kind {
            b"IHDR" => {
                let body = data.first_chunk().ok_or_else(|| corrupt("the header is too short"))?;
                self.header = Some(Header::read(body, &self.limits)?);
            }
            b"acTL" => {
                let frames = data.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes));
                if frames > 1 {
                    return Err(Rejection::MultipleFrames { format: ImageFormat::Png });
                }
            }
            b"eXIf" => self.orientation = exif::orientation(data),
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
