//! Reads `spin.toml`: [`raw`] is what is written, [`resolve`] what it means for this host.
//!
//! ```text
//! spin.toml ──raw──▶ RawManifest ──resolve──▶ App { components, routes }
//! --variable, SPIN_VARIABLE_*, defaults ──variables──┘  templates filled, paths checked
//! ```

mod error;
mod raw;
mod resolve;
mod template;
mod variables;

pub(crate) use error::ManifestError;
pub(crate) use resolve::{App, ComponentSpec, Endpoint, load};
pub(crate) use variables::VariableSources;
