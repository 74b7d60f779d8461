//! From the height field to a volume whose zero level is the surface.
//!
//! With H the squared half thickness, the surface z = ±√H is the zero level of H − z², which stays smooth where
//! the two halves meet: H falls through zero at the outline with a finite slope, its root with an infinite one.

use tch::{Kind, Tensor};

/// H = 3h: a disc becomes a spheroid a little flatter than a ball, a long bar is about as thick as it is wide.
const ROUNDNESS: f64 = 3.0;

/// Thickness levels off at this many times the radius of the largest disc within the outline: wide things are not
/// blown up like balloons.
const HALF_DEPTH_PER_INRADIUS: f64 = 1.0;

/// Cells around the outline whose slope continues the field outwards.
const EXTENSION_RADIUS: i64 = 3;

/// A dense volume, positive inside; z runs fastest, and the middle sample along z is the picture's plane.
pub(super) struct LevelSet {
    pub(super) dims: [usize; 3],
    pub(super) samples: Tensor,
}

/// `height` solves ∇²h = −1 on the grid of `distance`, both indexed `[x][y]`; lengths are in cells.
pub(super) fn inflate(distance: &Tensor, height: &Tensor) -> LevelSet {
    let squared = extended(distance, &levelled(distance, height));
    let half_depth = squared.max().double_value(&[]).max(0.0).sqrt();
    // Two samples of air before and behind.
    let half_samples = half_depth.ceil() as i64 + 2;
    let size = squared.size();
    let z = Tensor::arange_start(-half_samples, half_samples + 1, (Kind::Float, squared.device()));
    let z_squared = z.square().reshape([1, 1, -1]);
    // Divided by the length of its gradient, the field is close to a distance, which surfaces interpolate best.
    let slope_squared = gradient_squared(&squared).unsqueeze(2) + &z_squared * 4.0 + 1.0;
    let samples = (squared.unsqueeze(2) - &z_squared) * slope_squared.rsqrt();
    LevelSet { dims: [size[0] as usize, size[1] as usize, (2 * half_samples + 1) as usize], samples }
}

/// The squared half thickness: H / (1 + H / D²) for the depth D at which it levels off.
fn levelled(distance: &Tensor, height: &Tensor) -> Tensor {
    let depth = HALF_DEPTH_PER_INRADIUS * distance.max().double_value(&[]).max(1.0);
    let inflated = height * ROUNDNESS;
    &inflated / (&inflated / (depth * depth) + 1.0)
}

/// The field inside, continued outside with the slope that it has at the outline nearby.
fn extended(distance: &Tensor, squared: &Tensor) -> Tensor {
    let inside = distance.gt(0.0);
    let weight = inside.to_kind(Kind::Float);
    let slope = squared / distance.clamp_min(0.1) * &weight;
    let window = 2 * EXTENSION_RADIUS + 1;
    let mean = |field: &Tensor| {
        let field = field.unsqueeze(0).unsqueeze(0);
        let mean = field.avg_pool2d([window; 2], [1, 1], [EXTENSION_RADIUS; 2], false, true, None);
        mean.squeeze_dim(0).squeeze_dim(0)
    };
    let covered = mean(&weight);
    let overall = slope.sum(Kind::Float) / weight.sum(Kind::Float).clamp_min(1.0);
    let nearby = (mean(&slope) / covered.clamp_min(1e-6)).where_self(&covered.gt(0.0), &overall);
    squared.where_self(&inside, &(nearby * distance.clamp_max(0.0)))
}

fn gradient_squared(field: &Tensor) -> Tensor {
    let size = field.size();
    let padded =
        field.unsqueeze(0).unsqueeze(0).replication_pad2d([1, 1, 1, 1]).squeeze_dim(0).squeeze_dim(0);
    let part = |row: i64, column: i64| padded.narrow(0, row, size[0]).narrow(1, column, size[1]);
    let x = (part(2, 1) - part(0, 1)) * 0.5;
    let y = (part(1, 2) - part(1, 0)) * 0.5;
    x.square() + y.square()
}
