//! How far apart the surfaces of two grids are.

use std::collections::HashMap;

use anyhow::Context;
use orfeas_geometry::surface::{DenseVolume, GridFrame, SurfaceOptions, extract_surface};
use orfeas_nets::volume::Volume;
use tch::{Device, Kind};

type Cell = [i32; 3];

/// The Hausdorff distance of the surfaces' vertices, in cells of the first grid: the furthest that a vertex of one is
/// from the other. Infinite where it exceeds a cell.
///
/// # Errors
/// A grid has no surface.
pub(super) fn surface_distance(a: &Volume, b: &Volume) -> anyhow::Result<f64> {
    let cell = 2.0 * a.bound / a.resolution() as f64;
    let (a, b) = (vertices(a)?, vertices(b)?);
    Ok(furthest(&a, &b, cell).max(furthest(&b, &a, cell)) / cell)
}

fn vertices(volume: &Volume) -> anyhow::Result<Vec<[f32; 3]>> {
    let side = volume.resolution() as usize + 1;
    let samples = Vec::<f32>::try_from(volume.logits.to_device(Device::Cpu).to_kind(Kind::Float).view(-1))?;
    let cell = (2.0 * volume.bound / (side - 1) as f64) as f32;
    let frame = GridFrame { origin: [-volume.bound as f32; 3], cell_size: [cell; 3] };
    let dense = DenseVolume::new([side; 3], &samples)?;
    let options = SurfaceOptions { iso: 0.0, frame, edge_margin: 0.0 };
    Ok(extract_surface(&dense, &options).context("cannot extract a surface")?.positions().to_vec())
}

/// The furthest that a point of `from` is from the nearest of `to`; infinite beyond `reach`.
fn furthest(from: &[[f32; 3]], to: &[[f32; 3]], reach: f64) -> f64 {
    let cell_of = |point: &[f32; 3]| -> Cell { point.map(|value| (f64::from(value) / reach).floor() as i32) };
    let mut cells: HashMap<Cell, Vec<[f32; 3]>> = HashMap::new();
    for point in to {
        cells.entry(cell_of(point)).or_default().push(*point);
    }
    let nearest = |point: &[f32; 3]| {
        let [x, y, z] = cell_of(point);
        let mut nearest = f64::INFINITY;
        for dx in -1..=1 {
            for dy in -1..=1 {
                for dz in -1..=1 {
                    for other in cells.get(&[x + dx, y + dy, z + dz]).into_iter().flatten() {
                        let squares = point.iter().zip(other).map(|(a, b)| f64::from(a - b).powi(2));
                        nearest = nearest.min(squares.sum::<f64>().sqrt());
                    }
                }
            }
        }
        if nearest <= reach { nearest } else { f64::INFINITY }
    };
    from.iter().map(nearest).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distance_is_that_of_the_furthest_point_and_infinite_beyond_the_reach() {
        let a = [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]];
        let b = [[0.0, 0.0, 0.05], [1.0, 0.0, 0.0]];
        assert!((furthest(&a, &b, 0.1) - 0.05).abs() < 1e-6);
        assert_eq!(furthest(&a, &b[..1], 0.1), f64::INFINITY);
        assert_eq!(furthest(&a, &a, 0.1), 0.0);
    }
}
