//! What a node does about failures: of a run, of its models, and of itself.
//!
//! ```text
//!   PipelineError ─▶ failure (class) ─▶ ladder: which rungs, how many tries ─▶ service runs again, or gives up
//!   monitor calls ─▶ pulse: does the run go on, is it over its time?        ─▶ time-out, or a fault
//!   poisoned device, dead or stuck thread ─▶ fault: stop taking work, give jobs back, exit for the supervisor
//!   weights missing ─▶ fetch: the mirror's copy into place, checked, atomically
//! ```
//! Decisions here are plain code without clocks of their own; `service` carries them out.

mod failure;
mod fault;
mod fetch;
mod ladder;
mod pulse;

pub use failure::FailureClass;
pub use fault::{Fault, Health};
pub use fetch::{FetchError, Fetched, Mirror};
pub use ladder::{Ladder, Reductions, Rung, Step, TRIES_MAX};
pub use pulse::{Pulse, PulseLimits, Vital};
