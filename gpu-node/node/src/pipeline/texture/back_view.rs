//! What the picture does not show: the back, painted with the colours of the belt between the outline and the
//! middle of the front.
//!
//! Averages of unlike colours are mud. So the belt's colours are sorted into a palette, the paints are spread over
//! the back separately, and each place takes mostly the paint that has the greatest share there: patches of clean
//! colour with soft borders.

use super::pyramid::Pyramid;
use crate::pipeline::PipelineError;
use crate::pipeline::raster::{Raster, Sample};
use crate::pipeline::stage::Tick;

/// Paints of a palette: two pyramids hold three shares each.
const PAINTS: usize = 6;

/// Colours that a palette is made of; more only cost time.
const COLOURS_MAX: usize = 4000;

/// Rounds of k-means.
const ROUNDS: usize = 6;

/// Weight beyond which a pixel's colour belongs into the palette.
const WEIGHT_MIN: f32 = 0.05;

/// How decidedly the greatest share wins, as an exponent.
const DECISION: i32 = 4;

/// A colour spread smoothly from where it has weight, and averaged over about 2^`blur` pixels.
///
/// # Errors
/// What `tick` answers.
pub(super) fn spread(
    colours: &Raster<[f32; 3]>,
    weights: &Raster<f32>,
    blur: usize,
    tick: &mut Tick<'_>,
) -> Result<Raster<[f32; 3]>, PipelineError> {
    tick(0.0)?;
    let palette = palette(colours, weights);
    tick(0.2)?;
    let nearest = colours.map(|colour| nearest(&palette, colour));
    let shares = [0, 3].map(|first| {
        let three = |paint: usize| [0, 1, 2].map(|k| if paint == first + k { 1.0 } else { 0.0 });
        let weighted = nearest.zip(weights, |paint, weight| (three(paint), weight));
        Pyramid::new(&weighted).blurred(blur)
    });
    // A paint is not one colour: light and shade of the belt go with it.
    let mut paints: Vec<Raster<[f32; 3]>> = Vec::with_capacity(palette.len());
    for paint in 0..palette.len() {
        tick(0.4 + 0.4 * paint as f32 / palette.len() as f32)?;
        let weight_of = nearest.zip(weights, |other, weight| if other == paint { weight } else { 0.0 });
        let weighted = colours.zip(&weight_of, |colour, weight| (colour, weight));
        paints.push(Pyramid::new(&weighted).blurred(blur));
    }
    tick(0.8)?;
    Ok(Raster::from_fn(colours.width(), colours.height(), |x, y| {
        let (first, second) = (shares[0].at(x, y), shares[1].at(x, y));
        let (mut sum, mut total) = ([0.0; 3], 1e-9);
        for (paint, share) in paints.iter().zip(first.into_iter().chain(second)) {
            let weight = share.max(0.0).powi(DECISION);
            sum = sum.add(paint.at(x, y).scale(weight));
            total += weight;
        }
        sum.scale(1.0 / total)
    }))
}

/// At most [`PAINTS`] colours: k-means from the colours that are farthest apart. The same picture gives the same.
fn palette(colours: &Raster<[f32; 3]>, weights: &Raster<f32>) -> Vec<[f32; 3]> {
    let pairs = colours.samples().iter().zip(weights.samples());
    let heavy: Vec<[f32; 3]> = pairs.filter(|(_, weight)| **weight > WEIGHT_MIN).map(|(c, _)| *c).collect();
    let stride = heavy.len().div_ceil(COLOURS_MAX).max(1);
    let samples: Vec<[f32; 3]> = heavy.into_iter().step_by(stride).collect();
    let mean = samples
        .iter()
        .fold([0.0; 3], |sum, colour| sum.add(*colour))
        .scale(1.0 / samples.len().max(1) as f32);
    let mut palette = vec![mean];
    while palette.len() < PAINTS {
        let apart = |colour: &[f32; 3]| palette.iter().map(|p| squared(*p, *colour)).fold(f32::MAX, f32::min);
        match samples.iter().map(|colour| (apart(colour), *colour)).max_by(|a, b| a.0.total_cmp(&b.0)) {
            Some((distance, colour)) if distance > 1.0 => palette.push(colour),
            _ => break,
        }
    }
    for _ in 0..ROUNDS {
        let mut sums = vec![([0.0; 3], 0.0); palette.len()];
        for colour in &samples {
            let (sum, count) = &mut sums[nearest(&palette, *colour)];
            *sum = sum.add(*colour);
            *count += 1.0;
        }
        for (paint, (sum, count)) in palette.iter_mut().zip(sums) {
            if count > 0.0 {
                *paint = sum.scale(1.0 / count);
            }
        }
    }
    palette
}

fn nearest(palette: &[[f32; 3]], colour: [f32; 3]) -> usize {
    let mut best = (f32::MAX, 0);
    for (index, paint) in palette.iter().enumerate() {
        let distance = squared(*paint, colour);
        if distance < best.0 {
            best = (distance, index);
        }
    }
    best.1
}

fn squared(a: [f32; 3], b: [f32; 3]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unlike_colours_meet_in_a_border_and_not_in_mud() {
        let (blue, orange) = ([30.0, 60.0, 220.0], [240.0, 140.0, 20.0]);
        let colours = Raster::from_fn(96, 64, |x, _| if x < 48 { blue } else { orange });
        let belt = Raster::from_fn(96, 64, |x, _| if x.min(95 - x) < 10 { 1.0 } else { 0.0 });
        let back = spread(&colours, &belt, 2, &mut |_| Ok(())).unwrap();
        let purity = |colour: [f32; 3]| squared(colour, blue).min(squared(colour, orange)).sqrt();
        let muddy = back.samples().iter().filter(|colour| purity(**colour) > 60.0).count();
        assert!(muddy < 96 * 64 / 4, "{muddy} of {} pixels", 96 * 64);
        assert!(squared(back.at(20, 30), blue) < 100.0 && squared(back.at(80, 30), orange) < 100.0);
    }

    #[test]
    fn a_subject_without_a_belt_still_has_a_colour() {
        let colours = Raster::filled(20, 20, [10.0, 20.0, 30.0]);
        let back = spread(&colours, &Raster::filled(20, 20, 1e-4), 3, &mut |_| Ok(())).unwrap();
        assert!(back.samples().iter().all(|colour| squared(*colour, [10.0, 20.0, 30.0]) < 1.0));
    }
}
