//! Signed distance to the outline of a mask, below pixel accuracy, and outlines thick enough for a grid.

use crate::pipeline::raster::Raster;

/// Beyond any distance within a picture, and its square still exact enough in `f32`.
const FAR: f32 = 1e9;

/// Distance from each sample to the outline where the mask passes one half, in samples; positive inside.
pub(super) fn signed_distance(mask: &Raster<f32>) -> Raster<f32> {
    let to_inside = distance_to(&mask.map(|value| value >= 0.5));
    let to_outside = distance_to(&mask.map(|value| value < 0.5));
    // Distances are to sample centres; the outline is half a sample before them.
    let coarse = to_outside.zip(&to_inside, |out, inside| if out > 0.0 { out - 0.5 } else { 0.5 - inside });
    Raster::from_fn(mask.width(), mask.height(), |x, y| {
        let distance = coarse.at(x, y);
        let partly_covered = (0.02..0.98).contains(&mask.at(x, y));
        if partly_covered && distance.abs() < 1.5 { first_order(mask, x, y) } else { distance }
    })
}

/// The distance by the mask's own slope, good where it passes through one half.
fn first_order(mask: &Raster<f32>, x: usize, y: usize) -> f32 {
    let (column, row) = (x as isize, y as isize);
    let here = mask.at(x, y);
    // The steeper side: on the other one, a sharp outline has already reached its end.
    let slope = |dx: isize, dy: isize| {
        let ahead = mask.at_clamped(column + dx, row + dy) - here;
        let behind = here - mask.at_clamped(column - dx, row - dy);
        if ahead.abs() > behind.abs() { ahead } else { behind }
    };
    ((here - 0.5) / slope(1, 0).hypot(slope(0, 1)).max(0.1)).clamp(-1.5, 1.5)
}

/// The tip of a square corner is √2 radii from the nearest disc that fits into it; nothing nearer is thickened.
const CORNER_REACH: f32 = 1.45;

/// The signed distance of the outline with parts that are thinner than `radius_min` thickened to it, so that a grid
/// of about that spacing does not lose or break them. Where the outline is thick enough nothing changes.
pub(super) fn thickened(distance: &Raster<f32>, radius_min: f32) -> Raster<f32> {
    let to_core = distance_to(&distance.map(|d| d >= radius_min));
    // Balls round the ridge of the thin parts; they grow with the way from the thick part, so corners stay corners.
    let ball = |x: usize, y: usize| {
        let d = distance.at(x, y);
        if d <= 0.0 || d >= radius_min || !is_ridge(distance, x, y) {
            return 0.0;
        }
        (d + (to_core.at(x, y) - CORNER_REACH * radius_min).max(0.0)).min(radius_min)
    };
    let balls = Raster::from_fn(distance.width(), distance.height(), ball);
    if balls.samples().iter().all(|radius| *radius == 0.0) {
        return distance.clone();
    }
    // The union of balls by the transform of squared distances with the squared radii taken off (a power diagram).
    let power = lower_envelope(&balls.map(|radius| if radius > 0.0 { -radius * radius } else { FAR }));
    distance.zip(&power, |d, power| {
        if power >= FAR / 2.0 {
            return d;
        }
        // Near a ball of the least radius r, |p|² − r² turns into the distance to its surface.
        let reach = (power + radius_min * radius_min).max(0.0).sqrt();
        d.max(radius_min - reach)
    })
}

/// Whether no neighbour on one of the four lines through the sample lies deeper on either side.
fn is_ridge(distance: &Raster<f32>, x: usize, y: usize) -> bool {
    let (x, y) = (x as isize, y as isize);
    let here = distance.at_clamped(x, y);
    [(1, 0), (0, 1), (1, 1), (1, -1)].into_iter().any(|(dx, dy)| {
        let before = distance.at_clamped(x - dx, y - dy);
        let after = distance.at_clamped(x + dx, y + dy);
        here >= before && here >= after && (here > before || here > after)
    })
}

/// Euclidean distance from each sample to the nearest marked one.
fn distance_to(marked: &Raster<bool>) -> Raster<f32> {
    lower_envelope(&marked.map(|m| if m { 0.0 } else { FAR })).map(f32::sqrt)
}

