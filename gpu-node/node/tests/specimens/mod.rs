//! Drawn pictures with a known subject: cut-outs composed over plain, gradient and textured backgrounds.
#![allow(dead_code, reason = "each binary that includes this uses a part of it")]

use image::{Rgb, Rgba, RgbaImage};

/// A small generator of numbers that are the same on every machine (SplitMix64).
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// From 0 to 1.
    pub(crate) fn roll(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1_u64 << 24) as f32
    }

    pub(crate) fn between(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.roll()
    }

    pub(crate) fn colour(&mut self) -> [f32; 3] {
        [self.roll(), self.roll(), self.roll()].map(|v| 20.0 + 215.0 * v)
    }
}

/// The subjects that are drawn.
pub(crate) const SUBJECTS: [&str; 8] = ["mug", "chair", "star", "vase", "lamp", "figure", "ring", "cactus"];

/// A cut-out of `side` pixels, its colours shaded and in several parts.
pub(crate) fn draw(subject: &str, side: u32, seed: u64) -> RgbaImage {
    let mut dice = Dice::new(seed);
    let paints = [dice.colour(), dice.colour(), dice.colour()];
    let turn = dice.between(-0.15, 0.15);
    RgbaImage::from_fn(side, side, |px, py| {
        let unit = |v: u32| (v as f32 + 0.5) / side as f32 * 2.0 - 1.0;
        let (x, y) = (unit(px), unit(py));
        let (x, y) = (x * turn.cos() - y * turn.sin(), x * turn.sin() + y * turn.cos());
        let (distance, paint) = parts(subject, x, y)
            .into_iter()
            .enumerate()
            .fold((f32::MAX, 0), |best, (index, d)| if d < best.0 { (d, index) } else { best });
        let coverage = (0.5 - distance * side as f32 / 2.0).clamp(0.0, 1.0);
        // Darker toward the rim and from the upper left, as a round thing is.
        let shade = 0.75 + 0.25 * (-distance * 6.0).min(1.0) - 0.12 * x - 0.12 * y;
        let stripe = if (paint == 0) && ((x + 0.4 * y) * 9.0).sin() > 0.6 { 0.8 } else { 1.0 };
        let [r, g, b] = paints[paint % 3].map(|v| (v * shade * stripe).clamp(0.0, 255.0) as u8);
        Rgba([r, g, b, (coverage * 255.0) as u8])
    })
}

fn disc(x: f32, y: f32, cx: f32, cy: f32, radius: f32) -> f32 {
    (x - cx).hypot(y - cy) - radius
}

fn slab(x: f32, y: f32, cx: f32, cy: f32, half_width: f32, half_height: f32) -> f32 {
    let (dx, dy) = ((x - cx).abs() - half_width, (y - cy).abs() - half_height);
    dx.max(0.0).hypot(dy.max(0.0)) + dx.max(dy).min(0.0) - 0.02
}

/// Signed distances of the parts, each with a paint of its own.
fn parts(subject: &str, x: f32, y: f32) -> Vec<f32> {
    match subject {
        "mug" => vec![
            slab(x, y, -0.12, 0.05, 0.36, 0.45),
            disc(x, y, 0.33, 0.0, 0.25).abs() - 0.055,
            slab(x, y, -0.12, -0.38, 0.37, 0.04),
        ],
        "chair" => vec![
            slab(x, y, 0.0, 0.1, 0.42, 0.06),
            [-0.36, -0.2, 0.2, 0.36]
                .map(|leg| slab(x, y, leg, 0.45, 0.025, 0.35))
                .into_iter()
                .fold(9.0, f32::min),
            [-0.34, -0.11, 0.11, 0.34]
                .map(|bar| slab(x, y, bar, -0.35, 0.03, 0.42))
                .into_iter()
                .fold(9.0, f32::min),
            slab(x, y, 0.0, -0.72, 0.38, 0.06),
        ],
        "star" => {
            let angle = y.atan2(x);
            vec![(x.hypot(y) - 0.52 - 0.2 * (5.0 * angle).cos()) * 0.7, disc(x, y, 0.1, -0.05, 0.2)]
        }
        "vase" => {
            let profile = 0.2 + 0.16 * (y * 4.0 + 0.6).sin() + 0.08 * y;
            vec![(x.abs() - profile).max(y.abs() - 0.75) * 0.8, slab(x, y, 0.0, 0.1, 0.1, 0.1)]
        }
        "lamp" => vec![
            ((x.abs() - 0.3 - 0.35 * (y + 0.3)).max((y + 0.4).abs() - 0.3)) * 0.85,
            slab(x, y, 0.0, 0.2, 0.02, 0.5),
            slab(x, y, 0.0, 0.72, 0.3, 0.03),
        ],
        "figure" => vec![
            disc(x, y, 0.0, -0.5, 0.24),
            slab(x, y, 0.0, 0.02, 0.2, 0.28),
            slab(x, y, -0.12, 0.5, 0.06, 0.3).min(slab(x, y, 0.12, 0.5, 0.06, 0.3)),
            slab(x, y, 0.0, -0.12, 0.5, 0.05),
        ],
        "ring" => vec![disc(x, y, 0.0, 0.1, 0.5).abs() - 0.13, disc(x, y, 0.0, -0.45, 0.2)],
        _ => vec![
            slab(x, y, 0.0, 0.0, 0.13, 0.5),
            slab(x, y, -0.3, -0.1, 0.06, 0.2).min(slab(x, y, -0.2, 0.1, 0.12, 0.05)),
            slab(x, y, 0.0, 0.7, 0.3, 0.18),
            slab(x, y, 0.3, -0.2, 0.06, 0.2).min(slab(x, y, 0.2, 0.0, 0.12, 0.05)),
        ],
    }
}

