//! What a connection needs of the machine: bytes out, bytes in, each by a deadline.

use std::time::Instant;

use crate::error::Error;

/// How a read ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadOutcome {
    /// Bytes came.
    Bytes,
    /// The deadline passed; no byte was lost.
    Deadline,
    /// The peer closed the stream.
    Closed,
}

/// A byte stream to the server.
pub trait Transport {
    /// Writes everything and gives the buffer back, empty.
    ///
    /// # Errors
    /// The peer is gone, or the deadline passed; how much was written is unknown.
    fn write(&mut self, bytes: Vec<u8>, deadline: Instant) -> impl Future<Output = Result<Vec<u8>, Error>>;

    /// Reads into the empty buffer's capacity, and gives it back.
    fn read(&mut self, buffer: Vec<u8>, deadline: Instant) -> impl Future<Output = (ReadOutcome, Vec<u8>)>;
}
