//! Valid uploads of every kind: committed fixtures and pictures that encoders make here.

pub(crate) mod damage;
pub(crate) mod encoders;

use std::path::Path;
use std::sync::LazyLock;

use encoders::{encode, encode_jpeg, encode_progressive_jpeg, fixture};
use image::{DynamicImage, ImageFormat, Rgba, RgbaImage};

/// A file that must pass.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
}

/// All valid samples.
pub(crate) static SAMPLES: LazyLock<Vec<Sample>> = LazyLock::new(samples);

/// A picture with smooth and noisy parts and a transparent corner.
pub(crate) fn picture(width: u32, height: u32) -> DynamicImage {
    let mut noise = 12_345u32;
    let picture = RgbaImage::from_fn(width, height, |x, y| {
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let grain = if x > width / 2 { (noise >> 27) as u8 } else { 0 };
        let wave = ((x * 5 + y * 3) % 256) as u8;
        Rgba([wave.saturating_add(grain), (y * 4 % 256) as u8, 200 - grain, if x + y < 9 { 0 } else { 255 }])
    });
    DynamicImage::ImageRgba8(picture)
}

fn samples() -> Vec<Sample> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut samples: Vec<Sample> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with("animated") && !name.ends_with(".py"))
        .map(|name| Sample { bytes: fixture(&name), name })
        .collect();
    samples.sort_by(|a, b| a.name.cmp(&b.name));
    let picture = picture(53, 47);
    let mut add = |name: &str, bytes: Vec<u8>| samples.push(Sample { name: name.into(), bytes });
    for quality in [5, 75, 100] {
        add(&format!("generated_q{quality}.jpg"), encode_jpeg(&picture, quality));
    }
    add("generated_progressive.jpg", encode_progressive_jpeg(&picture, 90));
    add("generated_rgba.png", encode(&picture, ImageFormat::Png));
    add("generated_grey.png", encode(&picture.to_luma8().into(), ImageFormat::Png));
    add("generated_rgb16.png", encode(&picture.to_rgb16().into(), ImageFormat::Png));
    add("generated_rgba.webp", encode(&picture, ImageFormat::WebP));
    add("generated_rgb.webp", encode(&picture.to_rgb8().into(), ImageFormat::WebP));
    samples
}
