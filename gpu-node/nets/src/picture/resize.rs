//! Resampling of eight-bit pictures as OpenCV's `resize` does it.
//!
//! Each output sample is a weighted sum of source samples along each axis.
//! OpenCV computes the source step as the reciprocal of the size ratio, and
//! quantises linear and cubic weights to 1/2048; both show in the result.

use super::Picture;
use std::ops::{AddAssign, Mul};

/// Quantum of linear and cubic weights.
const WEIGHT_SCALE: f64 = 2048.0;
/// OpenCV's cubic kernel.
const CUBIC_A: f32 = -0.75;
/// Shares of a source pixel below this are left out of an area.
const LEAST_SHARE: f64 = 1e-3;

/// Source samples and weights of one output sample.
type Taps = Vec<(usize, f64)>;

/// `INTER_AREA`: the average over each output pixel's area when both sides
/// shrink, otherwise a linear interpolation between areas.
pub fn area(picture: &Picture, width: usize, height: usize) -> Picture {
    if width <= picture.width && height <= picture.height {
        let (columns, rows) = (area_taps(picture.width, width), area_taps(picture.height, height));
        // Single precision throughout, as there.
        return resample(picture, &columns, &rows, |sum: f32| f64::from(sum));
    }
    let (columns, rows) = (linear_taps(picture.width, width), linear_taps(picture.height, height));
    interpolate(picture, &columns, &rows)
}

/// `INTER_CUBIC`
pub fn cubic(picture: &Picture, width: usize, height: usize) -> Picture {
    let (columns, rows) = (cubic_taps(picture.width, width), cubic_taps(picture.height, height));
    resample(picture, &columns, &rows, |sum: f64| sum)
}

/// `INTER_NEAREST`
pub fn nearest(picture: &Picture, width: usize, height: usize) -> Picture {
    let taps = |source: usize, target: usize| -> Vec<Taps> {
        let step = step(source, target);
        (0..target).map(|i| vec![(((i as f64 * step) as usize).min(source - 1), 1.0)]).collect()
    };
    resample(picture, &taps(picture.width, width), &taps(picture.height, height), |sum: f64| sum)
}

/// Source pixels per output pixel: the reciprocal of a quotient, as OpenCV has it.
fn step(source: usize, target: usize) -> f64 {
    1.0 / (target as f64 / source as f64)
}

fn area_taps(source: usize, target: usize) -> Vec<Taps> {
    let step = step(source, target);
    let length = source as f64;
    (0..target)
        .map(|i| {
            let from = i as f64 * step;
            let to = (from + step).min(length);
            let cell = step.min(length - from);
            let last = (to.floor() as usize).min(source - 1);
            let first = (from.ceil() as usize).min(last);
            // Weights are single precision there.
            let share = |pixels: f64| f64::from((pixels / cell) as f32);
            let mut taps = Taps::new();
            if first as f64 - from > LEAST_SHARE {
                taps.push((first - 1, share(first as f64 - from)));
            }
            taps.extend((first..last).map(|source| (source, share(1.0))));
            if to - last as f64 > LEAST_SHARE {
                taps.push((last, share((to - last as f64).min(1.0).min(cell))));
            }
            taps
        })
        .collect()
}

/// Two source samples and their weights in 2048ths.
type FixedTaps = [(usize, i64); 2];

fn linear_taps(source: usize, target: usize) -> Vec<FixedTaps> {
    let ratio = target as f64 / source as f64;
    let step = step(source, target);
    (0..target)
        .map(|i| {
            let first = (i as f64 * step).floor() as usize;
            if first + 1 >= source {
                return [(source - 1, WEIGHT_SCALE as i64), (source - 1, 0)];
            }
            let ahead = ((i + 1) as f64 - (first + 1) as f64 * ratio) as f32;
            let fraction = if ahead <= 0.0 { 0.0 } else { ahead - ahead.floor() };
            let fixed = |weight: f32| (f64::from(weight) * WEIGHT_SCALE).round_ties_even() as i64;
            [(first, fixed(1.0 - fraction)), (first + 1, fixed(fraction))]
        })
        .collect()
}

fn cubic_taps(source: usize, target: usize) -> Vec<Taps> {
    let step = step(source, target);
    (0..target)
        .map(|i| {
            let centre = ((i as f64 + 0.5) * step - 0.5) as f32;
            let first = centre.floor();
            let weights = cubic_weights(centre - first);
            let clamped = |offset: i64| (first as i64 + offset).clamp(0, source as i64 - 1) as usize;
            (0..4).map(|j| (clamped(j as i64 - 1), quantised(f64::from(weights[j])))).collect()
        })
        .collect()
}

/// Weights of the samples at -1, 0, 1 and 2, for a point `x` of the way from 0
/// to 1. In single precision, which decides how ties are quantised.
fn cubic_weights(x: f32) -> [f32; 4] {
    let a = CUBIC_A;
    let outer = |x: f32| ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a;
    let inner = |x: f32| ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
    let (before, here, after) = (outer(x + 1.0), inner(x), inner(1.0 - x));
    [before, here, after, 1.0 - before - here - after]
}

