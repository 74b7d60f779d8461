//! The GPU node: jobs from NATS through the pipeline on the device, results back.
//!
//! ```text
//!   cli ─▶ config ─▶ service ─▶ scheduler ─▶ pipeline (inference thread)
//!                      └▶ metrics ◀─ admin
//! ```

pub mod admin;
pub mod cli;
pub mod config;
#[cfg(test)]
mod fixtures;
pub mod history;
pub mod metrics;
pub mod models;
pub mod pipeline;
pub mod recovery;
pub mod scheduler;
pub mod service;
pub mod vram;
