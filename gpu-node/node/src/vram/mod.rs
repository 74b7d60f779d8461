//! Memory of the device: admitted, not hoped for.
//!
//! ```text
//!  estimate ── bytes ──▶ ledger ── permit (RAII) ──▶ job or model lease
//!     ▲                                                │
//!     └────────────── measured peak ◀──────────────────┘
//! ```
//! [`ledger`] decides, [`estimate`] learns, [`Vram`] hands out permits and wakes those who wait for room, [`probe`]
//! is what the device itself says. [`Memory`] holds them together for the scheduler. Jobs and resident models share
//! the one budget. On a CPU the same ledger keeps a configured part of the main memory.

pub mod estimate;
pub mod ledger;
mod memory;
mod permit;
pub mod probe;
#[cfg(test)]
pub(crate) mod simulated;
#[cfg(test)]
mod tests;

pub use ledger::{Capacity, Refusal};
pub use memory::{Figures, Memory, Plan};
pub use permit::{Permit, Vram};
