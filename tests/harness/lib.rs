//! What the end-to-end tests stand on: real processes on free ports, pictures, and waiting for conditions.
//!
//! ```text
//!  Stack ── Bus   (nats-server, JetStream on a temporary folder)
//!        ├─ Node  (orfeas-gpu-node serve)
//!        └─ Edge  (orfeas-edge with spin.toml and the built component)
//!  faults: runs of a stack in which something goes wrong, and their audit
//! ```
//! The programs are those that `cargo xtask test` has built; every process dies with its owner.

pub mod client;
pub mod collector;
pub mod corpus;
pub mod exposition;
#[path = "../faults/mod.rs"]
pub mod faults;
pub mod pictures;
pub mod process;
pub mod stack;
pub mod wait;
