//! JPEG: segments that a decoder reads stay, application segments and comments are blanked.
//!
//! | segment | what stays of its body |
//! |---|---|
//! | frame and scan headers, tables, DRI, DNL | all |
//! | APP0 `JFIF` | version and density; not the thumbnail behind them |
//! | APP1 `Exif` | the orientation, in a block of its own |
//! | APP2 `ICC_PROFILE` | all: colours are pixels |
//! | APP14 `Adobe` | the colour transform |
//! | every other APPn, COM, what T.81 reserves | nothing |
//!
//! What follows the end of the image goes as well: of all tails, padding is what every decoder passes over.

use memchr::memchr;

use super::Output;
use super::pass::{Fate, Format};
use crate::exif::{EXIF_IDENTIFIER, only_orientation};
use crate::jpeg::marker::{APP0, APP1, APP2, APP14, DNL, DQT, DRI, EOI, SOI, SOS, TEM};

/// Where in a JPEG file the next head is.
#[derive(Debug, Default)]
pub(super) enum Jpeg {
    #[default]
    Start,
    /// At a marker.
    Marker,
    /// Within entropy-coded data, which is read as heads: only a search finds its end.
    Scan,
}

/// A marker with its segment's length.
const HEADER_BYTES: usize = 4;

const ALL: usize = usize::MAX;

/// Application segments of which something stays: the marker, the identifier at the start of the body, and how many
/// bytes of the body stay with it.
const KEPT_APPLICATION: &[(u8, &[u8], usize)] = &[
    // Version, units and densities (JFIF 1.02); the size of the thumbnail that follows becomes 0 by 0.
    (APP0, b"JFIF\0", 12),
    (APP2, b"ICC_PROFILE\0", ALL),
    // Version, flags, transform (T.872, 6.5.3).
    (APP14, b"Adobe", 12),
];

impl Format for Jpeg {
    fn head(&mut self, rest: &[u8], out: &mut Output<'_>) -> Option<(usize, Fate)> {
        match self {
            Self::Start => {
                let marker = rest.first_chunk::<2>()?;
                *self = Self::Marker;
                Some((out.keep(marker), Fate::HEAD))
            }
            Self::Marker => self.segment(rest, out),
            Self::Scan => {
                let (data, ends) = entropy_coded(rest);
                if ends {
                    *self = Self::Marker;
                } else if data.is_empty() {
                    return None;
                }
                Some((out.keep(data), Fate::HEAD))
            }
        }
    }
}

impl Jpeg {
    /// Reads one marker with what has to be known of its segment.
    fn segment(&mut self, rest: &[u8], out: &mut Output<'_>) -> Option<(usize, Fate)> {
        let &[first, code, ..] = rest else { return None };
        if first != 0xff || matches!(code, 0 | SOI) {
            return Some((0, Fate::Lost));
        }
        match code {
            // A fill byte.
            0xff => return Some((out.keep(&[first]), Fate::HEAD)),
            EOI => return Some((out.keep(&[first, code]), Fate::Tail)),
            TEM | 0xd0..=0xd7 => return Some((out.keep(&[first, code]), Fate::HEAD)),
            _ => {}
        }
        let header = rest.first_chunk::<HEADER_BYTES>()?;
        let &[_, _, high, low] = header;
        let Some(body_bytes) = usize::from(u16::from_be_bytes([high, low])).checked_sub(2) else {
            return Some((0, Fate::Lost));
        };
        let body = rest.get(HEADER_BYTES..).unwrap_or_default();
        let body = body.get(..body_bytes).unwrap_or(body);
        let kept = match code {
            0xc0..=0xcf | DQT | DNL | DRI => ALL,
            SOS => {
                *self = Self::Scan;
                ALL
            }
            APP1 if begins_with(body, body_bytes, EXIF_IDENTIFIER)? => {
                let block = (body.len() == body_bytes).then_some(body)?;
                if let Some(only) = only_orientation(block) {
                    return Some((out.keep(header) + out.replace(block, &only), Fate::HEAD));
                }
                0
            }
            _ => match KEPT_APPLICATION.iter().find(|(marker, ..)| *marker == code) {
                Some((_, identifier, kept)) if begins_with(body, body_bytes, identifier)? => *kept,
                _ => 0,
            },
        };
        let kept = kept.min(body_bytes);
        let body = Fate::Body { kept: kept as u64, blanked: (body_bytes - kept) as u64 };
        Some((out.keep(header), body))
    }
}

