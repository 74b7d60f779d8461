//! Reading model files: the GLB files that this crate writes, so that a stored result can become another format.

mod glb;

pub use glb::{ImportError, read_glb};
