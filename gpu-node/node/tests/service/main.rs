//! The service against a real `nats-server`, with a scripted engine in place of the device, so that a test
//! decides when and how a run ends. The real pipeline behind the real edge is in the workspace's end-to-end tests.
//!
//! The server is `$ORFEAS_NATS_SERVER`, or `nats-server` from the path.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod acts;
mod dead;
mod device;
mod exits;
mod faults;
mod harness;
mod history;
mod hot_reload;
mod jobs;
mod models;
mod nodes;
mod recovery;
mod requests;
mod scheduling;
mod streams;
