//! WebP: the chunks of the picture stay; of every other chunk its type and length stay, as the extended header may
//! announce it, and its data becomes zeros.
//!
//! `EXIF` keeps the orientation, in a block of its own. What follows the file that the RIFF header declares goes as
//! well.

use super::pass::{Fate, Format};
use super::{EXIF_BYTES_MAX, Output};
use crate::exif::only_orientation;

/// Where in a WebP file the next head is.
#[derive(Debug, Default)]
pub(super) struct Webp {
    /// Bytes of the file that follow the chunks opened so far, by the RIFF header; `None` before it.
    file_left: Option<u64>,
    /// The same for the animation frame that is open, by its chunk header.
    frame_left: Option<u64>,
}

const RIFF_HEADER_BYTES: usize = 12;
const CHUNK_HEADER_BYTES: u64 = 8;
/// Bytes in front of the chunks of an animation frame.
const FRAME_HEADER_BYTES: u64 = 16;

/// Chunks of which something stays: how many bytes from their start.
const KEPT: &[(&[u8; 4], u64)] = &[
    (b"VP8X", 10),
    (b"ANIM", 6),
    (b"ANMF", FRAME_HEADER_BYTES),
    (b"VP8 ", u64::MAX),
    (b"VP8L", u64::MAX),
    (b"ALPH", u64::MAX),
    (b"ICCP", u64::MAX),
];

impl Format for Webp {
    fn head(&mut self, rest: &[u8], out: &mut Output<'_>) -> Option<(usize, Fate)> {
        match self.file_left {
            None => {
                let header = rest.first_chunk::<RIFF_HEADER_BYTES>()?;
                let &[_, _, _, _, s0, s1, s2, s3, ..] = header;
                // The size counts from behind itself: the form type "WEBP" is part of it.
                self.file_left = u32::from_le_bytes([s0, s1, s2, s3]).checked_sub(4).map(u64::from);
                let fate = if self.file_left.is_some() { Fate::HEAD } else { Fate::Lost };
                Some((out.keep(header), fate))
            }
            Some(0) => Some((0, Fate::Tail)),
            Some(file_left) => self.chunk(file_left, rest, out),
        }
    }
}

impl Webp {
    /// Reads a chunk's header, and an EXIF block with it.
    fn chunk(&mut self, file_left: u64, rest: &[u8], out: &mut Output<'_>) -> Option<(usize, Fate)> {
        let header = rest.first_chunk::<{ CHUNK_HEADER_BYTES as usize }>()?;
        let &[k0, k1, k2, k3, s0, s1, s2, s3] = header;
        let kind = [k0, k1, k2, k3];
        let size = u64::from(u32::from_le_bytes([s0, s1, s2, s3]));
        let scope = self.frame_left.unwrap_or(file_left);
        let Some(room) = scope.checked_sub(CHUNK_HEADER_BYTES + size) else {
            return Some((0, Fate::Lost));
        };
        let exif_read = size.min(EXIF_BYTES_MAX as u64);
        let only = if &kind == b"EXIF" {
            let block = rest.get(header.len()..header.len() + exif_read as usize)?;
            only_orientation(block).map(|only| (block, only))
        } else {
            None
        };
        // A frame holds chunks: its header is read, and then they are, as if they stood in the file. An odd chunk is
        // padded; some writers leave out the padding of the last one.
        let is_frame = &kind == b"ANMF";
        let (data, padding) =
            if is_frame { (size.min(FRAME_HEADER_BYTES), 0) } else { (size, (size % 2).min(room)) };
        let taken = CHUNK_HEADER_BYTES + data + padding;
        self.file_left = Some(file_left.saturating_sub(taken));
        self.frame_left = match self.frame_left {
            _ if is_frame => Some(size - data),
            frame => frame.map(|left| left.saturating_sub(taken)),
        }
        .filter(|&left| left > 0);
        if let Some((block, only)) = only {
            let blanked = data + padding - exif_read;
            return Some((out.keep(header) + out.replace(block, &only), Fate::Body { kept: 0, blanked }));
        }
        let kept = KEPT.iter().find(|(known, _)| **known == kind).map_or(0, |(_, kept)| *kept).min(data);
        Some((out.keep(header), Fate::Body { kept, blanked: data + padding - kept }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::redact;
    use super::*;

    fn chunk(kind: &[u8; 4], data: &[u8]) -> Vec<u8> {
        let size = u32::try_from(data.len()).unwrap().to_le_bytes();
        [kind.as_slice(), &size, data, &[0][..data.len() % 2]].concat()
    }

    fn file(chunks: &[u8]) -> Vec<u8> {
        let size = u32::try_from(chunks.len() + 4).unwrap().to_le_bytes();
        [b"RIFF".as_slice(), &size, b"WEBP", chunks].concat()
    }

    #[track_caller]
    fn check(before: &[u8], after: &[u8]) {
        assert_eq!(redact(&file(before)), file(after));
    }

    #[test]
    fn chunks_of_the_picture_stay_and_others_become_zeros() {
        for kind in [b"VP8 ", b"VP8L", b"ALPH", b"ICCP"] {
            check(&chunk(kind, b"as it is!"), &chunk(kind, b"as it is!"));
        }
        for kind in [b"XMP ", b"EXIF", b"C2PA", b"note"] {
            for data in [&b""[..], b"Jane Doe", b"odd"] {
                check(&chunk(kind, data), &chunk(kind, &vec![0; data.len()]));
            }
        }
        check(&chunk(b"VP8X", b"ten bytes.serial"), &chunk(b"VP8X", b"ten bytes.\0\0\0\0\0\0"));
    }

    #[test]
    fn an_exif_chunk_keeps_its_orientation_however_long_it_is() {
        let exif = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0".as_slice();
        for rest in [0, 21, EXIF_BYTES_MAX, 200_001] {
            let before = file(&chunk(b"EXIF", &[exif, &vec![b'x'; rest]].concat()));
            let after = redact(&before);
            let only = &after[RIFF_HEADER_BYTES + 8..][..exif.len() + rest];
            assert_eq!(*after, file(&chunk(b"EXIF", only)));
            assert_eq!(crate::exif::orientation(only), crate::Orientation::from_exif(6));
            assert!(!only.contains(&b'x'));
        }
    }

    #[test]
    fn chunks_within_a_frame_are_chunks() {
        let frame = |note: &[u8]| {
            let chunks = [chunk(b"VP8L", b"picture"), chunk(b"note", note)].concat();
            let frame = chunk(b"ANMF", &[[9; 16].as_slice(), &chunks].concat());
            [frame, chunk(b"XMP ", note)].concat()
        };
        check(&frame(b"by Jane"), &frame(&[0; 7]));
    }

    #[test]
    fn what_follows_the_file_goes_and_what_is_no_chunk_goes_through() {
        let whole = file(&chunk(b"VP8 ", b"data"));
        let followed = [whole.as_slice(), b"a note"].concat();
        assert_eq!(redact(&followed).into_owned(), [whole.as_slice(), &[0; 6]].concat());
        let too_large = file(b"note\xff\0\0\0ab");
        assert_eq!(redact(&too_large), too_large);
    }
}
