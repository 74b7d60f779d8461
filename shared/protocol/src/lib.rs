//! What callers, edge and nodes agree on. No I/O: clocks and randomness come in as arguments, so the same
//! code runs in the component and in the node, and every rule here can be tested as a plain function.
//!
//! ```text
//!  ids ─┬─▶ options ──▶ job ──▶ view (the job object callers see)
//!       │   preset  ──▶  │                side (of a subject: which picture shows what)
//!       └─▶ subjects     └──▶ problem (codes, their HTTP status)
//!           picture (what stands beside a stored one)
//!           rollout (which channel a request belongs to), key (who may call)
//! ```

pub mod ids;
pub mod job;
pub mod key;
mod names;
pub mod options;
pub mod picture;
pub mod preset;
pub mod problem;
pub mod rollout;
pub mod side;
pub mod subjects;
pub mod timestamp;
pub mod view;

pub use ids::{JobId, NodeId, Region, RequestId, Sha256Digest, TenantId};
pub use job::{JobRecord, JobStatus};
pub use key::{KeyLimits, KeyRecord, Scope};
pub use options::JobOptions;
pub use problem::{Code, Problem};
pub use rollout::Channel;
pub use side::Side;
pub use timestamp::Timestamp;