/// Whether a body of `body_bytes`, of which `body` has come, begins with `identifier`; `None` if that cannot be told
/// yet.
fn begins_with(body: &[u8], body_bytes: usize, identifier: &[u8]) -> Option<bool> {
    let known = body.len().min(identifier.len());
    if body.get(..known) != identifier.get(..known) || body_bytes < identifier.len() {
        return Some(false);
    }
    (known == identifier.len()).then_some(true)
}

/// The part of `data` that is entropy-coded for sure, and whether a marker that ends the scan follows. Restart markers
/// and stuffed zeros belong to the data.
fn entropy_coded(data: &[u8]) -> (&[u8], bool) {
    let mut at = 0;
    while let Some(found) = memchr(0xff, data.get(at..).unwrap_or_default()) {
        let marker = at + found;
        let before = data.get(..marker).unwrap_or_default();
        at = match data.get(marker + 1) {
            None => return (before, false),
            Some(0 | 0xd0..=0xd7) => marker + 2,
            // A fill byte.
            Some(0xff) => marker + 1,
            Some(_) => return (before, true),
        };
    }
    (data, false)
}

#[cfg(test)]
mod tests {
    use super::super::redact;

    fn segment(code: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(body.len() + 2).unwrap().to_be_bytes();
        [[0xff, code].as_slice(), &length, body].concat()
    }

    /// What becomes of a segment's body.
    fn body_after(code: u8, body: &[u8]) -> Vec<u8> {
        let file = [b"\xff\xd8".as_slice(), &segment(code, body), b"\xff\xd9"].concat();
        let redacted = redact(&file).into_owned();
        assert_eq!((redacted.len(), &redacted[..6]), (file.len(), &file[..6]));
        assert_eq!(redacted[6 + body.len()..], *b"\xff\xd9");
        redacted[6..6 + body.len()].to_vec()
    }

    #[test]
    fn application_segments_and_comments_go_unless_a_decoder_needs_them() {
        for code in [0xe0, 0xe1, 0xe2, 0xe3, 0xeb, 0xed, 0xee, 0xef, 0xfe, 0xf0, 0xfd, 0x02, 0xde] {
            for body in [&b""[..], b"J", b"JFXX\0\x10thumb", b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta/>"] {
                assert_eq!(body_after(code, body), vec![0; body.len()], "marker {code:x}");
            }
        }
        let profile = b"ICC_PROFILE\0\x01\x01acsp and so on";
        assert_eq!(body_after(0xe2, profile), profile);
        for code in [0xc0, 0xc4, 0xcc, 0xdb, 0xdc, 0xdd] {
            assert_eq!(body_after(code, b"any"), b"any", "marker {code:x}");
        }
    }

    #[test]
    fn a_jfif_header_loses_its_thumbnail_and_an_adobe_marker_what_follows_its_transform() {
        let jfif = b"JFIF\0\x01\x02\x01\0\x48\0\x48\x02\x01RGBRGB";
        assert_eq!(body_after(0xe0, jfif), b"JFIF\0\x01\x02\x01\0\x48\0\x48\0\0\0\0\0\0\0\0");
        assert_eq!(body_after(0xe0, &jfif[..9]), jfif[..9]);
        assert_eq!(
            body_after(0xee, b"Adobe\0\x64\0\0\0\0\x01serial"),
            b"Adobe\0\x64\0\0\0\0\x01\0\0\0\0\0\0"
        );
    }

    #[test]
    fn an_exif_block_keeps_its_orientation_and_one_without_it_goes() {
        let exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0serial 4711";
        let redacted = body_after(0xe1, exif);
        assert_eq!(crate::exif::orientation(&redacted), crate::Orientation::from_exif(6));
        assert!(redacted.ends_with(&[0; 15]), "{redacted:?}");
        let broken = &exif[..20];
        assert_eq!(body_after(0xe1, broken), vec![0; broken.len()]);
    }

    #[test]
    fn entropy_coded_data_stays_and_what_follows_the_image_goes() {
        let scan = b"\xff\xda\0\x02 data \xff\0 more \xff\xd0 restarted \xff\xff\xd9";
        let file = [b"\xff\xd8\xff".as_slice(), &segment(0xfe, b"me"), scan, b"SEFH note"].concat();
        let redacted = redact(&file).into_owned();
        assert_eq!(redacted, [b"\xff\xd8\xff\xff\xfe\0\x04\0\0".as_slice(), scan, &[0; 9]].concat());
    }

    #[test]
    fn what_is_no_jpeg_after_all_goes_through() {
        for file in [b"\xff\xd8 not a marker".as_slice(), b"\xff\xd8\xff\0ab", b"\xff\xd8\xff\xe1\0\x01ab"] {
            assert_eq!(redact(file), file);
        }
    }
}
