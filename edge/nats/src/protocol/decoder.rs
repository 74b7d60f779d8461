//! Server bytes → operations, however the bytes are cut. Memory is bounded by the longest line plus the
//! largest payload.

use bytes::{Buf, Bytes, BytesMut};

use super::{Headers, Message, ProtocolError, ServerInfo, ServerOp};

/// Longest control line. INFO of a large cluster lists every server; all other lines are far shorter.
pub const LINE_BYTES_MAX: usize = 64 * 1024;

/// Largest payload with its headers. Servers default to 1 MiB and advise against more than 8 MiB.
pub const PAYLOAD_BYTES_MAX: usize = 8 * 1024 * 1024;

/// An incremental parser: [`push`](Self::push) bytes, then take operations with
/// [`next_op`](Self::next_op) until there is none. After an error the stream has lost its framing: drop it.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: BytesMut,
    /// How much of the buffer is known to hold no line end, so that a slow line is not searched again.
    searched: usize,
    /// A message whose line was read and whose payload is awaited.
    awaited: Option<MessageLine>,
}

#[derive(Debug)]
struct MessageLine {
    subject: String,
    sid: u64,
    reply: Option<String>,
    header_bytes: Option<usize>,
    total_bytes: usize,
}

impl Decoder {
    /// An empty decoder.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds bytes from the server.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole operation, or `None` if more bytes are needed.
    ///
    /// # Errors
    /// The bytes are not NATS, or a line or payload is over its bound.
    pub fn next_op(&mut self) -> Result<Option<ServerOp>, ProtocolError> {
        if let Some(line) = self.awaited.take() {
            return self.message(line);
        }
        let Some(line) = self.line()? else { return Ok(None) };
        let text = std::str::from_utf8(&line).map_err(|_| ProtocolError::new("control line is not UTF-8"))?;
        let (verb, rest) = text.split_once([' ', '\t']).unwrap_or((text, ""));
        let op = match verb.to_ascii_uppercase().as_str() {
            "MSG" => return self.message(plain_message(rest)?),
            "HMSG" => return self.message(message_with_headers(rest)?),
            "PING" => ServerOp::Ping,
            "PONG" => ServerOp::Pong,
            "+OK" => ServerOp::Ok,
            "-ERR" => ServerOp::Err(rest.trim().trim_matches('\'').to_owned()),
            "INFO" => ServerOp::Info(server_info(rest)?),
            _ => return Err(ProtocolError::new("unknown operation")),
        };
        Ok(Some(op))
    }

    fn line(&mut self) -> Result<Option<Bytes>, ProtocolError> {
        let unsearched = self.buffer.get(self.searched..).unwrap_or_default();
        let Some(offset) = unsearched.iter().position(|byte| *byte == b'\n') else {
            self.searched = self.buffer.len();
            let fits = self.buffer.len() <= LINE_BYTES_MAX;
            return if fits { Ok(None) } else { Err(ProtocolError::new("control line too long")) };
        };
        let end = self.searched + offset;
        if end > LINE_BYTES_MAX {
            return Err(ProtocolError::new("control line too long"));
        }
        self.searched = 0;
        let mut line = self.buffer.split_to(end + 1).freeze();
        line.truncate(end);
        if line.last() == Some(&b'\r') {
            line.truncate(end - 1);
        }
        Ok(Some(line))
    }

    fn message(&mut self, line: MessageLine) -> Result<Option<ServerOp>, ProtocolError> {
        if self.buffer.len() < line.total_bytes + 2 {
            self.awaited = Some(line);
            return Ok(None);
        }
        let mut payload = self.buffer.split_to(line.total_bytes).freeze();
        if !self.buffer.starts_with(b"\r\n") {
            return Err(ProtocolError::new("payload without line end"));
        }
        self.buffer.advance(2);
        let headers = match line.header_bytes {
            Some(header_bytes) => Headers::decode(&payload.split_to(header_bytes))?,
            None => Headers::new(),
        };
        let MessageLine { subject, sid, reply, .. } = line;
        Ok(Some(ServerOp::Message(Message { subject, sid, reply, headers, payload })))
    }
}

/// `<subject> <sid> [reply-to] <#bytes>`
fn plain_message(arguments: &str) -> Result<MessageLine, ProtocolError> {
    let parts: Vec<&str> = arguments.split_ascii_whitespace().collect();
    match parts.as_slice() {
        [subject, sid, total] => message_line(subject, sid, None, None, total),
        [subject, sid, reply, total] => message_line(subject, sid, Some(reply), None, total),
        _ => Err(ProtocolError::new("MSG with a wrong number of arguments")),
    }
}

/// `<subject> <sid> [reply-to] <#header bytes> <#total bytes>`
fn message_with_headers(arguments: &str) -> Result<MessageLine, ProtocolError> {
    let parts: Vec<&str> = arguments.split_ascii_whitespace().collect();
    match parts.as_slice() {
        [subject, sid, headers, total] => message_line(subject, sid, None, Some(headers), total),
        [subject, sid, reply, headers, total] => {
            message_line(subject, sid, Some(reply), Some(headers), total)
        }
        _ => Err(ProtocolError::new("HMSG with a wrong number of arguments")),
    }
}

