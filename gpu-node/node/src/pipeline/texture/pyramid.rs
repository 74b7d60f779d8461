//! Pull-push pyramids (Gortler, Grzeszczuk, Szeliski and Cohen, "The Lumigraph", 1996): colours where there are
//! some, a smooth continuation of them everywhere else, and blurred copies of both.

use crate::pipeline::raster::{Raster, Sample};

/// Colours with the weight that each one has.
pub(super) type Weighted = Raster<([f32; 3], f32)>;

/// The levels from the finest to a single pixel; every pixel of every level has a colour.
pub(super) struct Pyramid {
    levels: Vec<Raster<[f32; 3]>>,
}

impl Pyramid {
    /// Pulls averages up to the top, then pushes them down into what has no weight.
    pub(super) fn new(colours: &Weighted) -> Pyramid {
        let mut pulled = vec![colours.map(|(colour, weight)| premultiplied(colour, weight.min(1.0)))];
        while let Some(finest) = pulled.last().filter(|level| level.width().max(level.height()) > 1) {
            pulled.push(halved(finest));
        }
        let mut levels: Vec<Raster<[f32; 3]>> = Vec::with_capacity(pulled.len());
        for level in pulled.iter().rev() {
            let filled = match levels.last() {
                None => level.map(|[r, g, b, w]| [r, g, b].scale(1.0 / w.max(1e-6))),
                Some(coarse) => Raster::from_fn(level.width(), level.height(), |x, y| {
                    let [r, g, b, w] = level.at(x, y);
                    if w >= 1.0 {
                        return [r, g, b];
                    }
                    [r, g, b].add(between(coarse, x, y).scale(1.0 - w))
                }),
            };
            levels.push(filled);
        }
        levels.reverse();
        Pyramid { levels }
    }

    /// The colour at a position in pixels of the finest level, averaged over about 2^`blur` pixels.
    pub(super) fn sample(&self, x: f32, y: f32, blur: f32) -> [f32; 3] {
        let blur = blur.clamp(0.0, (self.levels.len() - 1) as f32);
        let level = blur as usize;
        let fine = self.at_level(x, y, level);
        let part = blur - level as f32;
        if part == 0.0 { fine } else { fine.lerp(self.at_level(x, y, level + 1), part) }
    }

    /// The finest level.
    pub(super) fn filled(&self) -> &Raster<[f32; 3]> {
        &self.levels[0]
    }

    /// The finest level rebuilt from the one `level` steps up, smoothly.
    pub(super) fn blurred(&self, level: usize) -> Raster<[f32; 3]> {
        let level = level.min(self.levels.len() - 1);
        let mut field = self.levels[level].clone();
        for finer in self.levels[..level].iter().rev() {
            field = Raster::from_fn(finer.width(), finer.height(), |x, y| between(&field, x, y));
        }
        field
    }

    fn at_level(&self, x: f32, y: f32, level: usize) -> [f32; 3] {
        let scale = 0.5_f32.powi(level as i32);
        self.levels[level].bilinear(x * scale, y * scale)
    }
}

fn premultiplied([r, g, b]: [f32; 3], weight: f32) -> [f32; 4] {
    [r * weight, g * weight, b * weight, weight]
}

/// Sums of 2 × 2, capped at full weight, so that one good pixel fills its neighbourhood.
fn halved(level: &Raster<[f32; 4]>) -> Raster<[f32; 4]> {
    let (width, height) = (level.width().div_ceil(2), level.height().div_ceil(2));
    Raster::from_fn(width, height, |x, y| {
        let right = (2 * x + 1).min(level.width() - 1);
        let lower = (2 * y + 1).min(level.height() - 1);
        let sum = level
            .at(2 * x, 2 * y)
            .add(level.at(right, 2 * y))
            .add(level.at(2 * x, lower))
            .add(level.at(right, lower));
        if sum[3] > 1.0 { sum.scale(1.0 / sum[3]) } else { sum }
    })
}

/// The coarse level at a pixel of the next finer one.
fn between(coarse: &Raster<[f32; 3]>, x: usize, y: usize) -> [f32; 3] {
    coarse.bilinear((x as f32 + 0.5) * 0.5, (y as f32 + 0.5) * 0.5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weighted_pixels_stay_and_the_rest_continues_them() {
        let colours = Raster::from_fn(33, 21, |x, _| match x {
            0..8 => ([1.0, 0.0, 0.0], 1.0),
            25.. => ([0.0, 0.0, 1.0], 1.0),
            _ => ([0.0, 9.0, 0.0], 0.0),
        });
        let filled = Pyramid::new(&colours).filled().clone();
        assert_eq!(filled.at(3, 10), [1.0, 0.0, 0.0]);
        let [r, g, b] = filled.at(16, 10);
        assert!(g == 0.0 && (r + b - 1.0).abs() < 1e-4 && r > 0.1 && b > 0.1, "{r} {g} {b}");
    }
}
