//! Fewer triangles for the same shape: edges are collapsed in the order of the harm they do.
//!
//! The harm is the quadric error of Garland and Heckbert (*Surface Simplification Using Quadric Error
//! Metrics*, 1997): the sum of squared distances to the planes of all faces that a vertex stands for. An edge
//! is collapsed only if its ends have no neighbours in common but those across from it (the link condition of
//! Dey et al., *Topology Preserving Edge Contraction*, 1999), so a closed manifold stays one, with its genus.

mod collapse;
mod quadric;

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::mesh::{Mesh, MeshError};
use collapse::Surface;

/// How picky a collapse is about the triangles that it leaves: the least cosine between a face's normals
/// before and after. The second round takes what the first refused, short of turning a face over.
const LEAST_COSINES: [f64; 2] = [0.5, 0.0];

/// The mesh with at most `target_faces` triangles, or as few as its topology allows: no handle is closed, no
/// part disappears, no hole opens.
///
/// Vertex colours are mixed along each collapsed edge. Normals and texture coordinates are dropped: they are made
/// after simplification. Vertices of non-manifold places stay as they are.
///
/// # Errors
/// Coordinates so large that a vertex between two others is not finite.
pub fn simplify(mesh: &Mesh, target_faces: usize) -> Result<Mesh, MeshError> {
    let mut surface = Surface::new(mesh);
    for least_cosine in LEAST_COSINES {
        collapse_cheapest(&mut surface, target_faces, least_cosine);
    }
    surface.into_mesh()
}

/// A candidate in the queue. It is out of date once either end has moved: `stamp` tells.
struct Candidate {
    error: f64,
    half_edge: u32,
    stamp: u32,
}

impl Ord for Candidate {
    /// The least error is the greatest candidate; equal ones go by number, so that results repeat.
    fn cmp(&self, other: &Self) -> Ordering {
        other.error.total_cmp(&self.error).then_with(|| other.half_edge.cmp(&self.half_edge))
    }
}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Candidate {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Candidate {}

fn collapse_cheapest(surface: &mut Surface, target_faces: usize, least_cosine: f64) {
    if surface.faces() <= target_faces {
        return;
    }
    let candidate = |surface: &Surface, half_edge: u32| Candidate {
        error: surface.error(half_edge),
        half_edge,
        stamp: surface.stamp(half_edge),
    };
    let mut queue: BinaryHeap<Candidate> =
        surface.edges().into_iter().map(|half_edge| candidate(surface, half_edge)).collect();
    let mut changed = Vec::new();
    while surface.faces() > target_faces {
        let Some(next) = queue.pop() else { return };
        if !surface.is_current(next.half_edge, next.stamp) {
            continue;
        }
        changed.clear();
        if surface.try_collapse(next.half_edge, least_cosine, &mut changed) {
            queue.extend(changed.iter().map(|&half_edge| candidate(surface, half_edge)));
        }
    }
}

#[cfg(test)]
mod tests;
