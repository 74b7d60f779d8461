//! Shadows that the subject casts on the backdrop: darker than it by about one factor, and with a soft edge, where a
//! thing has a sharp one. A segmentation by colour takes them for subject.

use super::backdrop::Backdrop;
use super::flood;
use crate::pipeline::raster::{Raster, box_mean};

/// A shadow leaves between these parts of the backdrop's light.
const LIGHT: std::ops::Range<f32> = 0.4..0.97;

/// How far the channels' parts may differ, and by how much of the missing light: light from the sky is coloured.
const HUE_SHIFT: f32 = 0.08;
const HUE_SHIFT_PER_LOSS: f32 = 0.7;

/// A part of the mask that is smaller than this much of it is no shadow to care about.
const SIZE_MIN: f32 = 0.003;

/// On the way across a shadow's edge, this many pixels to either side, at most this part of its darkness appears.
const ACROSS: isize = 3;
const STEP_MAX: f32 = 0.6;

/// Shadows are looked for in this part of the subject's height, from below.
const LOW_PART: f32 = 0.4;

/// A step between neighbours, after smoothing, that parts a shadow from the thing that stands in it.
const EDGE: f32 = 0.03;

/// How far such an edge reaches.
const EDGE_PIXELS: isize = 2;

/// Takes cast shadows out of the mask.
pub(super) fn clear(colour: &Raster<[f32; 3]>, backdrop: &Backdrop, mask: &mut Raster<f32>) {
    let residual = backdrop.residual(colour);
    let darkness = residual.map(|[r, g, b]| (r * r + g * g + b * b).sqrt());
    let in_mask = mask.map(|value| value >= 0.5);
    let Some((low, total)) = low_rows(&in_mask) else { return };
    let shade = Raster::from_fn(colour.width(), colour.height(), |x, y| {
        y >= low && in_mask.at(x, y) && is_shade(colour.at(x, y), residual.at(x, y))
    });
    let steps = flood::steps(&box_mean(colour, 1));
    for part in parts(&shade.zip(&steps, |shade, step| shade && step <= EDGE)) {
        let is_small = (part.len() as f32) < SIZE_MIN * total as f32;
        if !is_small && has_soft_edge(&part, &in_mask, &darkness) {
            remove(&part, &shade, mask);
        }
    }
}

/// Takes a part out of the mask, and its edges with it.
fn remove(part: &[(usize, usize)], shade: &Raster<bool>, mask: &mut Raster<f32>) {
    let width = mask.width();
    for &(x, y) in part {
        for dy in -EDGE_PIXELS..=EDGE_PIXELS {
            for dx in -EDGE_PIXELS..=EDGE_PIXELS {
                let (Some(x), Some(y)) = (x.checked_add_signed(dx), y.checked_add_signed(dy)) else {
                    continue;
                };
                if x < width && y < mask.height() && shade.at(x, y) {
                    mask.samples_mut()[y * width + x] = 0.0;
                }
            }
        }
    }
}

fn is_shade(colour: [f32; 3], residual: [f32; 3]) -> bool {
    let parts = [0, 1, 2].map(|channel| colour[channel] / (colour[channel] - residual[channel]).max(0.02));
    let mean = parts.iter().sum::<f32>() / 3.0;
    let shift = parts.iter().fold(0.0_f32, |most, part| most.max((part - mean).abs()));
    LIGHT.contains(&mean) && shift <= HUE_SHIFT + HUE_SHIFT_PER_LOSS * (1.0 - mean)
}

/// Where the lower part of the mask's extent begins, and the mask's size.
fn low_rows(mask: &Raster<bool>) -> Option<(usize, usize)> {
    let holds = |y: &usize| mask.row(*y).iter().any(|inside| *inside);
    let first = (0..mask.height()).find(holds)?;
    let last = (0..mask.height()).rev().find(holds)?;
    let low = last - ((last - first) as f32 * LOW_PART) as usize;
    Some((low, mask.samples().iter().filter(|inside| **inside).count()))
}

/// Whether the edge towards the background is gradual.
fn has_soft_edge(part: &[(usize, usize)], mask: &Raster<bool>, darkness: &Raster<f32>) -> bool {
    let at = |(x, y): (isize, isize)| darkness.at_clamped(x, y);
    let (mut steps, mut count) = (0.0, 0.0);
    for &(x, y) in part {
        let (x, y) = (x as isize, y as isize);
        for (dx, dy) in [(1, 0), (-1, 0), (0, 1), (0, -1)] {
            if !mask.at_clamped(x + dx, y + dy) {
                let inner = at((x - ACROSS * dx, y - ACROSS * dy));
                steps += inner - at((x + ACROSS * dx, y + ACROSS * dy));
                count += 1.0;
            }
        }
    }
    let mean = part.iter().map(|(x, y)| darkness.at(*x, *y)).sum::<f32>() / part.len().max(1) as f32;
    // What has no edge towards the background lies within the subject.
    count >= (part.len() as f32).sqrt() && steps / count <= STEP_MAX * mean
}

/// The connected parts, as lists of places.
fn parts(marked: &Raster<bool>) -> Vec<Vec<(usize, usize)>> {
    let (width, height) = (marked.width(), marked.height());
    let mut open = marked.clone();
    let mut parts = Vec::new();
    for start in 0..width * height {
        if !std::mem::replace(&mut open.samples_mut()[start], false) {
            continue;
        }
        let mut part = vec![(start % width, start / width)];
        let mut done = 0;
        while let Some(&(x, y)) = part.get(done) {
            done += 1;
            for (x, y) in [(x.wrapping_sub(1), y), (x + 1, y), (x, y.wrapping_sub(1)), (x, y + 1)] {
                if x < width && y < height && std::mem::replace(&mut open.samples_mut()[y * width + x], false)
                {
                    part.push((x, y));
                }
            }
        }
        parts.push(part);
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::super::backdrop::Observation;
    use super::*;

    /// A red ball on a bluish ground, with something dark to its right whose edge is as wide as `softness`.
    fn scene(softness: f32) -> Raster<[f32; 3]> {
        Raster::from_fn(120, 100, |x, y| {
            let (x, y) = (x as f32, y as f32);
            if (x - 50.0).hypot(y - 45.0) < 25.0 {
                return [0.8, 0.2, 0.1];
            }
            let away = (x - 75.0).hypot((y - 70.0) * 1.6) - 24.0;
            let shade = 1.0 - 0.4 * (0.5 - away / softness).clamp(0.0, 1.0);
            [0.6 * shade, 0.7 * shade, 0.8 * shade]
        })
    }

    fn shade_left(softness: f32) -> f32 {
        let colour = scene(softness);
        let ground = [Observation { position: [0.5; 2], colour: [0.6, 0.7, 0.8] }];
        let (backdrop, _) = Backdrop::fit(&ground).unwrap();
        let mut mask =
            backdrop.residual(&colour).map(|r| f32::from(u8::from(r.iter().any(|v| v.abs() > 0.1))));
        clear(&colour, &backdrop, &mut mask);
        assert!(mask.at(50, 45) == 1.0 && mask.at(30, 45) == 1.0, "the ball stays");
        mask.at(85, 70)
    }

    #[test]
    fn a_soft_shadow_goes_and_a_sharp_thing_of_its_colour_stays() {
        assert_eq!(shade_left(40.0), 0.0);
        assert_eq!(shade_left(1.0), 1.0);
    }
}
