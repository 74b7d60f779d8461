//! The networks of Hunyuan3D-2 shape generation, and what runs them.
//!
//! ```text
//! picture ──prepare──▶ conditioner (dino) ──context──▶ sampling ◀── schedule
//!                                                        │ hunyuan_dit or dit21
//!                                                     latents
//!                                                        ▼
//!                              shape_vae ──tokens──▶ geo_decoder ──field──▶ volume
//! ```
//!
//! A file per network: a link to its paper, a `Config` with named presets,
//! `new(weights, &config)`, `forward`. Forward passes are written in plain
//! tensor operators, which panic when libtorch fails; the functions that return
//! a `Result` catch that ([`orfeas_torch::attempt`]). Long work reports to a
//! [`watch::Watch`] and is stopped by it.
//!
//! [`checkpoint`] loads a published model folder; [`parity`] compares every
//! network with reference results, and [`mod@bench`] times them.

pub mod bench;
pub mod checkpoint;
pub mod conditioner;
pub mod config;
pub mod dino;
pub mod dit21;
mod error;
pub mod footprint;
pub mod geo_decoder;
pub mod hunyuan_dit;
pub mod layers;
pub mod parity;
pub mod pickle;
pub mod picture;
pub mod precision;
pub mod residence;
pub mod sampling;
pub mod schedule;
pub mod shape_vae;
pub mod synthetic;
pub mod u2net;
pub mod volume;
pub mod watch;
pub mod weights;

pub use error::Error;
