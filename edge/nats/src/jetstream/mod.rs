//! JetStream as plain values: a [`Request`] says what is published and how its reply reads. Nothing here does
//! I/O except the two object-store streams, which are written against [`Connection`](crate::Connection).
//!
//! [`kv`] follows ADR-8, [`object`] ADR-20, direct gets ADR-31.

pub mod kv;
pub mod object;
mod object_io;
mod stream;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::error::Error;
use crate::protocol::{Headers, Message};

pub use object_io::{ObjectReader, ObjectWriter};
pub use stream::{PurgeSubject, StreamInfo, StreamState};

/// What a request publishes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Where to.
    pub subject: String,
    /// With which headers.
    pub headers: Headers,
    /// The payload.
    pub payload: Bytes,
}

impl Call {
    pub(crate) fn new(subject: String) -> Self {
        Self { subject, headers: Headers::new(), payload: Bytes::new() }
    }
}

/// A request with one reply.
pub trait Request {
    /// What comes back.
    type Reply;

    /// The request on the wire.
    fn call(&self) -> Call;

    /// Reads the reply.
    ///
    /// # Errors
    /// The reply is an error, or not what the protocol says.
    fn decode(message: Message) -> Result<Self::Reply, Error>;
}

/// A message for a stream, to be acknowledged once it is stored.
#[derive(Debug, Clone)]
pub struct Publish {
    /// A subject of the stream.
    pub subject: String,
    /// The message's headers.
    pub headers: Headers,
    /// The payload.
    pub payload: Bytes,
}

impl Publish {
    /// A message that the stream keeps once, however often it is sent within its duplicate window.
    pub fn once(subject: String, message_id: &str, headers: Headers, payload: Bytes) -> Self {
        Self { subject, headers: headers.with("Nats-Msg-Id", message_id), payload }
    }
}

/// A stream has stored a message.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PublishAck {
    /// The stream.
    pub stream: String,
    /// The message's sequence in it.
    #[serde(rename = "seq")]
    pub sequence: u64,
    /// Whether a message with the same id was there before.
    #[serde(default)]
    pub duplicate: bool,
}

impl Request for Publish {
    type Reply = PublishAck;

    fn call(&self) -> Call {
        Call { subject: self.subject.clone(), headers: self.headers.clone(), payload: self.payload.clone() }
    }

    fn decode(message: Message) -> Result<PublishAck, Error> {
        decode_api(&message)
    }
}

/// JetStream's numbers for "wrong last sequence".
const WRONG_LAST_SEQUENCE: [u32; 2] = [10_071, 10_164];

#[derive(Deserialize)]
struct ApiError {
    #[serde(default)]
    code: u16,
    #[serde(default)]
    err_code: u32,
    #[serde(default)]
    description: String,
}

impl From<ApiError> for Error {
    fn from(error: ApiError) -> Self {
        if WRONG_LAST_SEQUENCE.contains(&error.err_code) {
            return Error::Conflict;
        }
        match error.code {
            404 => Error::NotFound,
            code => Error::Api { code, err_code: error.err_code, description: error.description },
        }
    }
}

/// Reads an API reply: `{error:{…}}`, or what was asked for.
fn decode_api<T: DeserializeOwned>(message: &Message) -> Result<T, Error> {
    #[derive(Deserialize)]
    struct Envelope {
        error: Option<ApiError>,
    }
    let not_json = |_| Error::protocol("reply is not the JSON that was expected");
    let envelope: Envelope = serde_json::from_slice(&message.payload).map_err(not_json)?;
    match envelope.error {
        Some(error) => Err(error.into()),
        None => serde_json::from_slice(&message.payload).map_err(not_json),
    }
}

/// A stored message, as a direct get returns it.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) sequence: u64,
    pub(crate) message: Message,
}

/// Reads the reply to a direct get; `None` if there is no such message.
fn decode_direct(message: Message) -> Result<Option<Stored>, Error> {
    match message.headers.status() {
        None => {}
        Some(status) if status.code == 404 => return Ok(None),
        Some(status) => {
            let description = status.description.clone();
            return Err(Error::Api { code: status.code, err_code: 0, description });
        }
    }
    let sequence = message
        .headers
        .get("Nats-Sequence")
        .and_then(|sequence| sequence.parse().ok())
        .ok_or(Error::protocol("stored message without sequence"))?;
    Ok(Some(Stored { sequence, message }))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A reply with these headers and payload.
    pub(crate) fn message(headers: Headers, payload: &str) -> Message {
        Message {
            subject: "_INBOX.x.1".to_owned(),
            sid: 1,
            reply: None,
            headers,
            payload: Bytes::copy_from_slice(payload.as_bytes()),
        }
    }

    #[test]
    fn acknowledgements_and_errors_are_told_apart() {
        let decode = |payload: &str| Publish::decode(message(Headers::new(), payload));
        let ack = decode(r#"{"stream":"S","seq":7,"domain":"hub"}"#).unwrap();
        assert_eq!(ack, PublishAck { stream: "S".to_owned(), sequence: 7, duplicate: false });
        assert!(decode(r#"{"stream":"S","seq":7,"duplicate":true}"#).unwrap().duplicate);
        let error = |json: &str| decode(&format!(r#"{{"error":{json}}}"#)).unwrap_err();
        assert_eq!(
            error(r#"{"code":400,"err_code":10071,"description":"wrong last sequence: 3"}"#),
            Error::Conflict
        );
        assert_eq!(
            error(r#"{"code":404,"err_code":10059,"description":"stream not found"}"#),
            Error::NotFound
        );
        let full = error(r#"{"code":503,"err_code":10077,"description":"maximum messages exceeded"}"#);
        assert!(full.is_unavailable(), "{full:?}");
        assert!(decode("not json").unwrap_err().is_connection_fault());
        assert!(decode("{}").unwrap_err().is_connection_fault());
    }

    #[test]
    fn a_publish_carries_its_deduplication_id() {
        let publish = Publish::once("jobs".to_owned(), "id-1", Headers::new(), Bytes::from_static(b"x"));
        assert_eq!(publish.call().headers.get("Nats-Msg-Id"), Some("id-1"));
    }
}
