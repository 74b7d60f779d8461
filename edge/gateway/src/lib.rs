//! The edge component: the HTTP API.

pub mod failure;
pub mod head;
pub mod reply;
pub mod route;
pub mod upload;
