//! PNG: chunks that a decoder needs for the pixels stay; every other chunk becomes one of a private type that is all
//! zeros, with the checksum that goes with it. A text chunk of zeros would have no keyword, and decoders complain.
//!
//! `eXIf` keeps the orientation, in a block of its own. What follows the end chunk goes as well.

use crc32fast::Hasher;

use super::{EXIF_BYTES_MAX, Output, take};
use crate::exif::only_orientation;

/// Redacts one PNG file from its signature to the end of the upload.
#[derive(Debug, Default)]
pub(super) struct PngRedactor {
    state: State,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Signature,
    ChunkHeader,
    /// Within a chunk that stays, its checksum included.
    Kept {
        left: u64,
        is_end: bool,
    },
    /// Within the data of a chunk that goes, or behind what has taken its place.
    Blanked {
        left: u64,
        crc: Hasher,
    },
    /// Behind the end chunk.
    Tail,
    /// No chunk where one has to be: not a valid file.
    Lost,
}

const SIGNATURE_BYTES: usize = 8;
const HEADER_BYTES: usize = 8;
const CRC_BYTES: usize = 4;

/// Ancillary, private, safe to copy (PNG, 5.4): the type that nobody else's decoder knows.
const BLANK: &[u8; 4] = b"voId";

/// Ancillary chunks that say how samples become colours, how large pixels are, or what belongs to an animation.
const KEPT_ANCILLARY: &[&[u8; 4]] = &[
    b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"sBIT", b"bKGD", b"hIST", b"pHYs", b"sPLT", b"cICP",
    b"mDCV", b"cLLI", b"acTL", b"fcTL", b"fdAT",
];

impl PngRedactor {
    pub(super) fn read(&mut self, window: &[u8], out: &mut Output<'_>) -> usize {
        let mut at = 0;
        loop {
            let rest = window.get(at..).unwrap_or_default();
            if rest.is_empty() {
                return at;
            }
            at += match &mut self.state {
                State::Signature => {
                    let Some(signature) = rest.first_chunk::<SIGNATURE_BYTES>() else { return at };
                    out.keep(signature);
                    self.state = State::ChunkHeader;
                    signature.len()
                }
                State::ChunkHeader => match self.start_chunk(rest, out) {
                    Some(read) => read,
                    None => return at,
                },
                State::Kept { left: 0, is_end } => {
                    self.state = if *is_end { State::Tail } else { State::ChunkHeader };
                    0
                }
                State::Kept { left, .. } => {
                    let data = take(rest, left);
                    out.keep(data);
                    data.len()
                }
                State::Blanked { left: 0, crc } => {
                    let Some(old) = rest.first_chunk::<CRC_BYTES>() else { return at };
                    out.replace(old, &crc.clone().finalize().to_be_bytes());
                    self.state = State::ChunkHeader;
                    old.len()
                }
                State::Blanked { left, crc } => {
                    let blanked = out.blank(take(rest, left));
                    crc.update(blanked);
                    blanked.len()
                }
                State::Tail => out.blank(rest).len(),
                State::Lost => {
                    out.keep(rest);
                    rest.len()
                }
            };
        }
    }