fn message_line(
    subject: &str,
    sid: &str,
    reply: Option<&str>,
    header_bytes: Option<&str>,
    total_bytes: &str,
) -> Result<MessageLine, ProtocolError> {
    let number = |text: &str| text.parse::<usize>().map_err(|_| ProtocolError::new("not a byte count"));
    let total_bytes = number(total_bytes)?;
    let header_bytes = header_bytes.map(number).transpose()?;
    if total_bytes > PAYLOAD_BYTES_MAX {
        return Err(ProtocolError::new("payload too large"));
    }
    if header_bytes.is_some_and(|bytes| bytes > total_bytes) {
        return Err(ProtocolError::new("headers larger than their message"));
    }
    Ok(MessageLine {
        subject: subject.to_owned(),
        sid: sid.parse().map_err(|_| ProtocolError::new("not a subscription id"))?,
        reply: reply.map(str::to_owned),
        header_bytes,
        total_bytes,
    })
}

fn server_info(json: &str) -> Result<ServerInfo, ProtocolError> {
    serde_json::from_str(json).map_err(|_| ProtocolError::new("INFO is not JSON"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode_all(chunks: &[&[u8]]) -> Result<Vec<ServerOp>, ProtocolError> {
        let mut decoder = Decoder::new();
        let mut ops = Vec::new();
        for chunk in chunks {
            decoder.push(chunk);
            while let Some(op) = decoder.next_op()? {
                ops.push(op);
            }
        }
        Ok(ops)
    }

    const SESSION: &[u8] = b"INFO {\"server_name\":\"n\",\"version\":\"2.11.4\",\"max_payload\":1048576,\"headers\":true,\"x\":1}\r\n\
        PING\r\n+OK\r\npong\r\nMSG a.b 1 5\r\nhello\r\nMSG a 2 _INBOX.x.1 0\r\n\r\n\
        HMSG q 1 18 20\r\nNATS/1.0\r\nA: b\r\n\r\nhi\r\nHMSG q 7 r 16 16\r\nNATS/1.0 503\r\n\r\n\r\n\
        -ERR 'Unknown Protocol Operation'\r\n";

    #[test]
    fn a_session_is_read_as_the_server_meant_it() {
        let ops = decode_all(&[SESSION]).unwrap();
        assert_eq!(ops.len(), 9);
        let ServerOp::Info(info) = &ops[0] else { panic!("{:?}", ops[0]) };
        assert_eq!((info.version.as_str(), info.max_payload, info.headers), ("2.11.4", 1_048_576, true));
        assert_eq!(ops[1..4], [ServerOp::Ping, ServerOp::Ok, ServerOp::Pong]);
        let ServerOp::Message(plain) = &ops[4] else { panic!("{:?}", ops[4]) };
        assert_eq!((plain.subject.as_str(), plain.sid, plain.payload.as_ref()), ("a.b", 1, &b"hello"[..]));
        let ServerOp::Message(with_reply) = &ops[5] else { panic!("{:?}", ops[5]) };
        assert_eq!(with_reply.reply.as_deref(), Some("_INBOX.x.1"));
        let ServerOp::Message(with_headers) = &ops[6] else { panic!("{:?}", ops[6]) };
        assert_eq!((with_headers.headers.get("A"), with_headers.payload.as_ref()), (Some("b"), &b"hi"[..]));
        let ServerOp::Message(no_responders) = &ops[7] else { panic!("{:?}", ops[7]) };
        assert_eq!((no_responders.status(), no_responders.sid), (Some(503), 7));
        assert_eq!(ops[8], ServerOp::Err("Unknown Protocol Operation".to_owned()));
    }

    #[test]
    fn broken_framing_is_an_error() {
        let cases: [&[u8]; 9] = [
            b"HELLO\r\n",
            b"MSG a 1\r\n",
            b"MSG a one 2\r\nhi\r\n",
            b"MSG a 1 -1\r\n",
            b"MSG a 1 99999999999\r\n",
            b"MSG a 1 2\r\nhixx",
            b"HMSG a 1 9 2\r\n",
            b"INFO {\r\n",
            b"\xff\xfe\r\n",
        ];
        for case in cases {
            assert!(decode_all(&[case]).is_err(), "{:?}", String::from_utf8_lossy(case));
        }
    }

    #[test]
    fn a_line_without_end_is_given_up() {
        let chunk = [b'a'; 1024];
        let mut decoder = Decoder::new();
        let refused_after = (1..200).find(|_| {
            decoder.push(&chunk);
            decoder.next_op().is_err()
        });
        assert_eq!(refused_after, Some(LINE_BYTES_MAX / 1024 + 1));
    }

    proptest! {
        #[test]
        fn any_split_of_the_bytes_gives_the_same_operations(cuts in prop::collection::vec(0..SESSION.len(), 0..40)) {
            let mut cuts = cuts;
            cuts.sort_unstable();
            cuts.push(SESSION.len());
            let mut chunks = Vec::new();
            let mut start = 0;
            for cut in cuts {
                chunks.push(&SESSION[start..cut]);
                start = cut;
            }
            prop_assert_eq!(decode_all(&chunks), decode_all(&[SESSION]));
        }

        #[test]
        fn any_bytes_are_read_or_refused_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), at in 0..SESSION.len()) {
            let mut stream = SESSION[..at].to_vec();
            stream.extend_from_slice(&bytes);
            let _ = decode_all(&[&stream]);
        }
    }
}
