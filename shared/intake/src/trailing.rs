//! Looks at what follows the end of a picture, where polyglots keep their second file.
//!
//! Cameras and phones pad files and append small notes; those are harmless. The rule:
//!
//! * padding (bytes 0x00, space, tab, CR, LF) is allowed, however long;
//! * up to 64 KiB of anything else is allowed unless it holds another file: it *begins* (after padding) with
//!   any signature that [`crate::sniff`] knows, or it *contains* one of the signatures below that readers of
//!   that format would find in the middle of a file, or that cannot be there by chance;
//! * more than 64 KiB of it is refused: a payload of an unknown type.

use crate::sniff::{Sniffed, foreign, sniff};
use crate::{ImageFormat, Rejection};

/// Longest tail, from its first byte that is not padding, that is accepted.
const TAIL_BYTES_MAX: usize = 64 * 1024;

/// Bytes from the tail's start that are looked at for a signature at the start.
const OPENING_BYTES: usize = 512;

/// Signatures that are refused wherever they stand in the tail; ASCII letters match in either case.
const ANYWHERE: &[(&[u8], &str)] = &[
    (b"\xff\xd8\xff", "a second JPEG picture"),
    (b"\x89PNG\r\n", "a second PNG picture"),
    (b"gif87a", "a GIF picture"),
    (b"gif89a", "a GIF picture"),
    (b"8bps\0", "a Photoshop document"),
    (b"pk\x03\x04", "a ZIP archive"),
    (b"pk\x05\x06", "a ZIP archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"rar!\x1a\x07", "a RAR archive"),
    (b"%pdf-", "a PDF document"),
    (b"\x7felf", "an ELF program"),
    (b"\xfe\xed\xfa\xce", "a Mach-O program"),
    (b"\xfe\xed\xfa\xcf", "a Mach-O program"),
    (b"\xce\xfa\xed\xfe", "a Mach-O program"),
    (b"\xcf\xfa\xed\xfe", "a Mach-O program"),
    (b"\xca\xfe\xba\xbe", "a Java class or Mach-O program"),
    (b"asm\x01\0\0\0", "a WebAssembly module"),
    (b"this program cannot be run", "a Windows program"),
    (b"ftyp", "an MP4, HEIC or AVIF file"),
    (b"<?php", "a PHP script"),
    (b"<?=", "a PHP script"),
    (b"<%@", "a server page"),
    (b"<script", "an HTML page"),
    (b"<html", "an HTML page"),
    (b"<!doctype", "an HTML page"),
    (b"<iframe", "an HTML page"),
    (b"<svg", "an SVG picture"),
    (b"<?xml", "an XML document"),
    (b"#!/", "a script"),
];

/// Collects the tail and judges it.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    bytes: Vec<u8>,
}

impl Tail {
    /// Takes bytes after the end of the picture.
    pub(crate) fn push(&mut self, format: ImageFormat, chunk: &[u8]) -> Result<(), Rejection> {
        let mut chunk = chunk;
        if self.bytes.is_empty() {
            let start = chunk.iter().position(|&byte| !is_padding(byte)).unwrap_or(chunk.len());
            chunk = chunk.get(start..).unwrap_or_default();
        }
        let room = TAIL_BYTES_MAX - self.bytes.len();
        self.bytes.extend_from_slice(chunk.get(..room).unwrap_or(chunk));
        let beyond = chunk.get(room..).unwrap_or_default();
        if beyond.iter().all(|&byte| is_padding(byte)) {
            return Ok(());
        }
        self.judge(format)?;
        Err(Rejection::TrailingFile { format, found: "unknown data" })
    }

    /// The verdict once all bytes have come.
    pub(crate) fn judge(&self, format: ImageFormat) -> Result<(), Rejection> {
        let opening = self.bytes.get(..OPENING_BYTES).unwrap_or(&self.bytes);
        let begins_with = match sniff(opening, true) {
            Sniffed::Image(ImageFormat::Webp) => Some("a WebP picture"),
            Sniffed::Image(ImageFormat::Png) => Some("a second PNG picture"),
            Sniffed::Image(ImageFormat::Jpeg) => Some("a second JPEG picture"),
            _ => foreign(opening).filter(|&name| name != "plain text"),
        };
        match begins_with.or_else(|| find_anywhere(&self.bytes)) {
            Some(found) => Err(Rejection::TrailingFile { format, found }),
            None => Ok(()),
        }
    }
}

fn is_padding(byte: u8) -> bool {
    matches!(byte, 0x00 | b' ' | b'\t' | b'\r' | b'\n')
}

fn find_anywhere(tail: &[u8]) -> Option<&'static str> {
    let mut opens = [false; 256];
    for first in ANYWHERE.iter().filter_map(|(magic, _)| magic.first()) {
        opens[usize::from(first.to_ascii_lowercase())] = true;
        opens[usize::from(first.to_ascii_uppercase())] = true;
    }
    let candidates = tail.iter().enumerate().filter(|(_, byte)| opens[usize::from(**byte)]);
    candidates.filter_map(|(at, _)| tail.get(at..)).find_map(|rest| {
        let hit = ANYWHERE.iter().find(|(magic, _)| {
            rest.get(..magic.len()).is_some_and(|start| start.eq_ignore_ascii_case(magic))
        });
        hit.map(|(_, name)| *name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(tail: &[u8], chunk: usize) -> Result<(), Rejection> {
        let mut collected = Tail::default();
        for chunk in tail.chunks(chunk) {
            collected.push(ImageFormat::Png, chunk)?;
        }
        collected.judge(ImageFormat::Png)
    }

    #[track_caller]
    fn check(tail: &[u8], found: Option<&'static str>) {
        for chunk in [1, 7, 4096, usize::MAX] {
            let expected = found
                .map_or(Ok(()), |found| Err(Rejection::TrailingFile { format: ImageFormat::Png, found }));
            assert_eq!(verdict(tail, chunk), expected, "in chunks of {chunk}");
        }
    }

    #[test]
    fn padding_and_notes_are_harmless() {
        check(b"", None);
        check(&[0; 200_000], None);
        check(b"\r\n", None);
        check(b"a note from the camera", None);
        check(&[b"\0\0\x01\x0aImage_UTC_Data1700000000000SEFH", [0; 100_000].as_slice()].concat(), None);
    }

    #[test]
    fn a_second_file_is_named() {
        check(b"PK\x03\x04rest", Some("a ZIP archive"));
        check(b"\0\0\r\nMZ\x90\0", Some("a Windows program"));
        check(b"\nGIF89a", Some("a GIF picture"));
        check(b"some note, then <?PHP system($_GET[0]);", Some("a PHP script"));
        check(b"\0\0\0\x18ftypisom", Some("an MP4, HEIC or AVIF file"));
        check(b"RIFF\x10\0\0\0WEBPVP8 ", Some("a WebP picture"));
        check(b"\0\0\0\0\xff\xd8\xff\xe0", Some("a second JPEG picture"));
        check(&[[b'x'; 60_000].as_slice(), b"%PDF-1.4"].concat(), Some("a PDF document"));
    }

    #[test]
    fn a_long_tail_is_refused_unless_it_is_padding() {
        check(&[b'x'; TAIL_BYTES_MAX], None);
        check(&[b'x'; TAIL_BYTES_MAX + 1], Some("unknown data"));
    }
}
