//! A field, evaluated on a grid: dense, coarse to fine, or coarse to fine with a choice of keys.
//!
//! ```text
//! dense         every point                                       (R+1)³ points
//! hierarchical  a coarse grid, then only around its surface       ~ R² points, the same surface
//! flash         as the reference's fast decoder: fewer points, and fewer keys for each
//! ```
//!
//! A grid of `R` cells to a side has `R+1` points to a side, from `-bound` to
//! `bound`, indexed `[x][y][z]`. Values are logits, positive inside.

mod dense;
mod flash;
mod grid;
mod hierarchical;
mod mask;

use crate::Error;
use crate::geo_decoder::{Field, bytes_per_point};
use crate::watch::Watch;
use orfeas_torch::attempt;
use tch::{Device, Kind, Tensor};

pub use flash::{FlashConfig, KeyChoice, near_surface};
pub use grid::Grid;

/// A scalar field in space.
pub trait ScalarField {
    /// Where it is evaluated.
    fn device(&self) -> Device;
    /// Values at points `[1, P, 3]`: `[1, P]`, both in `f32`.
    fn values(&self, points: &Tensor) -> Tensor;
}

impl ScalarField for Field<'_> {
    fn device(&self) -> Device {
        Field::device(self)
    }

    fn values(&self, points: &Tensor) -> Tensor {
        self.logits(points)
    }
}

/// How to evaluate the field.
#[derive(Debug, Clone, PartialEq)]
pub enum Method {
    /// Every point of the grid.
    Dense,
    /// Coarse to fine around the surface: every part of the surface that the
    /// coarsest grid shows comes out as dense decoding has it.
    Hierarchical {
        /// The coarsest grid has at least this many cells to a side.
        min_resolution: i64,
    },
    /// FlashVDM: coarse to fine, where each block of points attends to its most relevant tokens alone.
    Flash(FlashConfig),
}

/// What to decode.
#[derive(Debug, Clone)]
pub struct Request {
    /// Half the side of the cube.
    pub bound: f64,
    /// Cells to a side; the methods other than dense may take a near number ([`Volume::resolution`]).
    pub resolution: i64,
    /// The logit at which the surface lies.
    pub level: f64,
    /// Points evaluated at once.
    pub chunk_points: i64,
    /// How.
    pub method: Method,
}

/// The published models' cube.
pub const DEFAULT_BOUND: f64 = 1.01;

/// A decoded field.
#[derive(Debug)]
pub struct Volume {
    /// `[R+1, R+1, R+1]` in `f32`.
    pub logits: Tensor,
    /// Half the side of the cube.
    pub bound: f64,
    /// Points at which the field was evaluated.
    pub evaluated_points: u64,
}

impl Volume {
    /// Cells to a side.
    pub fn resolution(&self) -> i64 {
        self.logits.size()[0] - 1
    }

    /// The side of a cell, of which the first begins at `-bound`.
    pub fn cell_size(&self, scale: Scale) -> f64 {
        let cells = match scale {
            Scale::Exact => self.resolution(),
            Scale::ReferenceCompatible { resolution } => resolution + 1,
        };
        2.0 * self.bound / cells as f64
    }
}

/// What the surface's coordinates are multiples of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scale {
    /// The grid's cells: a surface lies where the field has it.
    #[default]
    Exact,
    /// The published pipeline's, which divides the cube by one cell more than
    /// were asked for: shapes are smaller by `R/(R+1)` and shifted towards
    /// minus. For comparison with its results only.
    ReferenceCompatible {
        /// The resolution that was asked for, whatever the grid has.
        resolution: i64,
    },
}

/// Evaluates a field.
///
/// # Errors
/// [`Error::NonFinite`] if the field is not a number somewhere,
/// [`Error::EmptyField`] if it does not cross the level, [`Error::Cancelled`]
/// within one chunk of the watch's word.
pub fn decode(field: &Field<'_>, request: &Request, watch: &mut dyn Watch) -> Result<Volume, Error> {
    let _no_grad = tch::no_grad_guard();
    let volume = match &request.method {
        Method::Dense => dense::decode(field, request, watch)?,
        Method::Hierarchical { min_resolution } => {
            hierarchical::decode(field, request, *min_resolution, watch)?
        }
        Method::Flash(config) => flash::decode(field, request, config, watch)?,
    };
    check(&volume, request)?;
    Ok(volume)
}

/// Refuses a volume without a surface.
fn check(volume: &Volume, request: &Request) -> Result<(), Error> {
    let (least, greatest) = attempt(|| {
        // The reference's fast decoder marks cells that it left out with NaN.
        let left_out = matches!(&request.method, Method::Flash(config) if config.mark_unqueried);
        let logits = if left_out {
            volume.logits.nan_to_num(request.level, None, None)
        } else {
            volume.logits.shallow_clone()
        };
        // A value that is not a number comes through both, without a mask of the grid's size.
        let (least, greatest) = logits.aminmax(None, false);
        (least.double_value(&[]), greatest.double_value(&[]))
    })?;
    if !(least.is_finite() && greatest.is_finite()) {
        return Err(Error::NonFinite { stage: "volume decoding" });
    }
    if greatest <= request.level || least > request.level {
        return Err(Error::EmptyField { least, greatest, level: request.level });
    }
    Ok(())
}

/// Intermediate values of this many points stay in a core's cache: a tenth faster than eight times as many.
pub const CPU_CHUNK_POINTS: i64 = 1024;
/// Fills a device: a larger chunk is no faster, and takes more of its memory.
const MAX_CHUNK_POINTS: u64 = 1 << 16;
const MIN_CHUNK_POINTS: u64 = 1 << 11;

/// How many points to evaluate at once, from the free memory of the device.
pub fn chunk_points(field: &Field<'_>, free_bytes: Option<u64>) -> i64 {
    match (field.device(), free_bytes) {
        (Device::Cpu, _) | (_, None) => CPU_CHUNK_POINTS,
        // A quarter: the allocator's rounding and the attention's workspace need room too.
        (_, Some(free)) => {
            let points = free / 4 / field.decoder().bytes_per_point();
            points.clamp(MIN_CHUNK_POINTS, MAX_CHUNK_POINTS).cast_signed()
        }
    }
}

/// Bytes of intermediate values while a chunk is evaluated.
pub fn decode_bytes(config: &crate::shape_vae::Config, kind: Kind, chunk_points: i64) -> u64 {
    chunk_points.unsigned_abs() * bytes_per_point(config, kind)
}

#[cfg(test)]
mod tests;
