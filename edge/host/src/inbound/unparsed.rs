//! Problems as answers to what is no request. hyper answers by itself to bytes that it cannot parse, with a head and
//! no body; this stream, below it, sends a whole problem in that head's place.
//!
//! hyper offers no hook for it, so its answer is known by its form: a status of its three, and none but its own three
//! headers. Every answer that passes through hyper from us has an `X-Request-Id`.

use super::identity::Identity;
use super::refusal::Refusal;
use bytes::{Buf, Bytes};
use http::{HeaderMap, Response};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream that replaces the parser's answers.
pub(super) struct Unparsed<S, F> {
    stream: S,
    /// The largest head that is read.
    head_bytes_max: usize,
    /// Is told of each refusal and the identity that was made for it.
    note: F,
    /// What is left of the answer in the replaced one's place.
    answer: Bytes,
}

impl<S: AsyncWrite + Unpin, F: FnMut(Refusal, &Identity)> Unparsed<S, F> {
    pub(super) fn new(stream: S, head_bytes_max: usize, note: F) -> Self {
        Self { stream, head_bytes_max, note, answer: Bytes::new() }
    }

    /// Takes the parser's answer, if it is one.
    fn replace(&mut self, written: &[u8]) -> bool {
        let Some(refusal) = parser_refusal(written, self.head_bytes_max) else { return false };
        let identity = Identity::from_headers(&HeaderMap::new());
        (self.note)(refusal, &identity);
        self.answer = on_the_wire(&refusal.response(&identity));
        true
    }

    /// Writes what is left of the answer.
    fn poll_answer(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.answer.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(context, &self.answer))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.answer.advance(written);
        }
        Poll::Ready(Ok(()))
    }
}

/// Why the parser refused, if these bytes are its answer.
fn parser_refusal(written: &[u8], head_bytes_max: usize) -> Option<Refusal> {
    const OF_THE_PARSER: [&str; 3] = ["connection", "content-length", "date"];
    let head = written.strip_suffix(b"\r\n\r\n").and_then(|head| std::str::from_utf8(head).ok())?;
    let mut lines = head.split("\r\n");
    let (_version, status) = lines.next()?.strip_prefix("HTTP/1.")?.split_once(' ')?;
    let refusal = match status.get(..3)? {
        "400" => Refusal::InvalidRequest("what was sent is not an HTTP/1.1 request"),
        "414" | "431" => Refusal::HeadersTooLarge { limit_bytes: head_bytes_max },
        _ => return None,
    };
    let is_the_parsers = lines.all(|line| {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let is_length = name.eq_ignore_ascii_case("content-length");
        OF_THE_PARSER.iter().any(|known| name.eq_ignore_ascii_case(known))
            && (!is_length || value.trim() == "0")
    });
    is_the_parsers.then_some(refusal)
}

/// A response as bytes, after which the connection ends.
fn on_the_wire(response: &Response<Bytes>) -> Bytes {
    let status = response.status();
    let reason = status.canonical_reason().unwrap_or_default();
    let mut bytes = format!("HTTP/1.1 {} {reason}\r\n", status.as_u16()).into_bytes();
    for (name, value) in response.headers().iter().filter(|(name, _)| *name != http::header::CONNECTION) {
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    let length = response.body().len();
    bytes.extend_from_slice(format!("connection: close\r\ncontent-length: {length}\r\n\r\n").as_bytes());
    bytes.extend_from_slice(response.body());
    bytes.into()
}

impl<S: AsyncRead + Unpin, F: Unpin> AsyncRead for Unparsed<S, F> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin, F: FnMut(Refusal, &Identity) + Unpin> AsyncWrite for Unparsed<S, F> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_answer(context))?;
        if self.replace(bytes) {
            return Poll::Ready(Ok(bytes.len()));
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_answer(context))?;
        // The parser's answer has a head only, so it comes in one slice.
        if let [only] = slices
            && self.replace(only)
        {
            return Poll::Ready(Ok(only.len()));
        }
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_answer(context))?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_answer(context))?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(head: &str) -> Option<Refusal> {
        parser_refusal(head.as_bytes(), 7)
    }

    #[test]
    fn only_the_parsers_own_answers_are_replaced() {
        let headers = "connection: close\r\ncontent-length: 0\r\ndate: Fri, 27 Nov 2026 13:00:00 GMT\r\n\r\n";
        let bad = refusal(&format!("HTTP/1.1 400 Bad Request\r\n{headers}"));
        assert!(matches!(bad, Some(Refusal::InvalidRequest(_))));
        for status in ["431 Request Header Fields Too Large", "414 URI Too Long"] {
            let large = refusal(&format!("HTTP/1.1 {status}\r\n{headers}"));
            assert_eq!(large, Some(Refusal::HeadersTooLarge { limit_bytes: 7 }));
        }
        for ours in [
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nx-request-id: r\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 17\r\ndate: x\r\n\r\n",
            "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\nbody",
            "{\"text\":\"HTTP/1.1 400\"}\r\n\r\n",
            "",
        ] {
            assert_eq!(refusal(ours), None, "{ours:?}");
        }
    }

    #[tokio::test]
    async fn the_problem_goes_out_whole_however_little_the_stream_takes_at_once() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (near, mut far) = tokio::io::duplex(16);
        let mut noted = 0;
        let mut stream = Unparsed::new(near, 7, |_, _: &Identity| noted += 1);
        let reader = tokio::spawn(async move {
            let mut text = String::new();
            far.read_to_string(&mut text).await.unwrap();
            text
        });
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        stream.shutdown().await.unwrap();
        drop(stream);
        let text = reader.await.unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{text}");
        assert!(head.contains(&format!("content-length: {}", body.len())), "{text}");
        assert!(head.contains("x-request-id: ") && body.contains("\"invalid_request\""), "{text}");
        assert_eq!(noted, 1);
    }
}
