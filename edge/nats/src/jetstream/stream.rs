//! Questions about streams, and the removal of messages.

use bytes::Bytes;
use serde::Deserialize;

use super::{Call, Request, decode_api};
use crate::error::Error;
use crate::protocol::Message;

/// Asks a stream for its state.
#[derive(Debug, Clone, Copy)]
pub struct StreamInfo<'a> {
    /// The stream.
    pub stream: &'a str,
}

/// A stream's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct StreamState {
    /// How many messages it holds.
    pub messages: u64,
    /// The sequence of its last message.
    pub last_seq: u64,
}

impl Request for StreamInfo<'_> {
    type Reply = StreamState;

    fn call(&self) -> Call {
        Call::new(format!("$JS.API.STREAM.INFO.{}", self.stream))
    }

    fn decode(message: Message) -> Result<StreamState, Error> {
        #[derive(Deserialize)]
        struct Info {
            state: StreamState,
        }
        decode_api::<Info>(&message).map(|info| info.state)
    }
}

/// Removes every message of one subject from a stream.
#[derive(Debug, Clone)]
pub struct PurgeSubject {
    /// The stream.
    pub stream: String,
    /// The subject.
    pub subject: String,
}

impl Request for PurgeSubject {
    /// How many messages went.
    type Reply = u64;

    fn call(&self) -> Call {
        let payload = serde_json::json!({ "filter": self.subject }).to_string();
        Call { payload: Bytes::from(payload), ..Call::new(format!("$JS.API.STREAM.PURGE.{}", self.stream)) }
    }

    fn decode(message: Message) -> Result<u64, Error> {
        #[derive(Deserialize)]
        struct Purged {
            purged: u64,
        }
        decode_api::<Purged>(&message).map(|reply| reply.purged)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::message;
    use super::*;
    use crate::protocol::Headers;

    #[test]
    fn replies_give_what_was_asked_for() {
        let info = r#"{"type":"x","config":{},"state":{"messages":3,"last_seq":9,"bytes":1}}"#;
        let state = StreamInfo::decode(message(Headers::new(), info)).unwrap();
        assert_eq!(state, StreamState { messages: 3, last_seq: 9 });
        let purged = PurgeSubject::decode(message(Headers::new(), r#"{"success":true,"purged":4}"#)).unwrap();
        assert_eq!(purged, 4);
        let purge = PurgeSubject { stream: "S".to_owned(), subject: "$O.b.C.n".to_owned() }.call();
        assert_eq!(purge.payload.as_ref(), br#"{"filter":"$O.b.C.n"}"#);
    }
}
