//! Requests to a micro service (NATS ADR-32) as plain values.

use bytes::Bytes;

use crate::error::Error;
use crate::jetstream::{Call, Request};
use crate::protocol::{Headers, Message};

/// The header by which a service says that its reply is an error.
const ERROR_CODE: &str = "Nats-Service-Error-Code";

/// A request to one endpoint of a service.
#[derive(Debug, Clone)]
pub struct ServiceCall {
    /// The endpoint's subject.
    pub subject: String,
    /// The request's headers.
    pub headers: Headers,
    /// The payload.
    pub payload: Bytes,
}

/// What the service said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// What was asked for.
    Done(Bytes),
    /// An error, with the body that came with it.
    Failed {
        /// The service's code.
        code: String,
        /// The body, which may be empty.
        body: Bytes,
    },
}

impl Request for ServiceCall {
    type Reply = Reply;

    fn call(&self) -> Call {
        Call { subject: self.subject.clone(), headers: self.headers.clone(), payload: self.payload.clone() }
    }

    fn decode(message: Message) -> Result<Reply, Error> {
        Ok(match message.headers.get(ERROR_CODE) {
            Some(code) => Reply::Failed { code: code.to_owned(), body: message.payload },
            None => Reply::Done(message.payload),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_header_makes_a_reply_an_error() {
        let message = |headers: Headers| Message {
            subject: "_INBOX.1.2".to_owned(),
            sid: 1,
            reply: None,
            headers,
            payload: Bytes::from_static(b"{}"),
        };
        let done = ServiceCall::decode(message(Headers::new().with("X-Request-Id", "r"))).unwrap();
        assert_eq!(done, Reply::Done(Bytes::from_static(b"{}")));
        let failed =
            ServiceCall::decode(message(Headers::new().with("nats-service-error-code", "404"))).unwrap();
        assert_eq!(failed, Reply::Failed { code: "404".to_owned(), body: Bytes::from_static(b"{}") });
    }
}
