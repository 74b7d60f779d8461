//! `multipart/form-data` (RFC 7578) while it arrives: bytes in, parts and their data out, whatever the cuts.
//! Memory is bounded by one header block plus what was pushed last.
//!
//! ```text
//!  Preamble ─delimiter─▶ Delimited ─CRLF─▶ Headers ─▶ Opening ─▶ Data ─delimiter─▶ Delimited ─"--"─▶ Epilogue
//! ```

use bytes::{Buf, Bytes, BytesMut};
use memchr::memmem::Finder;
use thiserror::Error;

/// RFC 2046: at most 70 characters.
const BOUNDARY_BYTES_MAX: usize = 70;

/// A part has a name, a file name and a type; browsers need a few hundred bytes.
const HEADER_BYTES_MAX: usize = 8 * 1024;

/// What may stand before the first part; form clients send nothing.
const PREAMBLE_BYTES_MAX: usize = 8 * 1024;

/// One image and every option, and some to spare.
const PARTS_MAX: usize = 32;

/// A body that is not the form it says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the form data is malformed: {0}")]
pub(super) struct MultipartError(&'static str);

/// What a part says about itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct PartHead {
    /// The field's name.
    pub(super) name: String,
    /// The file's name, if it is a file. It is never used as a path.
    pub(super) file_name: Option<String>,
    /// The declared media type.
    pub(super) content_type: Option<String>,
}

/// A step of the parse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    /// A part begins.
    Part(PartHead),
    /// Some of its data.
    Data(Bytes),
    /// The part is complete.
    PartEnd,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Preamble,
    Delimited,
    Headers,
    /// The buffer begins with the line end of the headers' blank line, which may belong to a delimiter.
    Opening,
    Data,
    Epilogue,
}

/// An incremental parser: [`push`](Self::push) bytes, then take events with
/// [`next_event`](Self::next_event) until there is none.
#[derive(Debug)]
pub(super) struct Multipart {
    buffer: BytesMut,
    state: State,
    /// `\r\n--boundary`
    delimiter: Finder<'static>,
    parts: usize,
}

impl Multipart {
    /// A parser for a body of this content type.
    ///
    /// # Errors
    /// The content type has no valid boundary.
    pub(super) fn new(content_type: &str) -> Result<Self, MultipartError> {
        let boundary = parameter(content_type, "boundary").ok_or(MultipartError("no boundary"))?;
        if boundary.is_empty() || boundary.len() > BOUNDARY_BYTES_MAX {
            return Err(MultipartError("a boundary has 1 to 70 characters"));
        }
        let delimiter = Finder::new(format!("\r\n--{boundary}").as_bytes()).into_owned();
        // The first delimiter may stand at the very start, without the line end before it.
        Ok(Self { buffer: BytesMut::from(&b"\r\n"[..]), state: State::Preamble, delimiter, parts: 0 })
    }

    /// Adds bytes of the body.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        // What follows the last delimiter is not looked at.
        if self.state != State::Epilogue {
            self.buffer.extend_from_slice(bytes);
        }
    }

    /// The next event, or `None` if more bytes are needed or the form is complete.
    ///
    /// # Errors
    /// The body is not a form, or over a bound.
    pub(super) fn next_event(&mut self) -> Result<Option<Event>, MultipartError> {
        loop {
            match self.state {
                State::Preamble => match self.delimiter.find(&self.buffer) {
                    Some(at) => {
                        self.buffer.advance(at + self.delimiter.needle().len());
                        self.state = State::Delimited;
                    }
                    None if self.buffer.len() > PREAMBLE_BYTES_MAX => {
                        return Err(MultipartError("no first boundary"));
                    }
                    None => return Ok(None),
                },
                State::Delimited => {
                    if !self.after_delimiter()? {
                        return Ok(None);
                    }
                }
                State::Headers => return self.headers(),
                State::Opening => {
                    if !self.opening() {
                        return Ok(None);
                    }
                }
                State::Data => return Ok(self.data()),
                State::Epilogue => return Ok(None),
            }
        }
    }

    /// Whether the closing delimiter was read.
    pub(super) fn is_complete(&self) -> bool {
        self.state == State::Epilogue
    }

    /// Reads what follows a delimiter: `--` closes the form, else a line end opens a part.
    fn after_delimiter(&mut self) -> Result<bool, MultipartError> {
        if self.buffer.starts_with(b"--") {
            self.buffer.clear();
            self.state = State::Epilogue;
            return Ok(true);
        }
        // RFC 2046 lets gateways pad the line.
        let padding = self.buffer.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        let rest = self.buffer.get(padding..).unwrap_or_default();
        if rest.starts_with(b"\r\n") {
            self.buffer.advance(padding + 2);
            self.state = State::Headers;
            return Ok(true);
        }
        let may_continue = rest.is_empty() || rest == b"\r" || (padding == 0 && rest == b"-");
        if may_continue && padding <= BOUNDARY_BYTES_MAX {
            return Ok(false);
        }
        Err(MultipartError("a boundary is not followed by a line end"))
    }

    fn headers(&mut self) -> Result<Option<Event>, MultipartError> {
        let Some(end) = memchr::memmem::find(&self.buffer, b"\r\n\r\n") else {
            let fits = self.buffer.len() <= HEADER_BYTES_MAX;
            return if fits { Ok(None) } else { Err(MultipartError("the headers of a part are too long")) };
        };
        if end > HEADER_BYTES_MAX {
            return Err(MultipartError("the headers of a part are too long"));
        }
        self.parts += 1;
        if self.parts > PARTS_MAX {
            return Err(MultipartError("too many parts"));
        }
        let block = self.buffer.split_to(end);
        self.buffer.advance(2);
        self.state = State::Opening;
        Ok(Some(Event::Part(part_head(&String::from_utf8_lossy(&block))?)))
    }

    /// A part without a body has a delimiter in place of its blank line (RFC 2046, 5.1.1).
    fn opening(&mut self) -> bool {
        let delimiter = self.delimiter.needle();
        let seen = self.buffer.len().min(delimiter.len());
        if self.buffer.get(..seen) != delimiter.get(..seen) {
            self.buffer.advance(2);
        } else if seen < delimiter.len() {
            return false;
        }
        self.state = State::Data;
        true
    }

    fn data(&mut self) -> Option<Event> {
        let found = self.delimiter.find(&self.buffer);
        if found == Some(0) {
            self.buffer.advance(self.delimiter.needle().len());
            self.state = State::Delimited;
            return Some(Event::PartEnd);
        }
        // What may be the beginning of a delimiter waits for the rest of it.
        let held = self.delimiter.needle().len() - 1;
        let ready = found.unwrap_or_else(|| self.buffer.len().saturating_sub(held));
        (ready > 0).then(|| Event::Data(self.buffer.split_to(ready).freeze()))
    }
}

