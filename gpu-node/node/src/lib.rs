//! The GPU node.

pub mod pipeline;
