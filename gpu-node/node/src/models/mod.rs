//! Which models are on the device: leased to the jobs that run on them, kept warm between jobs, replaced when their
//! folders change, evicted when room is needed.
//!
//! ```text
//!  scheduler ──lease──▶ ModelCache (keeper.rs) ─▶ cache.rs, the decisions
//!      ▲                    │ drives: looks at folders, loads, removes
//!      └── Room: memory ◀───┘                └─▶ pipeline: ModelSource::load, Engine::install
//! ```
//! This module does not know how memory is accounted for: whoever holds a [`ModelCache`] gives it a [`Room`].

mod cache;
mod keeper;
mod look;
mod room;
mod view;

#[cfg(test)]
mod hot_reload;

pub use keeper::{LeaseError, ModelCache, ModelLease};
pub use room::{NoRoom, Reserved, Room, Unlimited};
pub use view::{ModelState, ModelView};
