//! Runs of the whole service in which something goes wrong, and an auditor who looks at what is left.
//!
//! ```text
//!  seed ─▶ Plan ─┬─▶ load ─── HTTP, NATS ──▶ edge ─▶ bus ◀─ node
//!                ├─▶ run: kills, fills, sets clocks ──▲──────▲
//!                └─▶ witness ◀── events, records ─────┤
//!                     └─▶ audit ◀── HTTP, streams ────┘ ─▶ Row of the table
//! ```
//! Real processes, real signals, a real full file system. `cargo xtask test` runs a short form of each
//! scenario, `cargo xtask faults` a long one; both print the seed that draws the same plan again.

pub mod audit;
pub mod clock;
pub mod disk;
pub mod load;
pub mod plan;
pub mod report;
pub mod run;
pub mod slow;
pub mod witness;

pub use plan::{Plan, Scenario};
pub use report::{Row, table};
pub use run::{run, run_and_tell};