fn part_head(block: &str) -> Result<PartHead, MultipartError> {
    let mut head = PartHead::default();
    let mut is_named = false;
    for line in block.split("\r\n") {
        let (name, value) = line.split_once(':').ok_or(MultipartError("a header line has no colon"))?;
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-disposition") {
            let kind = value.split(';').next().unwrap_or_default().trim();
            if !kind.eq_ignore_ascii_case("form-data") {
                return Err(MultipartError("a part is not form-data"));
            }
            head.name = parameter(value, "name").ok_or(MultipartError("a part has no name"))?;
            head.file_name = parameter(value, "filename");
            is_named = true;
        } else if name.eq_ignore_ascii_case("content-type") {
            head.content_type = Some(value.to_owned());
        }
    }
    if is_named { Ok(head) } else { Err(MultipartError("a part has no content-disposition")) }
}

/// A parameter of a header value, quoted or not. In a quoted one only `\"` is an escape: some clients send
/// Windows paths with single backslashes.
fn parameter(header: &str, wanted: &str) -> Option<String> {
    let mut rest = header.split_once(';')?.1;
    loop {
        let (name, after) = rest.split_once('=')?;
        let name = name.trim().trim_start_matches(';').trim();
        let after = after.trim_start();
        let (value, tail) = match after.strip_prefix('"') {
            Some(quoted) => unquote(quoted)?,
            None => {
                let (token, tail) = after.split_once(';').unwrap_or((after, ""));
                (token.trim_end().to_owned(), tail)
            }
        };
        if name.eq_ignore_ascii_case(wanted) {
            return Some(value);
        }
        rest = tail;
    }
}

