//! The edge component: the HTTP API.

pub mod auth;
pub mod failure;
pub mod head;
pub mod idempotency;
pub mod negotiate;
pub mod range;
pub mod reply;
pub mod route;
pub mod settings;
pub mod upload;
