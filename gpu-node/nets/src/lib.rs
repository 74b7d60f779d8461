//! The networks and schedulers of the neural families.

pub mod conditioner;
pub mod config;
pub mod dino;
pub mod dit21;
mod error;
pub mod geo_decoder;
pub mod hunyuan_dit;
pub mod layers;
pub mod parity;
pub mod picture;
pub mod sampling;
pub mod schedule;
pub mod shape_vae;
pub mod volume;
pub mod watch;
pub mod weights;

pub use error::Error;