/// The text up to the closing quote, and what follows it.
fn unquote(quoted: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut rest = quoted;
    loop {
        let (before, after) = rest.split_once('"')?;
        match before.strip_suffix('\\') {
            Some(escaped) => {
                value.push_str(escaped);
                value.push('"');
                rest = after;
            }
            None => {
                value.push_str(before);
                return Some((value, after));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TYPE: &str = "multipart/form-data; boundary=\"xYz\"";

    const FORM: &[u8] = b"ignored\r\n--xYz\r\nContent-Disposition: form-data; name=\"quality\"\r\n\r\n7\r\n\
        --xYz  \r\ncontent-disposition: form-data; name=image; filename=\"a.png\"\r\nContent-Type: image/png\r\n\r\n\
        \x89PNG\r\n--xY\r\n--xYy\r\n\r\n\x00\r\n--xYz\r\nContent-Disposition: form-data; name=\"empty\"\r\n\r\n\r\n\
        --xYz\r\nContent-Disposition: form-data; name=\"bare\"\r\n\r\n--xYz--\r\nignored --xYz";

    #[derive(Debug, PartialEq)]
    struct Part {
        head: PartHead,
        data: Vec<u8>,
        is_ended: bool,
    }

    fn parse(content_type: &str, chunks: &[&[u8]]) -> Result<(Vec<Part>, bool), MultipartError> {
        let mut parser = Multipart::new(content_type)?;
        let mut parts: Vec<Part> = Vec::new();
        for chunk in chunks {
            parser.push(chunk);
            while let Some(event) = parser.next_event()? {
                match event {
                    Event::Part(head) => parts.push(Part { head, data: Vec::new(), is_ended: false }),
                    Event::Data(data) => parts.last_mut().unwrap().data.extend_from_slice(&data),
                    Event::PartEnd => parts.last_mut().unwrap().is_ended = true,
                }
            }
        }
        Ok((parts, parser.is_complete()))
    }

    #[test]
    fn parts_come_out_as_they_were_put_in() {
        let (parts, is_complete) = parse(TYPE, &[FORM]).unwrap();
        assert!(is_complete);
        let names: Vec<_> = parts.iter().map(|part| part.head.name.as_str()).collect();
        assert_eq!(names, ["quality", "image", "empty", "bare"]);
        assert!(parts.iter().all(|part| part.is_ended));
        assert_eq!(parts[0].data, b"7");
        assert_eq!(parts[1].data, b"\x89PNG\r\n--xY\r\n--xYy\r\n\r\n\0");
        assert_eq!(parts[1].head.file_name.as_deref(), Some("a.png"));
        assert_eq!(parts[1].head.content_type.as_deref(), Some("image/png"));
        assert!(parts[2].data.is_empty() && parts[3].data.is_empty());
    }

    #[test]
    fn malformed_forms_are_refused() {
        let part = |header: &str| format!("--xYz\r\n{header}\r\n\r\nx\r\n--xYz--").into_bytes();
        let mut cases = vec![
            b"x".repeat(PREAMBLE_BYTES_MAX + 1),
            b"--xYzz\r\n".to_vec(),
            b"--xYz\nContent-Disposition: form-data; name=a\n\nx".to_vec(),
            part("Content-Type: text/plain"),
            part("Content-Disposition: attachment; name=a"),
            part("Content-Disposition: form-data"),
            part("Content-Disposition: form-data; name=\"open"),
            part("no colon"),
            part(&format!("Content-Disposition: form-data; name={}", "x".repeat(HEADER_BYTES_MAX))),
        ];
        let many = b"--xYz\r\nContent-Disposition: form-data; name=a\r\n\r\nx\r\n".repeat(PARTS_MAX + 1);
        cases.push(many);
        for case in &cases {
            assert!(
                parse(TYPE, &[case]).is_err(),
                "{:?}",
                String::from_utf8_lossy(&case[..case.len().min(80)])
            );
        }
        for content_type in [
            "multipart/form-data",
            "multipart/form-data; boundary=",
            &format!("m/f; boundary={}", "x".repeat(71)),
        ] {
            assert!(Multipart::new(content_type).is_err(), "{content_type}");
        }
    }

    #[test]
    fn a_form_that_breaks_off_is_not_complete() {
        for end in [0, 5, 20, 90, FORM.len() - 20] {
            assert!(!parse(TYPE, &[&FORM[..end]]).unwrap().1, "{end}");
        }
    }

    #[test]
    fn parameters_are_read_quoted_and_plain() {
        let cases = [
            ("form-data; name=a", Some("a")),
            ("form-data; name=\"a b;c\"; x=y", Some("a b;c")),
            ("form-data; filename=\"x; name=evil\"; name=\"good\"", Some("good")),
            ("form-data; NAME = \"q\\\"uote\"", Some("q\"uote")),
            ("form-data; name=\"C:\\dir\\x\"", Some("C:\\dir\\x")),
            ("form-data; name*=utf-8''x", None),
            ("form-data", None),
        ];
        for (header, expected) in cases {
            assert_eq!(parameter(header, "name").as_deref(), expected, "{header}");
        }
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_parts(cuts in prop::collection::vec(0..FORM.len(), 0..60)) {
            let mut cuts = cuts;
            cuts.sort_unstable();
            cuts.push(FORM.len());
            let mut chunks = Vec::new();
            let mut start = 0;
            for cut in cuts {
                chunks.push(&FORM[start..cut]);
                start = cut;
            }
            prop_assert_eq!(parse(TYPE, &chunks), parse(TYPE, &[FORM]));
        }

        #[test]
        fn any_content_survives(content in prop::collection::vec(prop::sample::select(&b"\r\n-xYz\0"[..]), 0..200)) {
            prop_assume!(memchr::memmem::find(&content, b"--xYz").is_none());
            let mut form = b"--xYz\r\nContent-Disposition: form-data; name=a\r\n\r\n".to_vec();
            form.extend_from_slice(&content);
            form.extend_from_slice(b"\r\n--xYz--\r\n");
            let (parts, is_complete) = parse(TYPE, &[&form]).unwrap();
            prop_assert!(is_complete);
            prop_assert_eq!(&parts[0].data, &content);
        }

        #[test]
        fn any_bytes_are_read_or_refused_without_panic(at in 0..FORM.len(), noise in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(TYPE, &[&FORM[..at], &noise]);
        }
    }
}
