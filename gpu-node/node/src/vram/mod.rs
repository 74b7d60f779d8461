//! Memory of the device: admitted, not hoped for.
//!
//! ```text
//!  estimate ── bytes ──▶ ledger ── permit (RAII) ──▶ job or model lease
//!     ▲                                                │
//!     └────────────── measured peak ◀──────────────────┘
//! ```
//! Nothing reserves here yet: the scheduler is to hold it, between the queue and the pipeline (ARCHITECTURE.md).
//!
//! [`ledger`] decides, [`estimate`] learns, [`Vram`] is the handle that the scheduler holds: it hands out
//! permits and wakes those who wait for room. Jobs and resident models share the one budget. On a CPU the
//! same ledger keeps a configured part of the main memory.

pub mod estimate;
pub mod ledger;
mod permit;

pub use ledger::{Capacity, Refusal};
pub use permit::{Permit, Vram};
