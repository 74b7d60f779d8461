//! Recognises content by its first bytes: the three accepted formats, and enough of the others that a
//! refusal can say what the upload was. Also used on what follows a picture ([`crate::trailing`]).

use std::fmt;

/// An accepted picture format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ImageFormat {
    /// JPEG (ITU-T T.81): baseline, extended or progressive Huffman, 8 bits.
    Jpeg,
    /// PNG (W3C PNG, third edition).
    Png,
    /// WebP (RFC 9649): lossy, lossless, with or without alpha.
    Webp,
}

impl ImageFormat {
    /// The registered media type: `image/jpeg`, `image/png` or `image/webp`.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Jpeg => "image/jpeg",
            Self::Png => "image/png",
            Self::Webp => "image/webp",
        }
    }

    /// The usual file name extension, without a dot.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Jpeg => "jpg",
            Self::Png => "png",
            Self::Webp => "webp",
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Jpeg => "JPEG",
            Self::Png => "PNG",
            Self::Webp => "WebP",
        }
    }
}

impl fmt::Display for ImageFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What the first bytes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sniffed {
    /// One of the accepted formats.
    Image(ImageFormat),
    /// Not an accepted format; `0` names what it looks like.
    Other(&'static str),
    /// More bytes are needed.
    Undecided,
}

/// Bytes that [`sniff`] wants before it names a foreign format. Text formats may open with comments.
const FOREIGN_PREFIX_BYTES: usize = 512;

const PNG_SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

/// Recognises the content that starts with `prefix`; `all` says that no more bytes will come.
///
/// Accepted formats are recognised from their shortest unmistakable signature, others from the first
/// 512 bytes, so that the answer does not depend on how the bytes arrive.
pub(crate) fn sniff(prefix: &[u8], all: bool) -> Sniffed {
    if prefix.starts_with(b"\xff\xd8") {
        return Sniffed::Image(ImageFormat::Jpeg);
    }
    if prefix.starts_with(PNG_SIGNATURE) {
        return Sniffed::Image(ImageFormat::Png);
    }
    if prefix.starts_with(b"RIFF") && prefix.get(8..12) == Some(b"WEBP") {
        return Sniffed::Image(ImageFormat::Webp);
    }
    if !all && prefix.len() < FOREIGN_PREFIX_BYTES {
        return Sniffed::Undecided;
    }
    let prefix = prefix.get(..FOREIGN_PREFIX_BYTES).unwrap_or(prefix);
    Sniffed::Other(foreign(prefix).unwrap_or(if prefix.is_empty() { "empty" } else { "of an unknown type" }))
}

/// A byte signature at a fixed place.
struct Signature {
    offset: usize,
    magic: &'static [u8],
    name: &'static str,
}

const fn at(offset: usize, magic: &'static [u8], name: &'static str) -> Signature {
    Signature { offset, magic, name }
}

/// Signatures by place. Order matters only where one is a prefix of another.
const SIGNATURES: &[Signature] = &[
    at(0, b"GIF8", "a GIF picture"),
    at(0, b"BM", "a BMP picture"),
    at(0, b"II*\0", "a TIFF picture"),
    at(0, b"MM\0*", "a TIFF picture"),
    at(0, b"II+\0", "a TIFF picture"),
    at(0, b"MM\0+", "a TIFF picture"),
    at(0, b"\0\0\x01\0", "an icon file"),
    at(0, b"\0\0\x02\0", "an icon file"),
    at(0, b"8BPS", "a Photoshop document"),
    at(0, b"\x89MNG", "an MNG animation"),
    at(0, b"\x8bJNG", "a JNG picture"),
    at(0, b"\xff\x0a", "a JPEG XL picture"),
    at(0, b"\0\0\0\x0cJXL ", "a JPEG XL picture"),
    at(0, b"\0\0\0\x0cjP  ", "a JPEG 2000 picture"),
    at(0, b"\xff\x4f\xff\x51", "a JPEG 2000 picture"),
    at(0, b"\x76\x2f\x31\x01", "an OpenEXR picture"),
    at(0, b"#?RADIANCE", "a Radiance picture"),
    at(0, b"qoif", "a QOI picture"),
    at(0, b"DDS ", "a DDS texture"),
    at(0, b"farbfeld", "a farbfeld picture"),
    at(0, b"\x01\xda", "an SGI picture"),
    at(4, b"ftypavif", "an AVIF picture"),
    at(4, b"ftypavis", "an AVIF picture"),
    at(4, b"ftyphei", "a HEIC picture"),
    at(4, b"ftyphev", "a HEIC picture"),
    at(4, b"ftypmif1", "a HEIF picture"),
    at(4, b"ftypmsf1", "a HEIF picture"),
    at(4, b"ftypqt  ", "a QuickTime film"),
    at(4, b"ftyp", "an MP4 film"),
    at(4, b"moov", "a QuickTime film"),
    at(0, b"\x1aE\xdf\xa3", "a Matroska or WebM film"),
    at(0, b"OggS", "an Ogg file"),
    at(0, b"ID3", "an MP3 file"),
    at(0, b"\xff\xfb", "an MP3 file"),
    at(0, b"fLaC", "a FLAC file"),
    at(0, b"%PDF-", "a PDF document"),
    at(0, b"%!PS", "a PostScript document"),
    at(0, b"{\\rtf", "an RTF document"),
    at(0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Office document"),
    at(0, b"PK\x03\x04", "a ZIP archive"),
    at(0, b"PK\x05\x06", "a ZIP archive"),
    at(0, b"PK\x07\x08", "a ZIP archive"),
    at(0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    at(0, b"Rar!\x1a\x07", "a RAR archive"),
    at(0, b"\x1f\x8b", "a gzip file"),
    at(0, b"BZh", "a bzip2 file"),
    at(0, b"\xfd7zXZ\0", "an xz file"),
    at(0, b"\x28\xb5\x2f\xfd", "a Zstandard file"),
    at(0, b"\x04\x22\x4d\x18", "an LZ4 file"),
    at(0, b"\x60\xea", "an ARJ archive"),
    at(0, b"MSCF", "a cabinet archive"),
    at(257, b"ustar", "a tar archive"),
    at(0, b"\x7fELF", "an ELF program"),
    at(0, b"MZ", "a Windows program"),
    at(0, b"\xfe\xed\xfa\xce", "a Mach-O program"),
    at(0, b"\xfe\xed\xfa\xcf", "a Mach-O program"),
    at(0, b"\xce\xfa\xed\xfe", "a Mach-O program"),
    at(0, b"\xcf\xfa\xed\xfe", "a Mach-O program"),
    at(0, b"\xca\xfe\xba\xbe", "a Java class or Mach-O program"),
    at(0, b"\0asm", "a WebAssembly module"),
    at(0, b"dex\n", "a Dalvik program"),
    at(0, b"glTF", "a glTF model"),
    at(0, b"SQLite format 3\0", "an SQLite database"),
    at(0, b"\xd4\xc3\xb2\xa1", "a packet capture"),
    at(0, b"\xa1\xb2\xc3\xd4", "a packet capture"),
    at(0, b"\x0a\x0d\x0d\x0a", "a packet capture"),
    at(0, b"#!", "a script"),
];

/// Text formats: the lower-case opening after white space and a byte-order mark.
const TEXT_OPENINGS: &[(&[u8], &str)] = &[
    (b"<svg", "an SVG picture"),
    (b"<!doctype svg", "an SVG picture"),
    (b"<!doctype html", "an HTML page"),
    (b"<html", "an HTML page"),
    (b"<head", "an HTML page"),
    (b"<body", "an HTML page"),
    (b"<script", "an HTML page"),
    (b"<iframe", "an HTML page"),
    (b"<?php", "a PHP script"),
    (b"<?=", "a PHP script"),
];

/// Names a format other than the accepted three, if its signature is known.
pub(crate) fn foreign(prefix: &[u8]) -> Option<&'static str> {
    if prefix.starts_with(b"RIFF") || prefix.starts_with(b"RIFX") {
        return Some(match prefix.get(8..12) {
            Some(b"WAVE") => "a WAV file",
            Some(b"AVI ") => "an AVI film",
            _ => "a RIFF file that is not WebP",
        });
    }
    let matches = |s: &&Signature| prefix.get(s.offset..).is_some_and(|rest| rest.starts_with(s.magic));
    if let Some(signature) = SIGNATURES.iter().find(matches) {
        return Some(signature.name);
    }
    if let [b'P', b'1'..=b'7', separator, ..] = prefix
        && separator.is_ascii_whitespace()
    {
        return Some("a PNM picture");
    }
    foreign_text(prefix)
}

fn foreign_text(prefix: &[u8]) -> Option<&'static str> {
    let text = prefix.strip_prefix(b"\xef\xbb\xbf").unwrap_or(prefix).trim_ascii_start();
    for (opening, name) in TEXT_OPENINGS {
        if text.get(..opening.len()).is_some_and(|start| start.eq_ignore_ascii_case(opening)) {
            return Some(name);
        }
    }
    if text.starts_with(b"<?xml") || text.starts_with(b"<!--") {
        let is_svg = contains_ignore_case(text, b"<svg");
        let is_html = contains_ignore_case(text, b"<html");
        return Some(if is_svg {
            "an SVG picture"
        } else if is_html {
            "an HTML page"
        } else {
            "an XML document"
        });
    }
    let is_text = |byte: &u8| matches!(byte, b'\t' | b'\n' | b'\r' | 0x20..=0x7e | 0x80..);
    (!prefix.is_empty() && prefix.iter().all(is_text) && std::str::from_utf8(valid_len(prefix)).is_ok())
        .then_some("plain text")
}

/// The prefix without a character that its end may have cut.
fn valid_len(prefix: &[u8]) -> &[u8] {
    match std::str::from_utf8(prefix) {
        Err(e) if e.error_len().is_none() => prefix.get(..e.valid_up_to()).unwrap_or_default(),
        _ => prefix,
    }
}

/// Whether `haystack` contains the lower-case `needle`, in any case.
pub(crate) fn contains_ignore_case(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window.eq_ignore_ascii_case(needle))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepted_formats_are_known_by_their_signature() {
        for (bytes, format) in [
            (&b"\xff\xd8\xff\xe0"[..], ImageFormat::Jpeg),
            (b"\x89PNG\r\n\x1a\n", ImageFormat::Png),
            (b"RIFF\x10\0\0\0WEBPVP8 ", ImageFormat::Webp),
        ] {
            assert_eq!(sniff(bytes, false), Sniffed::Image(format));
            let short = &bytes[..bytes.len().min(format_signature_len(format)) - 1];
            assert_eq!(sniff(short, false), Sniffed::Undecided);
            assert!(matches!(sniff(short, true), Sniffed::Other(_)));
        }
    }

