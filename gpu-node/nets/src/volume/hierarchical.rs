//! Coarse to fine around the surface.
//!
//! The coarsest grid is evaluated whole. Each finer grid starts from the
//! interpolation of the one before, and evaluates the points of the cells that
//! the surface crosses. Wherever the finer surface then leaves the evaluated
//! points, these are extended, until every crossed cell has evaluated corners.
//! So the surface consists of whole components of the dense surface: those
//! that the coarser grid shows. Components between the coarsest grid's points
//! can be missed; the first refinement therefore takes in cells where the
//! field's slope could hide one.

use super::dense::evaluate_all;
use super::mask::{corners, crossed_cells, subdivide};
use super::{Grid, Request, ScalarField, Volume};
use crate::Error;
use crate::watch::{Watch, tick};
use orfeas_torch::attempt;
use tch::{Kind, Tensor};

/// Parts that the watch is told of for each level.
const PARTS_PER_LEVEL: usize = 1000;

pub(super) fn decode(
    field: &dyn ScalarField,
    request: &Request,
    min_resolution: i64,
    watch: &mut dyn Watch,
) -> Result<Volume, Error> {
    let (coarsest, refinements) = levels(request.resolution, min_resolution);
    let parts = (refinements + 1) * PARTS_PER_LEVEL;
    let grid = Grid::new(request.bound, coarsest, field.device());
    let values = evaluate_all(field, &grid, request.chunk_points, watch, |done, total| {
        (done * PARTS_PER_LEVEL / total, parts)
    })?;
    let mut evaluated_points = grid.len().unsigned_abs();
    let mut known = attempt(|| values.ones_like().to_kind(Kind::Bool))?;
    let mut values = values;
    for level in 1..=refinements {
        let grid = Grid::new(request.bound, coarsest << level, field.device());
        let wanted = attempt(|| {
            let mut cells = crossed_cells(&values.gt(request.level));
            if level == 1 {
                cells = cells.logical_or(&could_hide_a_crossing(&values, request.level));
            }
            corners(&subdivide(&cells))
        })?;
        let progress = Progress { before: level * PARTS_PER_LEVEL, parts };
        let mut refined = Refined::interpolate(&values, &known)?;
        evaluated_points += refined.evaluate(field, &grid, wanted, request, &progress, watch)?;
        (values, known) = (refined.values, refined.known);
    }
    tick(watch, field.device(), parts, parts)?;
    Ok(Volume { logits: values, bound: request.bound, evaluated_points })
}

/// The coarsest resolution, and how often it doubles. The finest is the least
/// multiple of the power of two that is at least `resolution`.
fn levels(resolution: i64, min_resolution: i64) -> (i64, usize) {
    let mut refinements = 0;
    while resolution >> (refinements + 1) >= min_resolution.max(1) {
        refinements += 1;
    }
    ((resolution + (1 << refinements) - 1) >> refinements, refinements as usize)
}

/// Cells without a crossing at their corners, where values come as near to the
/// level as they vary within the cell.
fn could_hide_a_crossing(values: &Tensor, level: f64) -> Tensor {
    let distance = values - level;
    let extreme = |x: &Tensor| {
        x.unsqueeze(0).unsqueeze(0).max_pool3d([2, 2, 2], [1, 1, 1], [0, 0, 0], [1, 1, 1], false)
    };
    let (greatest, least) = (extreme(&distance), -extreme(&-&distance));
    let nearest = -extreme(&-distance.abs());
    nearest.le_tensor(&(greatest - least)).squeeze_dim(0).squeeze_dim(0)
}

/// Where a level stands in the watch's count.
struct Progress {
    before: usize,
    parts: usize,
}

/// A grid of which some points are evaluated and the others interpolated.
struct Refined {
    /// `[n, n, n]` in `f32`.
    values: Tensor,
    /// `[n, n, n]` in `bool`: evaluated.
    known: Tensor,
}

impl Refined {
    /// Twice the resolution.
    fn interpolate(values: &Tensor, known: &Tensor) -> Result<Self, Error> {
        let n = 2 * values.size()[0] - 1;
        Ok(attempt(|| {
            let fine = values.unsqueeze(0).unsqueeze(0);
            let fine = fine.upsample_trilinear3d([n, n, n], true, None, None, None).view([n, n, n]);
            let fine_known = Tensor::zeros([n, n, n], (Kind::Bool, values.device()));
            fine_known.slice(0, 0, n, 2).slice(1, 0, n, 2).slice(2, 0, n, 2).copy_(known);
            Self { values: fine, known: fine_known }
        })?)
    }

    /// Evaluates the wanted points, and then every corner of a crossed cell. Returns how many points it took.
    fn evaluate(
        &mut self,
        field: &dyn ScalarField,
        grid: &Grid,
        mut wanted: Tensor,
        request: &Request,
        progress: &Progress,
        watch: &mut dyn Watch,
    ) -> Result<u64, Error> {
        let mut evaluated = 0;
        loop {
            let numbers =
                attempt(|| wanted.logical_and(&self.known.logical_not()).view(-1).nonzero().squeeze_dim(1))?;
            let count = numbers.size()[0];
            if count == 0 {
                return Ok(evaluated);
            }
            let mut first = 0;
            while first < count {
                // The first round is nearly all of the work.
                let part = if evaluated == 0 { (first * 900 / count) as usize } else { 900 };
                tick(watch, field.device(), progress.before + part, progress.parts)?;
                let length = request.chunk_points.min(count - first);
                attempt(|| {
                    let numbers = numbers.narrow(0, first, length);
                    let values = field.values(&grid.points(&numbers).unsqueeze(0)).squeeze_dim(0);
                    let _ = self.values.view(-1).index_copy_(0, &numbers, &values);
                })?;
                first += length;
            }
            evaluated += count.unsigned_abs();
            wanted = attempt(|| {
                let _ = self.known.view(-1).index_fill_(0, &numbers, 1);
                corners(&crossed_cells(&self.values.gt(request.level)))
            })?;
        }
    }
}
