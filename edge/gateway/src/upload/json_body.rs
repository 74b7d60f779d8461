//! A JSON body while it arrives. A picture in it is one huge base64 string: that string is decoded as it
//! streams past, and everything else, which is small, is kept and parsed at the end.
//!
//! Only the tokens matter here: strings, and which of them is followed by a colon. Whether the rest is
//! well-formed is the JSON parser's business, which sees the body with an empty string in the picture's place.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use thiserror::Error;

/// The member that holds the picture.
const IMAGE_MEMBER: &[u8] = b"image_base64";

/// Everything but the picture: fourteen options and their names fit many times.
const REST_BYTES_MAX: usize = 64 * 1024;

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A body that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(super) enum JsonBodyError {
    /// More than options and a picture.
    #[error("the JSON body is too large beside the picture")]
    TooLarge,
    /// Two pictures.
    #[error("`image_base64` stands twice in the JSON body")]
    SecondImage,
    /// The picture is not base64.
    #[error("`image_base64` is not base64")]
    NotBase64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Outside,
    /// In a string other than the picture.
    Text {
        is_escaped: bool,
    },
    /// A string has ended; a colon would make it a member's name.
    AfterText,
    /// The name was the picture's.
    BeforeImage,
    Image {
        is_escaped: bool,
    },
}

/// An incremental reader.
#[derive(Debug)]
pub(super) struct JsonBody {
    state: State,
    /// The body without the picture.
    rest: Vec<u8>,
    /// Where the current or last string begins in `rest`.
    text_start: usize,
    has_image: bool,
    /// Digits of an unfinished group of four.
    digits: Vec<u8>,
    is_padded: bool,
}

impl JsonBody {
    /// An empty reader.
    pub(super) fn new() -> Self {
        Self {
            state: State::Outside,
            rest: Vec::new(),
            text_start: 0,
            has_image: false,
            digits: Vec::new(),
            is_padded: false,
        }
    }

