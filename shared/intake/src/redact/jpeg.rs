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

use super::{Output, take};
use crate::exif::{EXIF_IDENTIFIER, only_orientation};

/// Redacts one JPEG file from SOI to the end of the upload.
#[derive(Debug, Default)]
pub(super) struct JpegRedactor {
    state: State,
}

#[derive(Debug, Default, Clone, Copy)]
enum State {
    #[default]
    Start,
    /// At a marker.
    Marker,
    /// Within a segment's body: `kept` bytes stay, `blanked` behind them go.
    Body { kept: u64, blanked: u64, then: Then },
    /// Within entropy-coded data.
    Scan,
    /// Behind the end of the image.
    Tail,
    /// No segment where one has to be: not a valid file.
    Lost,
}

/// What follows a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    Marker,
    Scan,
}

const SOI: u8 = 0xd8;
const EOI: u8 = 0xd9;
const SOS: u8 = 0xda;
const DQT: u8 = 0xdb;
const DNL: u8 = 0xdc;
const DRI: u8 = 0xdd;
const APP0: u8 = 0xe0;
const APP1: u8 = 0xe1;
const APP2: u8 = 0xe2;
const APP14: u8 = 0xee;
const TEM: u8 = 0x01;

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

impl JpegRedactor {
    pub(super) fn read(&mut self, window: &[u8], out: &mut Output<'_>) -> usize {
        let mut at = 0;
        loop {
            let rest = window.get(at..).unwrap_or_default();
            if rest.is_empty() {
                return at;
            }
            at += match &mut self.state {
                State::Start => {
                    let Some(marker) = rest.first_chunk::<2>() else { return at };
                    out.keep(marker);
                    self.state = State::Marker;
                    marker.len()
                }
                State::Marker => match self.read_segment(rest, out) {
                    Some(read) => read,
                    None => return at,
                },
                State::Body { kept: 0, blanked: 0, then } => {
                    self.state = match then {
                        Then::Marker => State::Marker,
                        Then::Scan => State::Scan,
                    };
                    0
                }
                State::Body { kept: 0, blanked, .. } => out.blank(take(rest, blanked)).len(),
                State::Body { kept, .. } => {
                    let data = take(rest, kept);
                    out.keep(data);
                    data.len()
                }
                State::Scan => {
                    let (data, ends) = entropy_coded(rest);
                    out.keep(data);
                    if ends {
                        self.state = State::Marker;
                    } else if data.len() < rest.len() {
                        return at + data.len();
                    }
                    data.len()
                }
                State::Tail => out.blank(rest).len(),
                State::Lost => {
                    out.keep(rest);
                    rest.len()
                }
            };
        }
    }

    /// Reads one marker with what has to be known of its segment; `None` if more bytes are needed.
    fn read_segment(&mut self, rest: &[u8], out: &mut Output<'_>) -> Option<usize> {
        let &[first, code, ..] = rest else { return None };
        if first != 0xff || matches!(code, 0 | SOI) {
            self.state = State::Lost;
            return Some(0);
        }
        match code {
            // A fill byte.
            0xff => {
                out.keep(&[first]);
                return Some(1);
            }
            TEM | 0xd0..=0xd7 | EOI => {
                out.keep(&[first, code]);
                if code == EOI {
                    self.state = State::Tail;
                }
                return Some(2);
            }
            _ => {}
        }
        let header = rest.first_chunk::<HEADER_BYTES>()?;
        let &[_, _, high, low] = header;
        let Some(body_bytes) = usize::from(u16::from_be_bytes([high, low])).checked_sub(2) else {
            self.state = State::Lost;
            return Some(0);
        };
        let body = rest.get(HEADER_BYTES..).unwrap_or_default();
        let body = body.get(..body_bytes).unwrap_or(body);
        let mut then = Then::Marker;
        let kept = match code {
            0xc0..=0xcf | DQT | DNL | DRI => ALL,
            SOS => {
                then = Then::Scan;
                ALL
            }
            APP1 if begins_with(body, body_bytes, EXIF_IDENTIFIER)? => {
                let block = (body.len() == body_bytes).then_some(body)?;
                if let Some(only) = only_orientation(block) {
                    out.keep(header);
                    out.replace(block, &only);
                    return Some(HEADER_BYTES + body_bytes);
                }
                0
            }
            _ => match KEPT_APPLICATION.iter().find(|(marker, ..)| *marker == code) {
                Some((_, identifier, kept)) if begins_with(body, body_bytes, identifier)? => *kept,
                _ => 0,
            },
        };
        out.keep(header);
        let kept = kept.min(body_bytes);
        self.state = State::Body { kept: kept as u64, blanked: (body_bytes - kept) as u64, then };
        Some(HEADER_BYTES)
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
