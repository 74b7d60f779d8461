//! How far apart the surfaces of two grids are.

use anyhow::Context;
use orfeas_geometry::surface::{DenseVolume, GridFrame, SurfaceOptions, extract_surface};
use orfeas_nets::volume::Volume;
use tch::{Device, Kind};

/// How far a point is looked for, in cells: a comparison that fails by more than this has failed by any measure.
const REACH_CELLS: i64 = 16;

/// The Hausdorff distance of the surfaces' vertices, in cells of the first grid: the furthest that a vertex of one is
/// from the nearest of the other. Infinite beyond [`REACH_CELLS`].
///
/// # Errors
/// A grid has no surface.
pub(super) fn surface_distance(a: &Volume, b: &Volume) -> anyhow::Result<f64> {
    let cell = 2.0 * a.bound / a.resolution() as f64;
    let (a, b) = (vertices(a)?, vertices(b)?);
    let there = Cells::of(&b, cell).furthest(&a);
    Ok(there.max(Cells::of(&a, cell).furthest(&b)) / cell)
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

/// Points sorted into a grid: those of cell `i` are `points[starts[i]..starts[i + 1]]`.
struct Cells {
    size: f64,
    least: [f32; 3],
    dims: [i64; 3],
    starts: Vec<u32>,
    points: Vec<[f32; 3]>,
}

impl Cells {
    fn of(points: &[[f32; 3]], size: f64) -> Self {
        let mut least = [f32::MAX; 3];
        let mut greatest = [f32::MIN; 3];
        for point in points {
            for axis in 0..3 {
                least[axis] = least[axis].min(point[axis]);
                greatest[axis] = greatest[axis].max(point[axis]);
            }
        }
        if points.is_empty() {
            (least, greatest) = ([0.0; 3], [0.0; 3]);
        }
        let dims = [0, 1, 2].map(|axis| {
            let extent = f64::from(greatest[axis]) - f64::from(least[axis]);
            (extent / size).floor() as i64 + 1
        });
        let cells = dims.iter().product::<i64>().unsigned_abs() as usize;
        let mut sorted =
            Self { size, least, dims, starts: vec![0; cells + 1], points: vec![[0.0; 3]; points.len()] };
        let places: Vec<usize> =
            points.iter().map(|point| sorted.index(sorted.cell_of(point)).unwrap_or(0)).collect();
        places.iter().for_each(|place| sorted.starts[place + 1] += 1);
        for cell in 0..cells {
            sorted.starts[cell + 1] += sorted.starts[cell];
        }
        let mut next = sorted.starts.clone();
        for (point, place) in points.iter().zip(places) {
            sorted.points[next[place] as usize] = *point;
            next[place] += 1;
        }
        sorted
    }

    fn cell_of(&self, point: &[f32; 3]) -> [i64; 3] {
        [0, 1, 2]
            .map(|axis| ((f64::from(point[axis]) - f64::from(self.least[axis])) / self.size).floor() as i64)
    }

    fn index(&self, cell: [i64; 3]) -> Option<usize> {
        let is_within = cell.iter().zip(self.dims).all(|(place, limit)| (0..limit).contains(place));
        let [x, y, z] = cell;
        is_within.then_some(((x * self.dims[1] + y) * self.dims[2] + z) as usize)
    }

    /// The furthest that one of these points is from the nearest of those in the grid.
    fn furthest(&self, from: &[[f32; 3]]) -> f64 {
        from.iter().map(|point| self.nearest(point)).fold(0.0, f64::max)
    }

    /// The distance to the nearest point, looked for in shells of cells round its own: what is beyond shell `n` is
    /// further than `n` cells.
    fn nearest(&self, point: &[f32; 3]) -> f64 {
        let cell = self.cell_of(point);
        let mut nearest = f64::INFINITY;
        for shell in 0..=REACH_CELLS {
            for dx in -shell..=shell {
                for dy in -shell..=shell {
                    let on_side = dx.abs() == shell || dy.abs() == shell;
                    let step = if on_side || shell == 0 { 1 } else { 2 * shell };
                    let mut dz = -shell;
                    while dz <= shell {
                        let place = self.index([cell[0] + dx, cell[1] + dy, cell[2] + dz]);
                        nearest = place.map_or(nearest, |place| nearest.min(self.within(place, point)));
                        dz += step;
                    }
                }
            }
            if nearest <= shell as f64 * self.size {
                return nearest;
            }
        }
        f64::INFINITY
    }

    /// The distance to the nearest point of one cell.
    fn within(&self, place: usize, point: &[f32; 3]) -> f64 {
        let range = self.starts[place] as usize..self.starts[place + 1] as usize;
        let squared =
            |other: &[f32; 3]| point.iter().zip(other).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
        self.points[range].iter().map(squared).fold(f64::INFINITY, f64::min).sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn furthest(from: &[[f32; 3]], to: &[[f32; 3]], cell: f64) -> f64 {
        Cells::of(to, cell).furthest(from)
    }

    #[test]
    fn the_distance_is_that_of_the_furthest_point_and_infinite_beyond_the_reach() {
        let a = [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]];
        let b = [[0.0, 0.0, 0.05], [1.0, 0.0, 0.0]];
        assert!((furthest(&a, &b, 0.1) - 0.05).abs() < 1e-6);
        assert!((furthest(&a, &b[..1], 0.1) - f64::hypot(1.0, 0.05)).abs() < 1e-6, "ten cells away");
        assert_eq!(furthest(&a, &b[..1], 0.05), f64::INFINITY);
        assert_eq!(furthest(&a, &a, 0.1), 0.0);
        assert_eq!(furthest(&a, &[], 0.1), f64::INFINITY);
    }

    #[test]
    fn the_grid_finds_what_a_look_at_all_pairs_finds() {
        let points = |count: u32, seed: u32| -> Vec<[f32; 3]> {
            let number = |i: u32| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 24) as f32;
            (0..count).map(|i| [0, 1, 2].map(|axis| number(7 * i + 3 * axis + seed))).collect()
        };
        let (a, b) = (points(300, 1), points(200, 90_001));
        let distance = |p: &[f32; 3], q: &[f32; 3]| {
            p.iter().zip(q).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt()
        };
        let nearest = |p: &[f32; 3]| b.iter().map(|q| distance(p, q)).fold(f64::INFINITY, f64::min);
        let expected = a.iter().map(nearest).fold(0.0, f64::max);
        for cell in [0.02, 0.1, 0.7] {
            assert!((furthest(&a, &b, cell) - expected).abs() < 1e-9, "cells of {cell}");
        }
    }
}