    /// Takes bytes of the body and gives the picture's bytes among them.
    ///
    /// # Errors
    /// The picture is not base64 or stands there twice, or the rest is too large.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<Bytes, JsonBodyError> {
        let mut left = bytes;
        while let Some((byte, tail)) = left.split_first() {
            if self.state == (State::Image { is_escaped: false }) {
                // Nearly all of a large body is this: digits up to the next quote or escape.
                let run = memchr::memchr2(b'"', b'\\', left).unwrap_or(left.len());
                let (digits, rest) = left.split_at(run);
                self.digits.extend_from_slice(digits);
                left = rest;
                if run > 0 {
                    continue;
                }
            }
            left = tail;
            self.step(*byte)?;
        }
        self.decode(false)
    }

    fn step(&mut self, byte: u8) -> Result<(), JsonBodyError> {
        if let State::Image { is_escaped } = self.state {
            return self.image_byte(byte, is_escaped);
        }
        if self.rest.len() == REST_BYTES_MAX {
            return Err(JsonBodyError::TooLarge);
        }
        self.rest.push(byte);
        let is_space = matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
        self.state = match (self.state, byte) {
            (State::Text { is_escaped: true }, _) => State::Text { is_escaped: false },
            (State::Text { .. }, b'\\') => State::Text { is_escaped: true },
            (State::Text { .. }, b'"') => State::AfterText,
            (State::Text { .. }, _) => self.state,
            (State::AfterText | State::BeforeImage, _) if is_space => self.state,
            (State::AfterText, b':') if self.last_text() == IMAGE_MEMBER => State::BeforeImage,
            (State::BeforeImage, b'"') if self.has_image => return Err(JsonBodyError::SecondImage),
            (State::BeforeImage, b'"') => {
                self.has_image = true;
                State::Image { is_escaped: false }
            }
            (_, b'"') => {
                self.text_start = self.rest.len();
                State::Text { is_escaped: false }
            }
            _ => State::Outside,
        };
        Ok(())
    }

    /// The last string, without its quotes: it ends before the first quote after its start.
    fn last_text(&self) -> &[u8] {
        let text = self.rest.get(self.text_start..).unwrap_or_default();
        text.split(|byte| *byte == b'"').next().unwrap_or_default()
    }

    fn image_byte(&mut self, byte: u8, is_escaped: bool) -> Result<(), JsonBodyError> {
        self.state = match (is_escaped, byte) {
            (false, b'\\') => State::Image { is_escaped: true },
            (false, b'"') => {
                self.rest.push(byte);
                State::Outside
            }
            // Some encoders write "/" as "\/"; no other escape stands for a base64 digit they would send.
            (true, escaped) if escaped != b'/' => return Err(JsonBodyError::NotBase64),
            _ => {
                self.digits.push(byte);
                State::Image { is_escaped: false }
            }
        };
        Ok(())
    }

    /// Decodes whole groups of digits; at the picture's end also a last group without its padding.
    fn decode(&mut self, is_end: bool) -> Result<Bytes, JsonBodyError> {
        let whole = if is_end { self.digits.len() } else { self.digits.len() / 4 * 4 };
        let group: Vec<u8> = self.digits.drain(..whole).collect();
        if group.is_empty() {
            return Ok(Bytes::new());
        }
        if self.is_padded {
            return Err(JsonBodyError::NotBase64);
        }
        self.is_padded = group.last() == Some(&b'=');
        BASE64.decode(&group).map(Bytes::from).map_err(|_| JsonBodyError::NotBase64)
    }

    /// Whether a picture began.
    pub(super) fn has_image(&self) -> bool {
        self.has_image
    }

    /// Ends the body: the picture's last bytes, and the JSON without the picture.
    ///
    /// # Errors
    /// The picture is not base64.
    pub(super) fn finish(mut self) -> Result<(Bytes, Vec<u8>), JsonBodyError> {
        let last = self.decode(true)?;
        Ok((last, self.rest))
    }
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
    use proptest::prelude::*;

    use super::*;

    fn read(chunks: &[&[u8]]) -> Result<(Vec<u8>, String), JsonBodyError> {
        let mut body = JsonBody::new();
        let mut image = Vec::new();
        for chunk in chunks {
            image.extend_from_slice(&body.push(chunk)?);
        }
        let (last, rest) = body.finish()?;
        image.extend_from_slice(&last);
        Ok((image, String::from_utf8(rest).unwrap()))
    }

    #[test]
    fn the_picture_is_taken_out_of_the_body() {
        let body = br#"{"a\"image_base64": 1, "v": "image_base64", "params" : {"image_base64" : "AQID\/w==", "q": 7}}"#;
        let (image, rest) = read(&[body]).unwrap();
        assert_eq!(image, [1, 2, 3, 0xff]);
        let json: serde_json::Value = serde_json::from_str(&rest).unwrap();
        assert_eq!((&json["params"]["image_base64"], &json["params"]["q"]), (&"".into(), &7.into()));
    }

    #[test]
    fn what_is_no_picture_is_refused() {
        let cases = [
            (r#"{"image_base64": "A?==", "#, JsonBodyError::NotBase64),
            (r#"{"image_base64": "AA==AA=="}"#, JsonBodyError::NotBase64),
            (r#"{"image_base64": "AA\nA"}"#, JsonBodyError::NotBase64),
            (r#"{"image_base64": "A"}"#, JsonBodyError::NotBase64),
            (r#"{"image_base64": "", "image_base64": ""}"#, JsonBodyError::SecondImage),
        ];
        for (body, error) in cases {
            assert_eq!(read(&[body.as_bytes()]), Err(error), "{body}");
        }
        let long = format!(r#"{{"x": "{}"}}"#, "y".repeat(REST_BYTES_MAX));
        assert_eq!(read(&[long.as_bytes()]), Err(JsonBodyError::TooLarge));
    }

    #[test]
    fn a_picture_that_is_no_string_is_left_to_the_parser() {
        let (image, rest) = read(&[br#"{"image_base64": null, "a": "b"}"#]).unwrap();
        assert!(image.is_empty());
        assert!(rest.contains("null"));
    }

    proptest! {
        #[test]
        fn any_picture_survives_any_split(
            content in prop::collection::vec(any::<u8>(), 0..300),
            is_padded in any::<bool>(),
            cut in 0..400usize,
        ) {
            let text = if is_padded { STANDARD.encode(&content) } else { STANDARD_NO_PAD.encode(&content) };
            let body = format!(r#"{{"type":"3d_generation","params":{{"image_base64":"{text}"}},"priority":3}}"#);
            let (head, tail) = body.as_bytes().split_at(cut.min(body.len()));
            let (image, rest) = read(&[head, tail]).unwrap();
            prop_assert_eq!(image, content);
            prop_assert_eq!(rest, r#"{"type":"3d_generation","params":{"image_base64":""},"priority":3}"#);
        }

        #[test]
        fn any_bytes_are_read_or_refused_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut body = JsonBody::new();
            let _ = body.push(br#"{"image_base64":"#).and_then(|_| body.push(&bytes));
        }
    }
}
