//! Points of a regular grid.

use tch::{Device, Kind, Tensor};

/// The points of a cube from `-bound` to `bound` with `resolution` cells to a
/// side, numbered `(x·n + y)·n + z` with `n = resolution + 1`.
#[derive(Debug)]
pub struct Grid {
    points_per_side: i64,
    /// `[n]`: coordinates along a side.
    axis: Tensor,
}

impl Grid {
    /// Coordinates are computed in `f64` and rounded to `f32` once, as NumPy's `linspace` does.
    pub fn new(bound: f64, resolution: i64, device: Device) -> Self {
        let step = 2.0 * bound / resolution as f64;
        let mut axis: Vec<f32> = (0..resolution).map(|i| (i as f64 * step - bound) as f32).collect();
        axis.push(bound as f32);
        Self { points_per_side: resolution + 1, axis: Tensor::from_slice(&axis).to_device(device) }
    }

    /// Points to a side.
    pub fn points_per_side(&self) -> i64 {
        self.points_per_side
    }

    /// All points.
    pub fn len(&self) -> i64 {
        self.points_per_side.pow(3)
    }

    /// Whether there are no points; a grid always has some.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Points by number: `[P]` in `i64` → `[P, 3]` in `f32`.
    pub fn points(&self, numbers: &Tensor) -> Tensor {
        let n = self.points_per_side;
        let x = numbers.divide_scalar_mode(n * n, "floor");
        let y = numbers.divide_scalar_mode(n, "floor").remainder(n);
        let z = numbers.remainder(n);
        Tensor::stack(&[x, y, z].map(|index| self.axis.index_select(0, &index)), 1)
    }

    /// Points `first..first + count`.
    pub fn range(&self, first: i64, count: i64) -> Tensor {
        self.points(&Tensor::arange_start(first, first + count, (Kind::Int64, self.axis.device())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_run_with_z_fastest_from_corner_to_corner() {
        let grid = Grid::new(1.01, 2, Device::Cpu);
        let all = grid.range(0, grid.len());
        let at = |i: i64| Vec::<f32>::try_from(all.get(i)).unwrap();
        assert_eq!(at(0), [-1.01, -1.01, -1.01]);
        assert_eq!(at(1), [-1.01, -1.01, 0.0]);
        assert_eq!(at(3), [-1.01, 0.0, -1.01]);
        assert_eq!(at(26), [1.01, 1.01, 1.01]);
    }
}