/// The kinds of background, and the mean intersection over union that each must reach.
pub(crate) const BACKGROUNDS: [(&str, f64); 3] = [("plain", 0.97), ("gradient", 0.95), ("textured", 0.85)];

/// The cut-out over a background of the kind, with a little noise over all of it as cameras add.
pub(crate) fn compose(cut_out: &RgbaImage, kind: &str, seed: u64) -> image::RgbImage {
    let mut dice = Dice::new(seed ^ 0xb5ad_4ece_da1c_e2a9);
    let background = Background::random(kind, &mut dice);
    let (width, height) = cut_out.dimensions();
    image::RgbImage::from_fn(width, height, |px, py| {
        let behind = background.at(px as f32 / width as f32, py as f32 / height as f32);
        let Rgba([r, g, b, a]) = *cut_out.get_pixel(px, py);
        let alpha = f32::from(a) / 255.0;
        let mut mix = |front: u8, behind: f32| {
            let noise = 1.5 * (dice.roll() + dice.roll() - 1.0);
            (f32::from(front) * alpha + behind * (1.0 - alpha) + noise).round().clamp(0.0, 255.0) as u8
        };
        Rgb([mix(r, behind[0]), mix(g, behind[1]), mix(b, behind[2])])
    })
}

struct Background {
    from: [f32; 3],
    to: [f32; 3],
    direction: (f32, f32),
    radial: bool,
    waves: Vec<[f32; 6]>,
}

impl Background {
    fn random(kind: &str, dice: &mut Dice) -> Self {
        let white = dice.roll() < 0.3;
        let from = if white { [250.0; 3] } else { dice.colour() };
        let far = dice.colour();
        let spread = dice.between(0.3, 0.8);
        let to = match kind {
            "plain" => from,
            "gradient" => [0, 1, 2].map(|c| from[c] + spread * (far[c] - from[c])),
            _ => [0, 1, 2].map(|c| from[c] + 0.2 * (far[c] - from[c])),
        };
        let angle = dice.between(0.0, std::f32::consts::TAU);
        let mut waves = Vec::new();
        if kind == "textured" {
            // Fabric, plaster or wood: waves of many scales, a dozen levels in all.
            for octave in 0..10 {
                let frequency = 6.0 * 1.5_f32.powi(octave);
                let heading = dice.between(0.0, std::f32::consts::TAU);
                let amplitude = dice.between(2.0, 6.0);
                let tint = dice.between(0.6, 1.0);
                let (c, s) = (heading.cos() * frequency, heading.sin() * frequency);
                waves.push([
                    c,
                    s,
                    dice.between(0.0, std::f32::consts::TAU),
                    amplitude,
                    amplitude * tint,
                    amplitude * tint * 0.9,
                ]);
            }
        }
        Self { from, to, direction: (angle.cos(), angle.sin()), radial: dice.roll() < 0.5, waves }
    }

    fn at(&self, x: f32, y: f32) -> [f32; 3] {
        let t = if self.radial {
            ((x - 0.5).hypot(y - 0.4) * 1.3).min(1.0)
        } else {
            (0.5 + (x - 0.5) * self.direction.0 + (y - 0.5) * self.direction.1).clamp(0.0, 1.0)
        };
        let mut colour = [0, 1, 2].map(|c| self.from[c] + t * (self.to[c] - self.from[c]));
        for [c, s, phase, red, green, blue] in &self.waves {
            let wave = (c * x + s * y + phase + 0.8 * (3.0 * y).sin()).sin();
            for (value, amplitude) in colour.iter_mut().zip([red, green, blue]) {
                *value += amplitude * wave;
            }
        }
        colour
    }
}

