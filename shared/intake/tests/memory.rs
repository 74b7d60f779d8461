//! What an inspection holds in memory, measured with an allocator that counts.
//!
//! One test, because the counts are global.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

#[path = "support/encoders.rs"]
mod encoders;

use encoders::{encode, encode_jpeg, encode_progressive_jpeg, fixture};
use image::{DynamicImage, ImageFormat, RgbImage};
use orfeas_intake::{Declared, Inspector, Limits, Rejection};
use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// The most bytes that an inspection held at once, and its verdict.
fn peak_bytes(upload: &[u8], chunk_bytes: usize) -> (usize, Result<(), Rejection>) {
    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    let mut inspector = Inspector::new(Declared::default(), Limits::default());
    let verdict = upload.chunks(chunk_bytes).try_for_each(|chunk| inspector.push(chunk));
    let verdict = verdict.and_then(|()| inspector.finish().map(drop));
    (ALLOCATOR.peak_usage() - before, verdict)
}

#[track_caller]
fn check(name: &str, upload: &[u8], bytes_max: usize) {
    for chunk_bytes in [1000, 64 * 1024, usize::MAX] {
        let (peak, verdict) = peak_bytes(upload, chunk_bytes);
        println!("{name}: {} bytes in chunks of {chunk_bytes}: {peak} bytes held", upload.len());
        assert_eq!(verdict, Ok(()), "{name}");
        assert!(peak <= bytes_max, "{name} held {peak} bytes, more than {bytes_max}");
    }
}

/// Noise, which no format compresses.
fn noise(width: u32, height: u32) -> DynamicImage {
    let mut state = 1u32;
    let picture = RgbImage::from_fn(width, height, |_, _| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        image::Rgb([(state >> 8) as u8, (state >> 16) as u8, (state >> 24) as u8])
    });
    picture.into()
}

/// A WebP file with padding metadata up to `total` bytes.
fn padded_webp(picture: &[u8], total: usize) -> Vec<u8> {
    let payload = total - picture.len() - 8;
    let mut out = picture.to_vec();
    out.extend(b"junk");
    out.extend((payload as u32).to_le_bytes());
    out.resize(total, 0);
    let riff_size = (total - 8) as u32;
    out[4..8].copy_from_slice(&riff_size.to_le_bytes());
    out
}

#[test]
fn memory_does_not_grow_with_the_upload() {
    const KIB: usize = 1024;
    let picture = noise(3000, 2000);
    check("png", &encode(&picture, ImageFormat::Png), 512 * KIB);
    check("jpeg", &encode_jpeg(&picture, 95), 256 * KIB);
    check("webp lossless", &encode(&picture, ImageFormat::WebP), 512 * KIB);
    // A progressive file keeps 8 bytes for each block of three planes.
    let blocks = 3 * 3000usize.div_ceil(8) * 2000usize.div_ceil(8);
    check("jpeg progressive", &encode_progressive_jpeg(&picture, 95), 256 * KIB + 8 * blocks);
    check("webp with 50 MB of metadata", &padded_webp(&fixture("lossy.webp"), 50 * KIB * KIB), 256 * KIB);
}
