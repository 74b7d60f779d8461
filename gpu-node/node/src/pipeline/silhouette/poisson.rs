//! Poisson's equation inside an outline, in tensor operations on the device.
//!
//! ∇²h = −1 with h = 0 on the outline, which runs between the samples: a face that the outline cuts at the part θ
//! has the weight 1/θ (Gibou, Fedkiw, Cheng and Kang, "A Second-Order-Accurate Symmetric Discretization of the
//! Poisson Equation on Irregular Domains", 2002). Conjugate gradients solve it from the coarsest grid to the
//! finest, each solution starting the next.

use tch::{Kind, Tensor};

use crate::pipeline::PipelineError;

/// A grid this small is solved from nothing.
const COARSEST_SIDE: i64 = 24;

/// A cut face's weight stays below the inverse of this; the outline moves by less than a twentieth of a cell.
const CUT_MIN: f64 = 0.05;

/// Residual, relative to the right-hand side, at which the height is right to a fraction of a per cent.
const TOLERANCE: f64 = 1e-3;

/// Least divisor: where the outline holds so few samples that they are solved exactly between two looks at the
/// residual, the energies are zero, and so must the steps be. Far below any energy of one sample, far above what
/// underflows in single precision.
const DIVISOR_MIN: f64 = 1e-30;

/// Iterations between looks at the residual and at the cancel flag: on a GPU, looking waits for the device.
const ITERATIONS_PER_CHECK: u16 = 8;

/// Solves on the grid of `distance`, the signed distance to the outline in cells (positive inside), with at most
/// `iterations` steps of the solver on each grid. The height is in square cells and zero outside; the outermost
/// samples must be outside.
///
/// # Errors
/// What `check` answers, which is asked every few iterations.
pub(super) fn solve(
    distance: &Tensor,
    iterations: u16,
    check: &mut dyn FnMut() -> Result<(), PipelineError>,
) -> Result<Tensor, PipelineError> {
    let size = distance.size();
    let (rows, columns) = (size[0], size[1]);
    let start = if rows.min(columns) > COARSEST_SIDE {
        let halved = distance.unsqueeze(0).unsqueeze(0).adaptive_avg_pool2d([rows / 2, columns / 2]) * 0.5;
        // Lengths count half on the coarse grid, heights are squares of lengths.
        let coarse = solve(&halved.squeeze_dim(0).squeeze_dim(0), iterations, check)?;
        coarse.unsqueeze(0).unsqueeze(0).upsample_bilinear2d([rows, columns], false, None, None).squeeze()
            * 4.0
    } else {
        distance.zeros_like()
    };
    conjugate_gradients(&Operator::new(distance), &start, iterations, check)
}

fn conjugate_gradients(
    operator: &Operator,
    start: &Tensor,
    iterations: u16,
    check: &mut dyn FnMut() -> Result<(), PipelineError>,
) -> Result<Tensor, PipelineError> {
    let mut height = start * &operator.inside;
    let mut residual = &operator.inside - operator.apply(&height);
    let mut preconditioned = &residual * &operator.inverse_diagonal;
    let mut direction = preconditioned.copy();
    let mut energy = dot(&residual, &preconditioned);
    let enough = TOLERANCE * operator.inside.norm().double_value(&[]);
    for iteration in 0..iterations {
        if iteration % ITERATIONS_PER_CHECK == 0 {
            check()?;
            if residual.norm().double_value(&[]) <= enough {
                break;
            }
        }
        let image = operator.apply(&direction);
        let step = &energy / dot(&direction, &image).clamp_min(DIVISOR_MIN);
        height += &direction * &step;
        residual -= image * &step;
        preconditioned = &residual * &operator.inverse_diagonal;
        let next_energy = dot(&residual, &preconditioned);
        direction = &preconditioned + direction * (&next_energy / energy.clamp_min(DIVISOR_MIN));
        energy = next_energy;
    }
    Ok(height)
}

fn dot(a: &Tensor, b: &Tensor) -> Tensor {
    (a * b).sum(Kind::Float)
}

