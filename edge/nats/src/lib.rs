//! A small NATS client for WASI 0.3 components, where no background task may run and no task may wake
//! another: one connection belongs to one request at a time, and whoever owns it reads and writes it.
//!
//! ```text
//!  Pool (wasm) ─▶ Lease ─▶ Connection<T: Transport> ─▶ Session ─▶ protocol (bytes ⇄ operations)
//!                               │    moves bytes         │  replies, subscriptions, pings: no I/O
//!                               └── jetstream: requests and replies as plain values; kv, object store
//!                               └── service: requests to micro services
//! ```
//!
//! Everything except the transport is free of I/O and runs on any target, so the tests drive the very code
//! of the component against a real server over an ordinary socket.
//!
//! Requests are pipelined: [`Connection::start`] queues one, [`Connection::finish`] flushes what is queued and
//! waits for that one's reply; others that arrive in between are kept for their turn.

mod connection;
mod error;
pub mod jetstream;
pub mod protocol;
pub mod service;
mod session;
mod transport;
#[cfg(target_family = "wasm")]
mod wasi;

pub use connection::{Connection, Pending};
pub use error::{Error, Unavailable};
pub use protocol::{Credentials, Headers, Message, Status};
pub use session::{Session, Subscription, Token};
pub use transport::{ReadOutcome, Transport};
#[cfg(target_family = "wasm")]
pub use wasi::{Lease, Pool, TcpTransport};
