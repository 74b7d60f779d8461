//! What can go wrong between a caller and the message bus, in the terms in which callers react to it.

use thiserror::Error;

use crate::protocol::ProtocolError;

/// Why the server cannot be used now.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Unavailable {
    /// The connection could not be made.
    #[error("cannot connect: {0}")]
    Connect(String),
    /// The connection broke.
    #[error("connection lost while {0}")]
    Lost(&'static str),
    /// The deadline passed first.
    #[error("deadline passed while {0}")]
    Deadline(&'static str),
    /// The server sent `-ERR`.
    #[error("server refused: {0}")]
    Refused(String),
}

/// A failed call.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Error {
    /// The server cannot be reached, or the connection broke. The connection is not used again.
    #[error("message bus unavailable")]
    Unavailable(#[from] Unavailable),
    /// Nobody listens on the subject: the stream or the service is not there.
    #[error("no responders on `{subject}`")]
    NoResponders {
        /// Where the request went.
        subject: String,
    },
    /// Another writer came first: the expected last sequence is not the last.
    #[error("wrong last sequence")]
    Conflict,
    /// The stream, consumer or message does not exist.
    #[error("not found")]
    NotFound,
    /// JetStream answered with another error.
    #[error("jetstream error {code} ({err_code}): {description}")]
    Api {
        /// The HTTP-like class.
        code: u16,
        /// JetStream's own number.
        err_code: u32,
        /// For the log.
        description: String,
    },
    /// Bytes or values that the protocol does not allow.
    #[error("protocol violation")]
    Protocol(#[from] ProtocolError),
}

impl Error {
    /// Whether the connection is to blame, so that another one may do better.
    pub const fn is_connection_fault(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Protocol(_))
    }

    /// Whether waiting can help: the server or its storage is away, as opposed to having said no.
    pub const fn is_unavailable(&self) -> bool {
        match self {
            Self::Unavailable(_) | Self::NoResponders { .. } => true,
            Self::Api { code, .. } => *code >= 500,
            Self::Conflict | Self::NotFound | Self::Protocol(_) => false,
        }
    }

    pub(crate) fn protocol(reason: &'static str) -> Self {
        Self::Protocol(ProtocolError::new(reason))
    }
}