/// The negative Laplacian on the inside samples.
struct Operator {
    /// One inside, zero outside.
    inside: Tensor,
    /// The sum of the face weights; one outside.
    diagonal: Tensor,
    inverse_diagonal: Tensor,
}

impl Operator {
    fn new(distance: &Tensor) -> Self {
        let inside = distance.gt(0.0).to_kind(Kind::Float);
        let mut diagonal = distance.zeros_like();
        for neighbour in neighbours(distance) {
            // Where the neighbour is outside, the outline cuts the way to it at d / (d − d').
            let cut = (distance / (distance - &neighbour).clamp_min(1e-6)).clamp(CUT_MIN, 1.0);
            diagonal +=
                neighbour.gt(0.0).to_kind(Kind::Float).where_self(&neighbour.gt(0.0), &cut.reciprocal());
        }
        let diagonal = diagonal.where_self(&distance.gt(0.0), &distance.ones_like());
        let inverse_diagonal = diagonal.reciprocal();
        Self { inside, diagonal, inverse_diagonal }
    }

    /// For a field that is zero outside; the image is so as well.
    fn apply(&self, field: &Tensor) -> Tensor {
        let [left, right, up, down] = neighbours(field);
        (&self.diagonal * field - (left + right + up + down)) * &self.inside
    }
}

/// The fields of the four neighbours' values; zero beyond the border.
fn neighbours(field: &Tensor) -> [Tensor; 4] {
    let size = field.size();
    let padded = field.constant_pad_nd([1, 1, 1, 1]);
    let part = |row: i64, column: i64| padded.narrow(0, row, size[0]).narrow(1, column, size[1]);
    [part(0, 1), part(2, 1), part(1, 0), part(1, 2)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disc(side: i64, centre: (f64, f64), radius: f64) -> Tensor {
        let x = Tensor::arange(side, (Kind::Float, tch::Device::Cpu)).unsqueeze(1) - centre.0;
        let y = Tensor::arange(side, (Kind::Float, tch::Device::Cpu)).unsqueeze(0) - centre.1;
        radius - (x.square() + y.square()).sqrt()
    }

    #[test]
    fn height_over_a_disc_is_the_paraboloid() {
        let (centre, radius) = ((50.3, 48.9), 40.2);
        let distance = disc(100, centre, radius);
        let height = solve(&distance, 400, &mut || Ok(())).unwrap();
        for (x, y) in [(50, 48), (20, 48), (50, 85), (75, 70), (50, 10)] {
            let squared = (x as f64 - centre.0).powi(2) + (y as f64 - centre.1).powi(2);
            let exact = (radius * radius - squared) / 4.0;
            let found = height.double_value(&[x, y]);
            assert!((found - exact).abs() < 0.01 * radius * radius / 4.0, "{found} for {exact} at {x}, {y}");
        }
        assert_eq!(height.double_value(&[0, 0]), 0.0);
    }

    #[test]
    fn an_outline_of_a_few_samples_is_solved_without_dividing_by_zero() {
        for (inside, side) in [(1, 30), (2, 30), (5, 30), (5, 120)] {
            let line = Tensor::full([side, side], -0.5, (Kind::Float, tch::Device::Cpu));
            let mut samples = line.narrow(0, 10, inside).narrow(1, 10, 1);
            let _ = samples.fill_(0.5);
            let height = solve(&line, 50, &mut || Ok(())).unwrap();
            let (least, greatest) = (height.min().double_value(&[]), height.max().double_value(&[]));
            assert!(
                least >= 0.0 && greatest > 0.0 && greatest < 1.0,
                "{inside} of {side}: {least} to {greatest}"
            );
        }
    }

    #[test]
    fn cancelling_stops_the_solver() {
        let mut asked = 0;
        let outcome = solve(&disc(64, (32.0, 32.0), 28.0), 200, &mut || {
            asked += 1;
            if asked == 3 { Err(PipelineError::Cancelled) } else { Ok(()) }
        });
        assert!(matches!(outcome, Err(PipelineError::Cancelled)));
        assert_eq!(asked, 3);
    }
}