/// min over q of |p − q|² + f(q), by lower envelopes of parabolas along each axis (Felzenszwalb and Huttenlocher,
/// "Distance Transforms of Sampled Functions", 2012).
fn lower_envelope(field: &Raster<f32>) -> Raster<f32> {
    let rows = transposed_envelopes(field);
    transposed_envelopes(&rows)
}

/// One axis: each row's envelope, written as a column.
fn transposed_envelopes(field: &Raster<f32>) -> Raster<f32> {
    let (width, height) = (field.width(), field.height());
    let mut output = Raster::filled(height, width, 0.0);
    let mut hull = Hull::with_capacity(width);
    for y in 0..height {
        hull.build(field.row(y));
        let samples = output.samples_mut();
        hull.evaluate(width, |x, value| samples[x * height + y] = value);
    }
    output
}

/// Parabolas of the lower envelope from left to right, each with where its reign begins.
struct Hull {
    pieces: Vec<(f32, f32, f32)>,
}

impl Hull {
    fn with_capacity(samples: usize) -> Self {
        Self { pieces: Vec::with_capacity(samples) }
    }

    fn build(&mut self, row: &[f32]) {
        self.pieces.clear();
        for (q, &value) in row.iter().enumerate() {
            if value >= FAR {
                continue;
            }
            let q = q as f32;
            let mut begin = f32::NEG_INFINITY;
            while let Some(&(vertex, vertex_value, vertex_begin)) = self.pieces.last() {
                begin = ((value + q * q) - (vertex_value + vertex * vertex)) / (2.0 * (q - vertex));
                if begin > vertex_begin {
                    break;
                }
                self.pieces.pop();
                begin = f32::NEG_INFINITY;
            }
            self.pieces.push((q, value, begin));
        }
    }

    fn evaluate(&self, samples: usize, mut write: impl FnMut(usize, f32)) {
        let mut piece = 0;
        for x in 0..samples {
            let position = x as f32;
            while self.pieces.get(piece + 1).is_some_and(|next| next.2 <= position) {
                piece += 1;
            }
            let value = self.pieces.get(piece).map_or(FAR, |(q, value, _)| (position - q).powi(2) + value);
            write(x, value.min(FAR));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disc(side: usize, centre: (f32, f32), radius: f32) -> Raster<f32> {
        Raster::from_fn(side, side, |x, y| {
            (0.5 + radius - (x as f32 + 0.5 - centre.0).hypot(y as f32 + 0.5 - centre.1)).clamp(0.0, 1.0)
        })
    }

    #[test]
    fn distance_to_a_disc_is_accurate_below_a_pixel() {
        let (centre, radius) = ((40.3, 39.1), 25.7);
        let distance = signed_distance(&disc(80, centre, radius));
        for y in 0..80 {
            for x in 0..80 {
                let exact = radius - (x as f32 + 0.5 - centre.0).hypot(y as f32 + 0.5 - centre.1);
                let error = (distance.at(x, y) - exact).abs();
                let allowed = if exact.abs() < 0.4 { 0.25 } else { 0.8 };
                assert!(error < allowed, "{error} at {x}, {y}, {exact} from the outline");
            }
        }
    }

    #[test]
    fn lower_envelope_is_the_minimum_over_all_samples() {
        let field =
            Raster::from_fn(13, 9, |x, y| if (x * 5 + y * 3) % 7 == 0 { ((x + y) % 4) as f32 } else { FAR });
        let envelope = lower_envelope(&field);
        for y in 0..9 {
            for x in 0..13 {
                let mut least = FAR;
                for v in 0..9 {
                    for u in 0..13 {
                        let squared = (x as f32 - u as f32).powi(2) + (y as f32 - v as f32).powi(2);
                        least = least.min(squared + field.at(u, v));
                    }
                }
                assert!((envelope.at(x, y) - least).abs() < 1e-3);
            }
        }
    }

    #[test]
    fn wires_are_thickened_and_bodies_are_not() {
        let mask = Raster::from_fn(100, 60, |x, y| match (x, y) {
            (10..50, 10..50) | (50..95, 29..31) => 1.0,
            _ => 0.0,
        });
        let before = signed_distance(&mask);
        let after = thickened(&before, 4.0);
        assert!(after.at(80, 27) > 0.5 && after.at(80, 24) < -0.5 && before.at(80, 27) < -0.5);
        assert!((16..44).all(|y| (after.at(8, y) - before.at(8, y)).abs() < 1e-3));
        assert!(after.at(8, 8) < -0.5, "the corner grew");
    }
}