fn quantised(weight: f64) -> f64 {
    (weight * WEIGHT_SCALE).round_ties_even() / WEIGHT_SCALE
}

/// Weighted sums in a type of number, rounded to bytes at the end.
fn resample<N: Copy + Default + AddAssign + Mul<Output = N> + FromTaps>(
    picture: &Picture,
    columns: &[Taps],
    rows: &[Taps],
    finish: impl Fn(N) -> f64,
) -> Picture {
    let channels = picture.channels;
    let stride = columns.len() * channels;
    // Along rows first, keeping the sums unrounded.
    let mut wide = vec![N::default(); picture.height * stride];
    let lines = picture.pixels.chunks_exact(picture.width * channels);
    for (line, sums) in lines.zip(wide.chunks_exact_mut(stride)) {
        for (taps, sums) in columns.iter().zip(sums.chunks_exact_mut(channels)) {
            for &(source, weight) in taps {
                let pixel = &line[source * channels..][..channels];
                for (sum, &value) in sums.iter_mut().zip(pixel) {
                    *sum += N::weight(weight) * N::sample(value);
                }
            }
        }
    }
    let mut pixels = Vec::with_capacity(rows.len() * stride);
    let mut sums = vec![N::default(); stride];
    for taps in rows {
        sums.fill(N::default());
        for &(source, weight) in taps {
            for (sum, &value) in sums.iter_mut().zip(&wide[source * stride..][..stride]) {
                *sum += N::weight(weight) * value;
            }
        }
        pixels.extend(sums.iter().map(|&sum| finish(sum).round_ties_even().clamp(0.0, 255.0) as u8));
    }
    Picture { width: columns.len(), height: rows.len(), channels, pixels }
}

/// Numbers that sums are made in.
trait FromTaps {
    fn weight(weight: f64) -> Self;
    fn sample(value: u8) -> Self;
}

impl FromTaps for f32 {
    fn weight(weight: f64) -> Self {
        weight as f32
    }

    fn sample(value: u8) -> Self {
        f32::from(value)
    }
}

impl FromTaps for f64 {
    fn weight(weight: f64) -> Self {
        weight
    }

    fn sample(value: u8) -> Self {
        f64::from(value)
    }
}

/// Linear interpolation in fixed point. Along columns each product loses its
/// lowest bits before the sum is rounded: OpenCV's vector units are 16 bits wide.
fn interpolate(picture: &Picture, columns: &[FixedTaps], rows: &[FixedTaps]) -> Picture {
    let channels = picture.channels;
    let stride = columns.len() * channels;
    let mut wide = Vec::with_capacity(picture.height * stride);
    for line in picture.pixels.chunks_exact(picture.width * channels) {
        for [(first, a), (second, b)] in columns {
            for channel in 0..channels {
                let sample = |source: usize| i64::from(line[source * channels + channel]);
                wide.push(sample(*first) * a + sample(*second) * b);
            }
        }
    }
    let mut pixels = Vec::with_capacity(rows.len() * stride);
    for [(first, a), (second, b)] in rows {
        for column in 0..stride {
            let part = |source: usize, weight: i64| ((wide[source * stride + column] >> 4) * weight) >> 16;
            pixels.push(((part(*first, *a) + part(*second, *b) + 2) >> 2).clamp(0, 255) as u8);
        }
    }
    Picture { width: columns.len(), height: rows.len(), channels, pixels }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn grey(width: usize, height: usize, pixels: Vec<u8>) -> Picture {
        Picture::new(width, height, 1, pixels).unwrap()
    }

    #[test]
    fn halving_an_area_averages_four_pixels() {
        let picture = grey(4, 2, vec![0, 100, 10, 10, 200, 100, 20, 20]);
        assert_eq!(area(&picture, 2, 1).pixels, [100, 15]);
    }

    #[test]
    fn nearest_takes_pixels_as_they_are() {
        let picture = grey(3, 1, vec![1, 2, 3]);
        assert_eq!(nearest(&picture, 6, 1).pixels, [1, 1, 2, 2, 3, 3]);
    }

    proptest! {
        #[test]
        fn an_even_picture_stays_even(
            value: u8, from in (1..40_usize, 1..40_usize), to in (1..40_usize, 1..40_usize),
        ) {
            let picture = grey(from.0, from.1, vec![value; from.0 * from.1]);
            for resized in [area(&picture, to.0, to.1), cubic(&picture, to.0, to.1), nearest(&picture, to.0, to.1)] {
                prop_assert_eq!((resized.width, resized.height), to);
                // Quantised weights may miss 1 by a few 2048ths.
                prop_assert!(resized.pixels.iter().all(|&got| got.abs_diff(value) <= 1));
            }
        }

        #[test]
        fn the_same_size_changes_nothing(side in 1..20_usize, seed: u8) {
            let pixels: Vec<u8> = (0..side * side).map(|i| (i as u8).wrapping_mul(37).wrapping_add(seed)).collect();
            let picture = grey(side, side, pixels);
            for resized in [area(&picture, side, side), cubic(&picture, side, side), nearest(&picture, side, side)] {
                prop_assert_eq!(&resized, &picture);
            }
        }
    }
}
