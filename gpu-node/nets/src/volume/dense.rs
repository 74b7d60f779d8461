//! Every point of the grid.

use super::{Grid, Request, ScalarField, Volume};
use crate::Error;
use crate::watch::{Watch, tick};
use orfeas_torch::attempt;
use tch::{Kind, Tensor};

pub(super) fn decode(
    field: &dyn ScalarField,
    request: &Request,
    watch: &mut dyn Watch,
) -> Result<Volume, Error> {
    let grid = Grid::new(request.bound, request.resolution, field.device());
    let logits = evaluate_all(field, &grid, request.chunk_points, watch, |done, total| (done, total))?;
    Ok(Volume { logits, bound: request.bound, evaluated_points: grid.len().unsigned_abs() })
}

/// Values at all points `[n, n, n]`; `progress` maps chunks done and chunks in all to the watch's parts.
pub(super) fn evaluate_all(
    field: &dyn ScalarField,
    grid: &Grid,
    chunk_points: i64,
    watch: &mut dyn Watch,
    progress: impl Fn(usize, usize) -> (usize, usize),
) -> Result<Tensor, Error> {
    let n = grid.points_per_side();
    let device = field.device();
    let values = attempt(|| Tensor::empty([grid.len()], (Kind::Float, device)))?;
    let chunks = (grid.len() as usize).div_ceil(chunk_points as usize);
    for chunk in 0..chunks {
        let (done, total) = progress(chunk, chunks);
        tick(watch, device, done, total)?;
        let first = chunk as i64 * chunk_points;
        let count = chunk_points.min(grid.len() - first);
        attempt(|| {
            let points = grid.range(first, count).unsqueeze(0);
            values.narrow(0, first, count).copy_(&field.values(&points).squeeze_dim(0));
        })?;
    }
    let (done, total) = progress(chunks, chunks);
    tick(watch, device, done, total)?;
    Ok(attempt(|| values.view([n, n, n]))?)
}
