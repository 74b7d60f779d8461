//! Who goes next: which lane of the region's queue is asked for work ([`queues`]), in which order the jobs on this
//! node start ([`queue`]), and with which memory and model ([`driver`]).
//!
//! ```text
//!  worker ─ Lanes ─▶ messages ─▶ Scheduler ─▶ JobQueue ─▶ Admission: device + memory (vram), to run on a lease (models)
//! ```
//! The first two are plain state machines; the third is the driver that does the waiting.

mod admission;
mod costs;
mod driver;
mod handle;
mod probe;
pub mod queue;
mod queues;
mod room;
#[cfg(test)]
mod tests;

pub use admission::{Admission, AdmitError, Candidate, Place, Ticket};
pub use driver::Limits;
pub use handle::Scheduler;
pub use probe::EngineProbe;
pub(crate) use queues::{Lane, Lanes};