    /// Reads a chunk's header, and an EXIF block with it; `None` if more bytes are needed.
    fn start_chunk(&mut self, rest: &[u8], out: &mut Output<'_>) -> Option<usize> {
        let header = rest.first_chunk::<HEADER_BYTES>()?;
        let &[l3, l2, l1, l0, kind @ ..] = header;
        let length = u32::from_be_bytes([l3, l2, l1, l0]);
        if length > i32::MAX as u32 || !kind.iter().all(u8::is_ascii_alphabetic) {
            self.state = State::Lost;
            return Some(0);
        }
        let is_critical = kind[0].is_ascii_uppercase();
        if is_critical || KEPT_ANCILLARY.contains(&&kind) {
            out.keep(header);
            let left = u64::from(length) + CRC_BYTES as u64;
            self.state = State::Kept { left, is_end: &kind == b"IEND" };
            return Some(HEADER_BYTES);
        }
        let mut crc = Hasher::new();
        if &kind == b"eXIf" {
            let read = (length as usize).min(EXIF_BYTES_MAX);
            let block = rest.get(HEADER_BYTES..HEADER_BYTES + read)?;
            if let Some(only) = only_orientation(block) {
                out.keep(header);
                out.replace(block, &only);
                crc.update(&kind);
                crc.update(&only);
                self.state = State::Blanked { left: u64::from(length) - read as u64, crc };
                return Some(HEADER_BYTES + read);
            }
        }
        let [b3, b2, b1, b0] = *BLANK;
        out.replace(header, &[l3, l2, l1, l0, b3, b2, b1, b0]);
        crc.update(BLANK);
        self.state = State::Blanked { left: u64::from(length), crc };
        Some(HEADER_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::super::redact;
    use super::*;

    const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

    fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
        let mut crc = Hasher::new();
        crc.update(kind);
        crc.update(data);
        let length = u32::try_from(data.len()).unwrap().to_be_bytes();
        [length.as_slice(), kind, data, &crc.finalize().to_be_bytes()].concat()
    }

    /// What becomes of chunks between the signature and the end.
    fn after(chunks: &[u8]) -> Vec<u8> {
        let end = chunk(b"IEND", b"");
        let redacted = redact(&[SIGNATURE, chunks, &end].concat()).into_owned();
        assert!(redacted.starts_with(SIGNATURE) && redacted.ends_with(&end));
        redacted[SIGNATURE.len()..redacted.len() - end.len()].to_vec()
    }

    #[test]
    fn chunks_that_no_pixel_needs_become_empty_ones_of_our_own_type() {
        for kind in [b"tEXt", b"zTXt", b"iTXt", b"tIME", b"caBX", b"prVt", b"oFFs", BLANK] {
            for data in [&b""[..], b"Author\0Jane Doe", &[7; 3000]] {
                assert_eq!(after(&chunk(kind, data)), chunk(BLANK, &vec![0; data.len()]));
            }
        }
        for kind in KEPT_ANCILLARY.iter().chain([&b"IHDR", &b"PLTE", &b"IDAT", &b"NEWc"]) {
            assert_eq!(after(&chunk(kind, b"as it is")), chunk(kind, b"as it is"));
        }
    }

    #[test]
    fn an_exif_chunk_keeps_its_orientation_however_long_it_is() {
        let exif = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0".as_slice();
        for rest in [0, 20, EXIF_BYTES_MAX - exif.len(), EXIF_BYTES_MAX, 200_000] {
            let block = [exif, &vec![b'x'; rest]].concat();
            let redacted = after(&chunk(b"eXIf", &block));
            let only = &redacted[HEADER_BYTES..redacted.len() - CRC_BYTES];
            assert_eq!(redacted, chunk(b"eXIf", only), "{rest}: the checksum is right");
            assert_eq!(only.len(), block.len());
            assert_eq!(crate::exif::orientation(only), crate::Orientation::from_exif(6));
            assert!(!only.contains(&b'x'));
        }
        let none = chunk(b"eXIf", b"II*\0\x08\0\0\0\0\0 no orientation");
        assert_eq!(after(&none), chunk(BLANK, &[0; 25]));
    }

    #[test]
    fn what_follows_the_end_goes_and_what_is_no_chunk_goes_through() {
        let file = [SIGNATURE, &chunk(b"IEND", b""), b"a note"].concat();
        assert_eq!(redact(&file).into_owned(), [&file[..file.len() - 6], &[0; 6]].concat());
        for rest in [b"\0\0\0\x02t3xtab".as_slice(), b"\xff\0\0\x02tEXtab"] {
            let file = [SIGNATURE, rest].concat();
            assert_eq!(redact(&file), file);
        }
    }
}
