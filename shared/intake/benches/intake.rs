//! How long one upload's inspection takes, on pictures that the bench draws itself; and how much of a receiver's time
//! it is to take the metadata out, and to hash what is left a second time.
//!
//! Prints a JSON line for each: `{"bench":…, "bytes":…, "p50_ms":…, "p99_ms":…, "n":…}`. Chunks of 64 KiB, as
//! they arrive from a socket. `cargo bench -p orfeas-intake`; an argument selects by name.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a bench stops at the first error")]

#[path = "../tests/support/encoders.rs"]
mod encoders;

use std::time::Instant;

use encoders::{encode, encode_jpeg, encode_progressive_jpeg, fixture};
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{DynamicImage, ImageFormat, RgbImage};
use orfeas_intake::{Declared, Inspector, Limits, Receiver, Redactor};

const CHUNK_BYTES: usize = 64 * 1024;
const RUNS: usize = 60;

/// A photograph-like picture: smooth shapes, edges and grain.
fn photograph(width: u32, height: u32, grain: f32) -> DynamicImage {
    let mut noise = 1u32;
    let picture = RgbImage::from_fn(width, height, |x, y| {
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let n = ((noise >> 16) as f32 / 65_536.0 - 0.5) * grain;
        let (u, v) = (x as f32 / 97.0, y as f32 / 71.0);
        let wave = 60.0 * (u + (v * 0.7).sin()).sin() + 40.0 * (v - u * 0.3).cos();
        let edge = if ((x / 120) + (y / 90)) % 3 == 0 { 40.0 } else { 0.0 };
        let value = |base: f32, k: f32| (base + k * wave + edge + n).clamp(0.0, 255.0) as u8;
        image::Rgb([value(120.0, 1.0), value(110.0, 0.8), value(90.0, 0.5)])
    });
    picture.into()
}

fn encode_png(picture: &DynamicImage) -> Vec<u8> {
    let mut out = Vec::new();
    let encoder = PngEncoder::new_with_quality(&mut out, CompressionType::Fast, FilterType::Adaptive);
    picture.write_with_encoder(encoder).unwrap();
    out
}

fn inspect_ms(bytes: &[u8]) -> f64 {
    let start = Instant::now();
    let mut inspector = Inspector::new(Declared::default(), Limits::default());
    for chunk in bytes.chunks(CHUNK_BYTES) {
        inspector.push(chunk).expect("a valid picture");
    }
    std::hint::black_box(inspector.finish().expect("a valid picture"));
    start.elapsed().as_secs_f64() * 1e3
}

/// The same with what is to be stored.
fn receive_ms(bytes: &[u8]) -> f64 {
    let start = Instant::now();
    let mut receiver = Receiver::new(Declared::default(), Limits::default());
    let mut out = Vec::new();
    for chunk in bytes.chunks(CHUNK_BYTES) {
        receiver.push(chunk, &mut out).expect("a valid picture");
        std::hint::black_box(&out);
        out.clear();
    }
    std::hint::black_box(receiver.finish(&mut out).expect("a valid picture"));
    start.elapsed().as_secs_f64() * 1e3
}

/// The redactor alone.
fn redact_ms(bytes: &[u8]) -> f64 {
    let start = Instant::now();
    let mut redactor = Redactor::new();
    let mut out = Vec::new();
    for chunk in bytes.chunks(CHUNK_BYTES) {
        redactor.push(chunk, &mut out);
        std::hint::black_box(&out);
        out.clear();
    }
    std::hint::black_box(redactor.finish(&mut out));
    start.elapsed().as_secs_f64() * 1e3
}

/// The picture with a comment of the camera's, which goes.
fn commented_jpeg(jpeg: &[u8]) -> Vec<u8> {
    [&jpeg[..2], b"\xff\xfe\0\x09a place", &jpeg[2..]].concat()
}

fn bench(name: &str, bytes: &[u8], time_ms: fn(&[u8]) -> f64) {
    let mut times: Vec<f64> = (0..RUNS + 3).map(|_| time_ms(bytes)).skip(3).collect();
    times.sort_by(f64::total_cmp);
    let (p50, p99) = (times[times.len() / 2], times[times.len() * 99 / 100]);
    let size = bytes.len();
    println!(r#"{{"bench":"{name}","bytes":{size},"p50_ms":{p50:.3},"p99_ms":{p99:.3},"n":{RUNS}}}"#);
}

fn main() {
    let wanted = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    let run_as = |name: &str, time_ms: fn(&[u8]) -> f64, make: &dyn Fn() -> Vec<u8>| {
        if name.contains(&wanted) {
            bench(name, &make(), time_ms);
        }
    };
    let run = |name: &str, make: &dyn Fn() -> Vec<u8>| run_as(name, inspect_ms, make);
    run("intake_jpeg_baseline_3mp", &|| encode_jpeg(&photograph(2048, 1536, 60.0), 80));
    run("intake_jpeg_progressive_3mp", &|| encode_progressive_jpeg(&photograph(2048, 1536, 60.0), 80));
    run("intake_png_rgb_3mp", &|| encode_png(&photograph(2048, 1536, 12.0)));
    run("intake_webp_lossless_3mp", &|| encode(&photograph(2048, 1536, 12.0), ImageFormat::WebP));
    run("intake_webp_lossy_vga", &|| fixture("lossy_vga.webp"));
    let jpeg = || commented_jpeg(&encode_jpeg(&photograph(2048, 1536, 60.0), 80));
    run_as("intake_redact_jpeg_3mp", redact_ms, &jpeg);
    run_as("intake_receive_jpeg_3mp", receive_ms, &jpeg);
    run_as("intake_redact_png_3mp", redact_ms, &|| encode_png(&photograph(2048, 1536, 12.0)));
}
