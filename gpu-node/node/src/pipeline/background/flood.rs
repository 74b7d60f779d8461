//! What hangs together with the picture's border without an edge in between. A lamp's glow or a vignette changes
//! colour as much as a subject does, but never suddenly.

use crate::pipeline::raster::{Raster, box_mean};

/// A step this many times the border's usual one is an edge.
const EDGE_OVER_TEXTURE: f32 = 1.5;

/// The part of the border's steps that count as usual.
const USUAL_PART: f32 = 0.9;

/// The least colour step that counts as an edge, above the noise of eight bits after smoothing.
const EDGE_MIN: f32 = 3.0 / 255.0;

/// Marks the pixels that can be reached across no edge from those of the border that `is_source` names.
pub(super) fn reach_from_border(
    colour: &Raster<[f32; 3]>,
    is_source: impl Fn(usize, usize) -> bool,
) -> Raster<bool> {
    let steps = steps(&box_mean(colour, 1));
    let (width, height) = (colour.width(), colour.height());
    let mut reached = Raster::filled(width, height, false);
    let mut open: Vec<(usize, usize)> = Vec::new();
    for y in 0..height {
        open.extend((0..width).filter(|x| is_source(*x, y)).map(|x| (x, y)));
    }
    let mut usual: Vec<f32> = open.iter().map(|(x, y)| steps.at(*x, *y)).collect();
    if usual.is_empty() {
        return reached;
    }
    let rank = ((usual.len() as f32 * USUAL_PART) as usize).min(usual.len() - 1);
    let edge = EDGE_MIN.max(EDGE_OVER_TEXTURE * *usual.select_nth_unstable_by(rank, f32::total_cmp).1);
    while let Some((x, y)) = open.pop() {
        if reached.at(x, y) || steps.at(x, y) > edge {
            continue;
        }
        reached.samples_mut()[y * width + x] = true;
        let neighbours = [(x.wrapping_sub(1), y), (x + 1, y), (x, y.wrapping_sub(1)), (x, y + 1)];
        open.extend(neighbours.into_iter().filter(|(x, y)| *x < width && *y < height && !reached.at(*x, *y)));
    }
    reached
}

/// The largest colour difference to a neighbour.
pub(super) fn steps(colour: &Raster<[f32; 3]>) -> Raster<f32> {
    let distance = |a: [f32; 3], b: [f32; 3]| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f32>();
    Raster::from_fn(colour.width(), colour.height(), |x, y| {
        let here = colour.at(x, y);
        let (x, y) = (x as isize, y as isize);
        let around = [(x - 1, y), (x + 1, y), (x, y - 1), (x, y + 1)];
        around.into_iter().map(|(x, y)| distance(here, colour.at_clamped(x, y))).fold(0.0, f32::max).sqrt()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_glow_is_reached_and_a_subject_of_its_colour_is_not() {
        let colour = Raster::from_fn(120, 120, |x, y| {
            let radius = (x as f32 - 60.0).hypot(y as f32 - 60.0);
            if radius < 15.0 { [0.2, 0.2, 0.2] } else { [0.9 - radius / 120.0; 3] }
        });
        let reached = reach_from_border(&colour, |x, y| x.min(y) < 3);
        assert!(reached.at(60, 35) && reached.at(5, 5) && !reached.at(60, 60));
    }
}
