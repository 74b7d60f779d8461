//! Runs components: compiles them, links them, and keeps instances of them within limits.
//!
//! ```text
//! engine ── aot ──▶ Component ── linker ──▶ Guest ── instance ──▶ ProxyHandler's instances
//!                                                        │  vitals (shared with the callbacks)
//!                                                        └─ ticket (one per request)
//! ```

pub(crate) mod aot;
pub(crate) mod engine;
pub(crate) mod instance;
pub(crate) mod linker;
mod log;
mod supervision;
mod variables;
mod vitals;

pub(crate) use instance::{Guest, InstanceLimits};
pub(crate) use supervision::Ticket;
pub(crate) use vitals::Failure;
