//! Fewer triangles for the same shape: edges are collapsed in the order of the harm they do.
//!
//! The harm is the quadric error of Garland and Heckbert (*Surface Simplification Using Quadric Error
//! Metrics*, 1997): the sum of squared distances to the planes of all faces that a vertex stands for. An edge
//! is collapsed only if its ends have no neighbours in common but those across from it (the link condition of
//! Dey et al., *Topology Preserving Edge Contraction*, 1999), so a closed manifold stays one, with its genus.

mod collapse;
mod quadric;
mod queue;

use std::convert::Infallible;

use crate::mesh::{Mesh, MeshError};
use crate::watch::{ELEMENTS, Watch, before, part};
use collapse::Surface;
use queue::{Candidate, ErrorQueue};

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
    let Ok(outcome) = simplify_watched::<Infallible>(mesh, target_faces, &mut |_| Ok(()));
    outcome
}

/// As [`simplify`], watched.
///
/// # Errors
/// The watch's, and within the outcome those of the simplification.
pub fn simplify_watched<E>(
    mesh: &Mesh,
    target_faces: usize,
    watch: &mut Watch<'_, E>,
) -> Result<Result<Mesh, MeshError>, E> {
    let mut surface = Surface::new(mesh, &mut part(watch, 0.0, BUILT))?;
    let mut done = BUILT;
    for least_cosine in LEAST_COSINES {
        let mut watch = |part: f32| {
            // The second round begins where the first one ended.
            done = f32::max(done, BUILT + (COLLAPSED - BUILT) * part);
            watch(done)
        };
        collapse_cheapest(&mut surface, target_faces, least_cosine, &mut watch)?;
    }
    watch(COLLAPSED)?;
    Ok(surface.into_mesh())
}

/// How much of the time has gone when the surface is built, and when its edges are collapsed.
const BUILT: f32 = 0.2;
const COLLAPSED: f32 = 0.95;

/// A collapse changes the errors of a dozen edges, most of which never come to the front. So an edge keeps its old
/// place in the queue, which is about a lower bound as errors only add up, and is judged again when it gets there.
fn collapse_cheapest<E>(
    surface: &mut Surface,
    target_faces: usize,
    least_cosine: f64,
    watch: &mut Watch<'_, E>,
) -> Result<(), E> {
    if surface.faces() <= target_faces {
        return Ok(());
    }
    let faces_before = surface.faces();
    let mut queue = ErrorQueue::new();
    let mut waiting = vec![false; surface.half_edges()];
    let mut changed = surface.edges();
    let mut turns: usize = 0;
    while surface.faces() > target_faces {
        // A turn may change nothing, so it is turns that are counted.
        if turns.is_multiple_of(ELEMENTS) {
            watch((faces_before - surface.faces()) as f32 / (faces_before - target_faces) as f32)?;
        }
        turns += 1;
        let initial = changed.len();
        for (index, half_edge) in changed.drain(..).enumerate() {
            if index > 0 {
                before(&mut |_| watch(0.0), index, initial)?;
            }
            if !std::mem::replace(&mut waiting[half_edge as usize], true) {
                queue
                    .push(surface.error(half_edge), Candidate { half_edge, stamp: surface.stamp(half_edge) });
            }
        }
        let Some(Candidate { half_edge, stamp }) = queue.pop() else { return Ok(()) };
        if !surface.is_candidate(half_edge) {
            waiting[half_edge as usize] = false;
            continue;
        }
        let stamp_now = surface.stamp(half_edge);
        if stamp != stamp_now {
            let error = surface.error(half_edge);
            if queue.is_behind(error) {
                queue.push(error, Candidate { half_edge, stamp: stamp_now });
                continue;
            }
        }
        waiting[half_edge as usize] = false;
        surface.try_collapse(half_edge, least_cosine, &mut changed);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
