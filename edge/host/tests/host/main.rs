//! The edge host as a real process, serving a component that misbehaves on demand (`guest/`).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail like tests"
)]

mod deadlines;
mod drain;
mod edge;
mod limits;
mod sandbox;
mod serving;
mod start;