/// The file that benches time: a mug of 1024 pixels a side over a gradient.
pub(crate) fn mug_file() -> image::ImageResult<Vec<u8>> {
    let picture = compose(&draw("mug", 1024, 5), "gradient", 5);
    let mut file = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut file, image::ImageFormat::Png)?;
    Ok(file.into_inner())
}

/// The cut-out over a background of the kind, on which it casts a soft shadow to its lower right.
pub(crate) fn compose_with_shadow(cut_out: &RgbaImage, kind: &str, seed: u64) -> image::RgbImage {
    let (width, height) = cut_out.dimensions();
    let (mut left, mut right, mut bottom) = (width, 0, 0);
    for (x, y, _) in cut_out.enumerate_pixels().filter(|(_, _, pixel)| pixel.0[3] >= 128) {
        (left, right, bottom) = (left.min(x), right.max(x), bottom.max(y));
    }
    let reach = (right.saturating_sub(left)) as f32 * 0.6;
    let (centre_x, centre_y) =
        ((left + right) as f32 / 2.0 + 0.25 * reach, bottom as f32 - 0.02 * height as f32);
    let plain = compose(&RgbaImage::new(width, height), kind, seed);
    let mut picture = compose(cut_out, kind, seed);
    for (x, y, pixel) in picture.enumerate_pixels_mut() {
        let away = ((x as f32 - centre_x) / reach).hypot((y as f32 - centre_y) / (0.22 * reach));
        let shade = 1.0 - 0.4 * (1.4 - away).clamp(0.0, 1.0);
        let alpha = f32::from(cut_out.get_pixel(x, y).0[3]) / 255.0;
        let behind = plain.get_pixel(x, y);
        for (value, behind) in pixel.0.iter_mut().zip(behind.0) {
            let darker = f32::from(behind) * (1.0 - shade) * (1.0 - alpha);
            *value = (f32::from(*value) - darker).round().clamp(0.0, 255.0) as u8;
        }
    }
    picture
}

/// The cut-out in colours that are close to those of the background: `contrast` levels from it, with a tenth of its
/// own light and shade.
pub(crate) fn camouflaged(cut_out: &RgbaImage, background: [f32; 3], contrast: f32) -> RgbaImage {
    RgbaImage::from_fn(cut_out.width(), cut_out.height(), |x, y| {
        let Rgba([r, g, b, a]) = *cut_out.get_pixel(x, y);
        let close = |value: u8, behind: f32| (behind + contrast + 0.1 * (f32::from(value) - 128.0)) as u8;
        Rgba([close(r, background[0]), close(g, background[1]), close(b, background[2]), a])
    })
}

/// A photograph's kind of surroundings: sky, a hedge and a meadow full of detail, of no one colour at the border.
pub(crate) fn scene(cut_out: &RgbaImage, seed: u64) -> image::RgbImage {
    let mut dice = Dice::new(seed);
    let (width, height) = cut_out.dimensions();
    let speckles: Vec<f32> = (0..width * height).map(|_| dice.roll()).collect();
    let coarse =
        |x: u32, y: u32, size: u32| speckles[((y / size * 613 + x / size * 7) % (width * height)) as usize];
    image::RgbImage::from_fn(width, height, |x, y| {
        let grain = coarse(x, y, 3) - 0.5 + 0.5 * (coarse(x, y, 11) - 0.5);
        let v = y as f32 / height as f32 + 0.06 * coarse(x, 0, 17);
        let behind = match v {
            ..0.3 => [120.0 + 40.0 * v, 160.0, 225.0].map(|c: f32| c + 12.0 * grain),
            ..0.55 => [40.0, 70.0, 35.0].map(|c: f32| c + 70.0 * grain),
            _ => [120.0, 130.0, 70.0].map(|c: f32| c + 60.0 * grain),
        };
        let Rgba([r, g, b, a]) = *cut_out.get_pixel(x, y);
        let alpha = f32::from(a) / 255.0;
        let mix = |front: u8, behind: f32| {
            (f32::from(front) * alpha + behind * (1.0 - alpha)).clamp(0.0, 255.0) as u8
        };
        Rgb([mix(r, behind[0]), mix(g, behind[1]), mix(b, behind[2])])
    })
}

/// Intersection over union of two alpha channels, both cut at one half.
pub(crate) fn intersection_over_union(found: &[u8], truth: &RgbaImage) -> f64 {
    let (mut both, mut either) = (0_u64, 0_u64);
    for (found, truth) in found.chunks_exact(4).zip(truth.pixels()) {
        let (found, truth) = (found[3] >= 128, truth.0[3] >= 128);
        both += u64::from(found && truth);
        either += u64::from(found || truth);
    }
    if either == 0 { 1.0 } else { both as f64 / either as f64 }
}
