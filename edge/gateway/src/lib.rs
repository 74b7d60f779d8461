//! The edge component: the HTTP API. Everything that can be decided without I/O stands in the modules below and
//! is tested natively; `component` connects it to the host and to the message bus.

pub mod auth;
#[cfg(target_family = "wasm")]
mod component;
pub mod failure;
pub mod head;
pub mod idempotency;
pub mod listing;
pub mod negotiate;
pub mod picture;
pub mod quota;
pub mod range;
pub mod reply;
pub mod route;
pub mod settings;
pub mod sse;
pub mod upload;
