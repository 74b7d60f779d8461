//! PNG: chunks that a decoder needs for the pixels stay; every other chunk becomes one of a private type that is all
//! zeros, with the checksum that goes with it. A text chunk of zeros would have no keyword, and decoders complain.
//!
//! `eXIf` keeps the orientation, in a block of its own. What follows the end chunk goes as well.

use crc32fast::Hasher;

use super::pass::{Fate, Format};
use super::{EXIF_BYTES_MAX, Output};
use crate::exif::only_orientation;

/// What the next head of a PNG file is.
#[derive(Debug, Default)]
pub(super) enum Png {
    #[default]
    Signature,
    ChunkHeader,
    /// The checksum of a chunk that went: of what is hashed already, and of the zeros behind it.
    Checksum {
        crc: Hasher,
        zeros: u64,
    },
    /// None: the end chunk was the last.
    End,
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

impl Format for Png {
    fn head(&mut self, rest: &[u8], out: &mut Output<'_>) -> Option<(usize, Fate)> {
        match self {
            Self::Signature => {
                let signature = rest.first_chunk::<SIGNATURE_BYTES>()?;
                *self = Self::ChunkHeader;
                Some((out.keep(signature), Fate::HEAD))
            }
            Self::ChunkHeader => self.chunk(rest, out),
            Self::Checksum { crc, zeros } => {
                let old = rest.first_chunk::<CRC_BYTES>()?;
                let crc = with_zeros(crc.clone(), *zeros);
                *self = Self::ChunkHeader;
                Some((out.replace(old, &crc.to_be_bytes()), Fate::HEAD))
            }
            Self::End => Some((0, Fate::Tail)),
        }
    }
}

impl Png {
    /// Reads a chunk's header, and an EXIF block with it.
    fn chunk(&mut self, rest: &[u8], out: &mut Output<'_>) -> Option<(usize, Fate)> {
        let header = rest.first_chunk::<HEADER_BYTES>()?;
        let &[l3, l2, l1, l0, kind @ ..] = header;
        let length = u32::from_be_bytes([l3, l2, l1, l0]);
        if length > i32::MAX as u32 || !kind.iter().all(u8::is_ascii_alphabetic) {
            return Some((0, Fate::Lost));
        }
        let is_critical = kind[0].is_ascii_uppercase();
        if is_critical || KEPT_ANCILLARY.contains(&&kind) {
            if &kind == b"IEND" {
                *self = Self::End;
            }
            let kept = u64::from(length) + CRC_BYTES as u64;
            return Some((out.keep(header), Fate::Body { kept, blanked: 0 }));
        }
        let mut crc = Hasher::new();
        if &kind == b"eXIf" {
            let read = (length as usize).min(EXIF_BYTES_MAX);
            let block = rest.get(HEADER_BYTES..HEADER_BYTES + read)?;
            if let Some(only) = only_orientation(block) {
                crc.update(&kind);
                crc.update(&only);
                let zeros = u64::from(length) - read as u64;
                *self = Self::Checksum { crc, zeros };
                let taken = out.keep(header) + out.replace(block, &only);
                return Some((taken, Fate::Body { kept: 0, blanked: zeros }));
            }
        }
        let [b3, b2, b1, b0] = *BLANK;
        crc.update(BLANK);
        let zeros = u64::from(length);
        *self = Self::Checksum { crc, zeros };
        let taken = out.replace(header, &[l3, l2, l1, l0, b3, b2, b1, b0]);
        Some((taken, Fate::Body { kept: 0, blanked: zeros }))
    }
}

/// The checksum of what is hashed and of so many zeros behind it, which have all been read by then: a length that a
/// header makes up costs nothing.
fn with_zeros(mut crc: Hasher, mut zeros: u64) -> u32 {
    const ZEROS: [u8; 4096] = [0; 4096];
    while zeros > 0 {
        let piece = usize::try_from(zeros).ok().and_then(|left| ZEROS.get(..left)).unwrap_or(&ZEROS);
        crc.update(piece);
        zeros -= piece.len() as u64;
    }
    crc.finalize()
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
