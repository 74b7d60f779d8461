//! Message headers (NATS ADR-4): a version line with an optional status, then `Name: value` lines.

use super::ProtocolError;

/// The version line's prefix.
const VERSION: &str = "NATS/1.0";

/// A status that the server puts into the version line of the replies it makes up itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Three digits, as in HTTP.
    pub code: u16,
    /// For logs; may be empty.
    pub description: String,
}

/// The headers of one message, in the order of the wire.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers {
    status: Option<Status>,
    fields: Vec<(String, String)>,
}

impl Headers {
    /// No headers.
    pub const fn new() -> Self {
        Self { status: None, fields: Vec::new() }
    }

    /// Adds a field. Whether name and value can be written is checked when they are encoded.
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.fields.push((name.to_owned(), value.into()));
        self
    }

    /// Whether there is nothing to write.
    pub const fn is_empty(&self) -> bool {
        self.fields.is_empty() && self.status.is_none()
    }

    /// The first field of that name; case does not matter.
    pub fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.fields.iter().find(|(known, _)| known.eq_ignore_ascii_case(name))?;
        Some(value)
    }

    /// The status, if the server made this message up.
    pub const fn status(&self) -> Option<&Status> {
        self.status.as_ref()
    }

    /// Reads a header block. Lines that are not `Name: value` are skipped: other publishers' mistakes must
    /// not break a connection.
    pub(super) fn decode(block: &[u8]) -> Result<Self, ProtocolError> {
        let text = String::from_utf8_lossy(block);
        let mut lines = text.split("\r\n");
        let inline = lines
            .next()
            .and_then(|line| line.strip_prefix(VERSION))
            .ok_or(ProtocolError::new("header block without version line"))?;
        let status = match inline.trim() {
            "" => None,
            inline => {
                let (code, description) = inline.split_once(' ').unwrap_or((inline, ""));
                let code = code.parse().map_err(|_| ProtocolError::new("header status is not a number"))?;
                Some(Status { code, description: description.trim().to_owned() })
            }
        };
        let fields = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
            .collect();
        Ok(Self { status, fields })
    }

    /// Writes the header block.
    pub(super) fn encode(&self, out: &mut Vec<u8>) -> Result<(), ProtocolError> {
        out.extend_from_slice(VERSION.as_bytes());
        out.extend_from_slice(b"\r\n");
        for (name, value) in &self.fields {
            let is_name = |c: u8| c.is_ascii_graphic() && c != b':';
            if name.is_empty()
                || !name.bytes().all(is_name)
                || value.bytes().any(|c| matches!(c, b'\r' | b'\n'))
            {
                return Err(ProtocolError::new("header field cannot be written"));
            }
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b": ");
            out.extend_from_slice(value.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"\r\n");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_back_as_they_were_written() {
        let headers = Headers::new().with("Nats-Msg-Id", "a b").with("empty", "");
        let mut block = Vec::new();
        headers.encode(&mut block).unwrap();
        let read = Headers::decode(&block).unwrap();
        assert_eq!(read.get("nats-msg-id"), Some("a b"));
        assert_eq!(read, headers);
    }

    #[test]
    fn a_status_line_is_read_with_and_without_description() {
        let status = |block: &[u8]| Headers::decode(block).unwrap().status().cloned();
        let expected = Status { code: 404, description: "Message Not Found".to_owned() };
        assert_eq!(status(b"NATS/1.0 404 Message Not Found\r\n\r\n"), Some(expected));
        assert_eq!(status(b"NATS/1.0 503\r\n\r\n").unwrap().code, 503);
        assert_eq!(status(b"NATS/1.0\r\nA: b\r\n\r\n"), None);
        assert!(Headers::decode(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
        assert!(Headers::decode(b"NATS/1.0 many\r\n\r\n").is_err());
    }

    #[test]
    fn a_field_cannot_smuggle_a_line() {
        for (name, value) in [("A", "b\r\nC: d"), ("A\r\nB", "c"), ("A:B", "c"), ("", "c"), ("A", "b\nc")] {
            assert!(Headers::new().with(name, value).encode(&mut Vec::new()).is_err(), "{name:?} {value:?}");
        }
    }
}
