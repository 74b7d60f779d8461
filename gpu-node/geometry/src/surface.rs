//! Iso-surfaces: where a sampled field passes through a level.
//!
//! ```text
//!  volume.rs    where samples come from: a dense array, or any other VolumeSource
//!  sweep.rs     walks the grid slab by slab: vertices on cut edges, then the cells' triangles
//!    └ table.rs      the triangles of each kind of cell, derived at first use
//!        ├ cube.rs       corners, edges and faces of a cell
//!        ├ contour.rs    where the surface cuts the cell's faces: closed loops
//!        └ patch.rs      triangles between the loops
//!    └ interior.rs   which corners are joined within a cell
//! ```
//!
//! # Why the result is closed and manifold
//!
//! A vertex belongs to one grid edge. On each cell face the contour is decided from that face's four samples alone
//! (asymptotic decider, Nielson and Hamann 1991), so both cells of a face see the same segments, in opposite
//! directions. Within a cell the segments form disjoint loops, because an edge lies on two of its faces; discs and
//! tubes are put between the loops. An edge of these patches that is no contour segment never has both ends on one
//! face of the cell, so no other cell can have it: each edge has two triangles, and the triangles round a vertex
//! form one fan through the four cells of its edge. Nothing of this depends on the samples: they may be noise, equal
//! to the level, infinite or not a number.
//!
//! Within a cell the patches have the topology of the trilinear interpolant (interior.rs), as MC33 asks (Chernyaev
//! 1995).

mod contour;
mod cube;
mod interior;
mod patch;
mod sweep;
mod table;
mod volume;

use std::convert::Infallible;

use thiserror::Error;

use crate::mesh::{Mesh, MeshError};
use crate::watch::Watch;

pub use volume::{ClosedVolume, DenseVolume, VolumeSource};

/// How near to a sample a vertex may come, in cell lengths. A sample equal to the level would otherwise put several
/// vertices on one spot, and the triangles between them would have no area. A thousandth of a cell is far below what
/// samples resolve, and far above the spacing of 32-bit coordinates on any grid that fits in memory.
pub const DEFAULT_EDGE_MARGIN: f32 = 1e-3;

/// Where the samples of a grid are in space: sample (i, j, k) is at `origin + (i, j, k) · cell_size`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GridFrame {
    /// The position of sample (0, 0, 0).
    pub origin: [f32; 3],
    /// The distance between neighbouring samples along each axis; positive.
    pub cell_size: [f32; 3],
}

impl GridFrame {
    /// The frame in which the first sample of `dims` is at `min` and the last at `max`.
    pub fn spanning(min: [f32; 3], max: [f32; 3], dims: [usize; 3]) -> Self {
        let cells = dims.map(|samples| samples.saturating_sub(1).max(1) as f32);
        Self { origin: min, cell_size: std::array::from_fn(|axis| (max[axis] - min[axis]) / cells[axis]) }
    }
}

/// What surface to extract.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SurfaceOptions {
    /// Samples above this are inside.
    pub iso: f32,
    /// Where the samples are.
    pub frame: GridFrame,
    /// See [`DEFAULT_EDGE_MARGIN`]; 0 puts vertices exactly where linear interpolation does.
    pub edge_margin: f32,
}

impl SurfaceOptions {
    /// The surface at `iso` with the default margin.
    pub fn new(iso: f32, frame: GridFrame) -> Self {
        Self { iso, frame, edge_margin: DEFAULT_EDGE_MARGIN }
    }
}

/// Why there is no surface.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum SurfaceError {
    /// The samples are not as many as the dimensions say.
    #[error("{found} samples for a volume of {dims:?}")]
    SampleCount {
        /// How many there are.
        found: usize,
        /// The dimensions.
        dims: [usize; 3],
    },
    /// A volume needs two samples along each axis.
    #[error("a volume of {0:?} has no cells")]
    NoCells([usize; 3]),
    /// The level or the frame is not finite, a cell has no extent, or the margin is not in 0 to 0.5.
    #[error("the level, the frame or the margin is out of range")]
    Options,
    /// More vertices than a 32-bit index can name.
    #[error("the surface has more vertices than an index can name")]
    TooManyVertices,
    /// The coordinates are out of the range of a mesh.
    #[error("the surface is no mesh")]
    Mesh(#[from] MeshError),
}

/// The surface at which `volume` passes through the level: triangles between samples above it and all others.
///
/// Faces look away from what is inside. The surface is closed wherever it does not reach the border of the grid;
/// [`extract_closed_surface`] also closes it there. A volume that the level does not pass through gives an empty
/// mesh.
pub fn extract_surface(volume: &impl VolumeSource, options: &SurfaceOptions) -> Result<Mesh, SurfaceError> {
    let Ok(outcome) = extract_surface_watched::<Infallible>(volume, options, &mut |_| Ok(()));
    outcome
}

/// As [`extract_surface`], watched: once for each slice of the grid.
///
/// # Errors
/// The watch's, and within the outcome those of the extraction.
pub fn extract_surface_watched<E>(
    volume: &impl VolumeSource,
    options: &SurfaceOptions,
    watch: &mut Watch<'_, E>,
) -> Result<Result<Mesh, SurfaceError>, E> {
    if let Err(error) = check(volume, options) {
        return Ok(Err(error));
    }
    sweep::sweep(volume, options, watch)
}

fn check(volume: &impl VolumeSource, options: &SurfaceOptions) -> Result<(), SurfaceError> {
    let dims = volume.dims();
    if dims.iter().any(|&samples| samples < 2) {
        return Err(SurfaceError::NoCells(dims));
    }
    let frame = &options.frame;
    let finite = frame.origin.iter().all(|o| o.is_finite()) && options.iso.is_finite();
    let extended = frame.cell_size.iter().all(|&length| length.is_finite() && length > 0.0);
    if !finite || !extended || !(0.0..0.5).contains(&options.edge_margin) {
        return Err(SurfaceError::Options);
    }
    Ok(())
}

/// As [`extract_surface`], but what is inside at the border of the grid is closed half a cell outside it, so that
/// the surface is closed for any volume.
pub fn extract_closed_surface(
    volume: &impl VolumeSource,
    options: &SurfaceOptions,
) -> Result<Mesh, SurfaceError> {
    let Ok(outcome) = extract_closed_surface_watched::<Infallible>(volume, options, &mut |_| Ok(()));
    outcome
}

/// As [`extract_closed_surface`], watched: once for each slice of the grid.
///
/// # Errors
/// The watch's, and within the outcome those of the extraction.
pub fn extract_closed_surface_watched<E>(
    volume: &impl VolumeSource,
    options: &SurfaceOptions,
    watch: &mut Watch<'_, E>,
) -> Result<Result<Mesh, SurfaceError>, E> {
    let GridFrame { origin, cell_size } = options.frame;
    let frame = GridFrame { origin: std::array::from_fn(|axis| origin[axis] - cell_size[axis]), cell_size };
    let closed = ClosedVolume::new(volume, options.iso);
    extract_surface_watched(&closed, &SurfaceOptions { frame, ..*options }, watch)
}

#[cfg(test)]
mod tests;