    fn format_signature_len(format: ImageFormat) -> usize {
        match format {
            ImageFormat::Jpeg => 2,
            ImageFormat::Png => 8,
            ImageFormat::Webp => 12,
        }
    }

    #[test]
    fn foreign_formats_are_named() {
        for (bytes, name) in [
            (&b"GIF89a"[..], "a GIF picture"),
            (b"BM6\0", "a BMP picture"),
            (b"\0\0\0\x18ftypheic\0\0\0\0", "a HEIC picture"),
            (b"\0\0\0\x18ftypavif\0\0\0\0", "an AVIF picture"),
            (b"\0\0\0\x18ftypisom\0\0\0\0", "an MP4 film"),
            (b"%PDF-1.7", "a PDF document"),
            (b"PK\x03\x04", "a ZIP archive"),
            (b"#!/bin/sh\n", "a script"),
            (b"  \n<SVG xmlns='x'>", "an SVG picture"),
            (b"<?xml version='1.0'?>\n<!-- a -->\n<svg>", "an SVG picture"),
            (b"\xef\xbb\xbf<!DOCTYPE html>", "an HTML page"),
            (b"<?php echo 1;", "a PHP script"),
            (b"P6\n10 10\n255\n", "a PNM picture"),
            (b"RIFF\0\0\0\0WAVEfmt ", "a WAV file"),
            (b"hello, world\n", "plain text"),
            (b"", "empty"),
            (b"\x01\x02\x03", "of an unknown type"),
        ] {
            assert_eq!(sniff(bytes, true), Sniffed::Other(name), "{bytes:?}");
        }
    }

    #[test]
    fn a_foreign_format_is_named_from_its_whole_prefix() {
        let mut svg = b"<?xml version='1.0'?>".to_vec();
        svg.resize(400, b' ');
        assert_eq!(sniff(&svg, false), Sniffed::Undecided);
        svg.extend_from_slice(b"<svg>");
        svg.resize(512, b' ');
        assert_eq!(sniff(&svg, false), Sniffed::Other("an SVG picture"));
    }
}
