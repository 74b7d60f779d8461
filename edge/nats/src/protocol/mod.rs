//! The NATS client protocol as bytes: what the server sends ([`decoder`]), what a client sends ([`encoder`]),
//! and the headers of both ([`headers`]). No I/O and no state beyond a bounded buffer.

mod decoder;
mod encoder;
mod headers;

use bytes::Bytes;
use serde::Deserialize;
use thiserror::Error;

pub use decoder::{Decoder, LINE_BYTES_MAX, PAYLOAD_BYTES_MAX};
pub use encoder::{Credentials, Encoder};
pub use headers::{Headers, Status};

/// Bytes that are not NATS, or values that cannot be written as NATS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{reason}")]
pub struct ProtocolError {
    /// What is wrong.
    pub reason: &'static str,
}

impl ProtocolError {
    pub(crate) const fn new(reason: &'static str) -> Self {
        Self { reason }
    }
}

/// One operation of the server.
#[derive(Debug, Clone, PartialEq)]
pub enum ServerOp {
    /// The greeting, or news about the server.
    Info(ServerInfo),
    /// A message for a subscription.
    Message(Message),
    /// Wants a PONG.
    Ping,
    /// Answers a PING.
    Pong,
    /// Acknowledges in verbose mode, which this client does not ask for.
    Ok,
    /// Something was refused; most of these close the connection.
    Err(String),
}

/// A message, with or without headers.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// Where it was published.
    pub subject: String,
    /// The subscription that it belongs to.
    pub sid: u64,
    /// Where an answer goes.
    pub reply: Option<String>,
    /// Its headers; empty if it has none.
    pub headers: Headers,
    /// Its payload.
    pub payload: Bytes,
}

impl Message {
    /// The status code of a reply that the server itself made up, such as 404 or 503.
    pub fn status(&self) -> Option<u16> {
        self.headers.status().map(|status| status.code)
    }
}

/// The part of the server's INFO that this client needs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ServerInfo {
    /// For logs.
    pub server_name: String,
    /// `major.minor.patch`.
    pub version: String,
    /// The largest payload that the server takes, headers included.
    pub max_payload: u64,
    /// Whether messages may have headers.
    pub headers: bool,
    /// Whether the server speaks only TLS, which a component cannot.
    pub tls_required: bool,
}

impl ServerInfo {
    /// Whether the server is at least this version; one that does not say is taken for an old one.
    pub fn is_at_least(&self, major: u32, minor: u32) -> bool {
        let mut numbers = self.version.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or(0));
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (major, minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        let at = |version: &str| ServerInfo { version: version.to_owned(), ..ServerInfo::default() };
        assert!(at("2.11.0").is_at_least(2, 11));
        assert!(at("2.15.1-beta.2").is_at_least(2, 11));
        assert!(at("3.0.0").is_at_least(2, 11));
        assert!(!at("2.9.10").is_at_least(2, 11));
        assert!(!at("").is_at_least(2, 11));
    }
}
