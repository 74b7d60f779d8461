//! The GPU node.
