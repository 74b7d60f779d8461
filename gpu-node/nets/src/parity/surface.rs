//! Cases of the surface: the reference's grids, and the vertices that it found in them.
//!
//! Extraction is not this crate's: whoever has an extractor runs it on the
//! samples and has its vertices compared.

use super::{Case, Row, case_paths};
use crate::Error;
use crate::volume::DEFAULT_BOUND;
use std::path::Path;
use tch::{Kind, Tensor};

/// Vertices, in the model's units.
const VERTEX: f64 = 1e-4;

/// A grid and the reference's vertices in it.
#[derive(Debug, Clone)]
pub struct SurfaceCase {
    /// The file, without its ending.
    pub name: String,
    /// The tensor of the vertices.
    pub tensor: String,
    /// `[x][y][z]`
    pub samples: Vec<f32>,
    /// Samples to a side.
    pub samples_per_side: usize,
    /// Half the side of the cube.
    pub bound: f64,
    /// Samples above this are inside.
    pub level: f32,
    vertices: Vec<[f32; 3]>,
}

/// The surface cases of a folder.
pub fn surfaces(folder: &Path) -> Result<Vec<SurfaceCase>, Error> {
    let mut found = Vec::new();
    for path in case_paths(folder)? {
        let case = Case::open(&path)?;
        for (name, _) in case.file.tensors() {
            if let Some(level) = level(&case, &name) {
                found.push(surface(&case, name, level)?);
            }
        }
    }
    Ok(found)
}

/// The level of a tensor of vertices: `out.mc<level>.sorted_vertices`, or the pipeline's `out.vertices`.
fn level(case: &Case, tensor: &str) -> Option<f32> {
    if !case.has("out.grid_logits") {
        return None;
    }
    if tensor == "out.vertices" {
        return case.meta("mc_level").ok();
    }
    tensor.strip_prefix("out.mc")?.strip_suffix(".sorted_vertices")?.parse().ok()
}

fn surface(case: &Case, tensor: String, level: f32) -> Result<SurfaceCase, Error> {
    let unreadable = |error: tch::TchError| Error::from(orfeas_torch::TorchError::from(error));
    let grid = case.tensor("out.grid_logits")?;
    let floats = |tensor: &Tensor| {
        Vec::<f32>::try_from(tensor.to_kind(Kind::Float).contiguous().view(-1)).map_err(unreadable)
    };
    let vertices = floats(&case.tensor(&tensor)?)?;
    let bound = case
        .meta("bounds")
        .ok()
        .or_else(|| case.meta::<super::vae::Info>("info").ok().map(|info| info.bounds));
    Ok(SurfaceCase {
        name: case.name.clone(),
        samples: floats(&grid)?,
        samples_per_side: grid.size()[3] as usize,
        bound: bound.unwrap_or(DEFAULT_BOUND),
        level,
        vertices: vertices.chunks_exact(3).map(|v| [v[0], v[1], v[2]]).collect(),
        tensor,
    })
}

impl SurfaceCase {
    /// Compares vertices in any order: each has one of the reference's at its place, and the other way round.
    pub fn compare(&self, ours: &[[f32; 3]]) -> Row {
        let furthest = |from: &[[f32; 3]], to: &[[f32; 3]]| {
            from.iter().map(|vertex| nearest(vertex, to)).fold(0.0, f64::max)
        };
        let max_abs = furthest(ours, &self.vertices).max(furthest(&self.vertices, ours));
        let differs = ours.len() != self.vertices.len();
        Row {
            case: self.name.clone(),
            tensor: self.tensor.clone(),
            max_abs,
            relative: max_abs / self.bound,
            tolerance: VERTEX,
            complaint: differs.then(|| format!("{} vertices, reference {}", ours.len(), self.vertices.len())),
        }
    }
}

fn nearest(vertex: &[f32; 3], others: &[[f32; 3]]) -> f64 {
    let distance = |other: &[f32; 3]| {
        let squares = vertex.iter().zip(other).map(|(a, b)| f64::from(a - b).powi(2));
        squares.sum::<f64>().sqrt()
    };
    others.iter().map(distance).fold(f64::INFINITY, f64::min)
}
