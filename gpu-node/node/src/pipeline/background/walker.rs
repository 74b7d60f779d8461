//! Random walker segmentation with priors (Grady, "Multilabel Random Walker Image Segmentation Using Prior Models",
//! 2005): the probability that a walker who starts at a pixel, crosses colour edges reluctantly, and is caught by
//! the prior's beliefs on his way, ends in the foreground. One symmetric linear system with a unique solution, so
//! nothing shrinks thin parts away as a minimal cut would.

use crate::pipeline::raster::Raster;

/// Over-relaxation: near the optimum for fields of a few hundred pixels whose beliefs are mostly firm.
const RELAXATION: f32 = 1.6;

/// What a pixel believes before it has seen its neighbours.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Belief {
    /// Probability of foreground.
    pub(super) foreground: f32,
    /// How firmly, against the links to the neighbours, whose strength is at most one each.
    pub(super) weight: f32,
}

/// The probability of foreground after `sweeps` over both colours of the checkerboard, from `start`, which only
/// decides how many are needed.
pub(super) fn walk(
    colour: &Raster<[f32; 3]>,
    beliefs: &Raster<Belief>,
    start: Raster<f32>,
    sweeps: usize,
) -> Raster<f32> {
    let (width, height) = (colour.width(), colour.height());
    let system = System::new(&Links::between(colour), beliefs);
    let mut field = start;
    for _ in 0..sweeps {
        for parity in 0..2 {
            for y in 0..height {
                system.relax_row(field.samples_mut(), width, y, (y + parity) % 2);
            }
        }
    }
    field.map(|value| value.clamp(0.0, 1.0))
}

/// What one pixel is drawn to: `value = own + left·l + right·r + up·u + down·d`.
#[derive(Clone, Copy)]
struct Pull {
    own: f32,
    left: f32,
    right: f32,
    up: f32,
    down: f32,
}

struct System {
    pulls: Vec<Pull>,
}

impl System {
    fn new(links: &Links, beliefs: &Raster<Belief>) -> System {
        let (width, height) = (beliefs.width(), beliefs.height());
        // Links across the border are zero, so the neighbour that is read there does not count.
        let pull = |x: usize, y: usize| {
            let index = y * width + x;
            let belief = beliefs.at(x, y);
            let left = if x > 0 { links.right[index - 1] } else { 0.0 };
            let right = links.right[index];
            let up = if y > 0 { links.down[index - width] } else { 0.0 };
            let down = links.down[index];
            let scale = 1.0 / (belief.weight + left + right + up + down);
            Pull {
                own: belief.weight * belief.foreground * scale,
                left: left * scale,
                right: right * scale,
                up: up * scale,
                down: down * scale,
            }
        };
        System { pulls: Raster::from_fn(width, height, pull).samples().to_vec() }
    }

    /// Every second pixel of a row, from `first`.
    fn relax_row(&self, field: &mut [f32], width: usize, y: usize, first: usize) {
        let start = y * width;
        let last = field.len() - 1;
        for index in (start + first..start + width).step_by(2) {
            let pull = &self.pulls[index];
            let target = pull.own
                + pull.left * field[index.saturating_sub(1)]
                + pull.right * field[(index + 1).min(last)]
                + pull.up * field[index.saturating_sub(width)]
                + pull.down * field[(index + width).min(last)];
            field[index] += RELAXATION * (target - field[index]);
        }
    }
}

/// How easily a walker passes between neighbours.
struct Links {
    right: Vec<f32>,
    down: Vec<f32>,
}

/// Links across the strongest edges keep this much, so that isolated noise does not become a pixel of its own.
const LINK_MIN: f32 = 0.003;

impl Links {
    fn between(colour: &Raster<[f32; 3]>) -> Links {
        let (width, height) = (colour.width(), colour.height());
        let difference =
            |a: [f32; 3], b: [f32; 3]| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f32>();
        let mut right = vec![0.0; width * height];
        let mut down = vec![0.0; width * height];
        for y in 0..height {
            for x in 0..width {
                let here = colour.at(x, y);
                if x + 1 < width {
                    right[y * width + x] = difference(here, colour.at(x + 1, y));
                }
                if y + 1 < height {
                    down[y * width + x] = difference(here, colour.at(x, y + 1));
                }
            }
        }
        let total: f32 = right.iter().chain(&down).sum();
        // The mean squared difference sets the scale, as in GrabCut; the floor is the noise of eight bits.
        let mean = (total / (2 * width * height) as f32).max(2e-5);
        let strength = |squared: &mut f32| *squared = (-*squared / (2.0 * mean)).exp().max(LINK_MIN);
        right.iter_mut().chain(&mut down).for_each(strength);
        // Nothing is linked across the border.
        (0..height).for_each(|y| right[(y + 1) * width - 1] = 0.0);
        down[(height - 1) * width..].fill(0.0);
        Links { right, down }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn undecided_pixels_follow_their_side_of_the_edge() {
        let colour = Raster::from_fn(24, 20, |x, _| if x < 13 { [0.2; 3] } else { [0.8; 3] });
        let beliefs = Raster::from_fn(24, 20, |x, _| match x {
            0..2 => Belief { foreground: 0.0, weight: 1.0 },
            22.. => Belief { foreground: 1.0, weight: 1.0 },
            _ => Belief { foreground: 0.5, weight: 0.0001 },
        });
        let field = walk(&colour, &beliefs, Raster::filled(24, 20, 0.5), 40);
        for y in 0..20 {
            assert!(field.at(11, y) < 0.4 && field.at(14, y) > 0.6);
        }
    }
}
