//! Claims about whole uploads: valid ones pass, damaged ones do not, and the verdict depends on nothing but
//! the bytes.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, in its helpers too")]

mod support;

use orfeas_intake::{Declared, ImageFormat, Inspector, Limits, Rejection, ValidImage, inspect};
use orfeas_protocol::{Code, Sha256Digest};
use proptest::prelude::*;
use support::damage::{config, damaged};
use support::encoders::fixture;
use support::{SAMPLES, Sample};

fn verdict(bytes: &[u8]) -> Result<ValidImage, Rejection> {
    inspect(bytes, Declared::default(), Limits::default())
}

/// The verdict over chunks of the given sizes, repeated.
fn verdict_in_chunks(bytes: &[u8], sizes: &[usize]) -> Result<ValidImage, Rejection> {
    let mut inspector = Inspector::new(Declared::default(), Limits::default());
    let mut rest = bytes;
    for &size in sizes.iter().cycle() {
        let (chunk, after) = rest.split_at(size.min(rest.len()));
        inspector.push(chunk)?;
        rest = after;
        if rest.is_empty() {
            break;
        }
    }
    inspector.finish()
}

#[test]
fn valid_pictures_pass() {
    for Sample { name, bytes } in &*SAMPLES {
        let extension = name.rsplit('.').next().unwrap();
        let declared = Declared { file_name: Some(name), content_type: None };
        let image = inspect(bytes, declared, Limits::default()).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(image.format.extension(), extension);
        assert_eq!(image.bytes, bytes.len() as u64);
        assert_eq!(image.sha256, Sha256Digest::of(bytes));
        let decoded = image::load_from_memory(bytes).unwrap();
        assert_eq!((image.width, image.height), (decoded.width(), decoded.height()), "{name}");
    }
}

#[test]
fn orientation_is_read_from_every_format() {
    for (name, expected) in
        [("orientation_6.jpg", 6), ("orientation_8.png", 8), ("orientation_3.webp", 3), ("lossy.webp", 1)]
    {
        assert_eq!(verdict(&fixture(name)).unwrap().orientation.to_exif(), expected, "{name}");
    }
}

#[test]
fn every_truncation_is_refused() {
    for Sample { name, bytes } in &*SAMPLES {
        let step = if bytes.len() < 3000 { 1 } else { bytes.len() / 100 };
        for end in (0..bytes.len()).step_by(step).chain(bytes.len().saturating_sub(70)..bytes.len()) {
            let refused = verdict(&bytes[..end]);
            let rejection = refused.expect_err(&format!("{name} cut at {end} of {}", bytes.len()));
            let known = if end < 12 { Code::InvalidImageFormat } else { Code::InvalidImage };
            assert!([known, Code::InvalidImage].contains(&rejection.code()), "{name} at {end}: {rejection}");
        }
    }
}

#[test]
fn every_flipped_bit_of_a_png_is_refused() {
    for Sample { name, bytes } in SAMPLES.iter().filter(|sample| sample.name.ends_with("png")) {
        let step = if bytes.len() < 1000 { 1 } else { 7 };
        for bit in (0..bytes.len() * 8).step_by(step) {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(verdict(&damaged).is_err(), "{name}, bit {bit}");
        }
    }
}

#[test]
fn animations_are_refused_and_single_frames_are_not() {
    for (name, format) in [("animated.png", ImageFormat::Png), ("animated.webp", ImageFormat::Webp)] {
        assert_eq!(verdict(&fixture(name)), Err(Rejection::MultipleFrames { format }), "{name}");
    }
    let animated = fixture("animated.webp");
    let single = first_frame_only(&animated);
    let image = verdict(&single).unwrap();
    assert_eq!((image.width, image.height), (61, 43));
}

/// An animated WebP file without the frames behind the first.
fn first_frame_only(animated: &[u8]) -> Vec<u8> {
    let mut out = animated[..12].to_vec();
    let mut rest = &animated[12..];
    while rest.len() >= 8 {
        let size = u32::from_le_bytes(rest[4..8].try_into().unwrap()) as usize;
        let (chunk, after) = rest.split_at(8 + size + size % 2);
        out.extend_from_slice(chunk);
        if chunk.starts_with(b"ANMF") {
            break;
        }
        rest = after;
    }
    let riff_size = out.len() as u32 - 8;
    out[4..8].copy_from_slice(&riff_size.to_le_bytes());
    out
}

#[test]
fn a_second_file_behind_the_picture_is_refused() {
    let zip = b"PK\x03\x04\x14\0\0\0\0\0".as_slice();
    let html = b"\n<HTML><script>alert(1)</script>".as_slice();
    for Sample { name, bytes } in &*SAMPLES {
        for (tail, found) in
            [(zip, "a ZIP archive"), (html, "an HTML page"), (b"MZ\x90\0", "a Windows program")]
        {
            let refused = verdict(&[bytes, tail].concat()).unwrap_err();
            assert!(
                matches!(refused, Rejection::TrailingFile { found: f, .. } if f == found),
                "{name}: {refused}"
            );
        }
        assert!(
            matches!(verdict(&[&bytes[..], bytes].concat()), Err(Rejection::TrailingFile { .. })),
            "{name} twice"
        );
        let padded = [&bytes[..], &[0; 5000]].concat();
        assert_eq!(verdict(&padded).map(|image| image.bytes), Ok(padded.len() as u64), "{name} padded");
    }
}

#[test]
fn the_declaration_is_compared_as_soon_as_the_type_is_known() {
    let declared = Declared { file_name: Some("chair.png"), content_type: Some("image/jpeg") };
    let mut inspector = Inspector::new(declared, Limits::default());
    let refused = inspector.push(&fixture("progressive_420.jpg")[..4]).unwrap_err();
    assert_eq!(refused.code(), Code::InvalidImageFormat);
    assert_eq!(refused.to_string(), "the content is JPEG, but the file name says PNG");
}

#[test]
fn dimensions_are_judged_from_the_header_alone() {
    let limits = Limits { side_max: 60, ..Limits::default() };
    for (name, header_bytes) in [
        ("progressive_420.jpg", 200),
        ("palette.png", 29),
        ("lossy.webp", 30),
        ("lossless.webp", 25),
        ("lossy_alpha.webp", 30),
    ] {
        let mut inspector = Inspector::new(Declared::default(), limits);
        let refused = inspector.push(&fixture(name)[..header_bytes]).expect_err(name);
        assert_eq!(refused, Rejection::Dimensions { width: 61, height: 43, limits });
    }
}

#[test]
fn the_size_limit_is_exact() {
    let bytes = fixture("palette.png");
    let limits = |bytes_max| Limits { bytes_max, ..Limits::default() };
    let size = bytes.len() as u64;
    assert!(inspect(&bytes, Declared::default(), limits(size)).is_ok());
    let refused = inspect(&bytes, Declared::default(), limits(size - 1)).unwrap_err();
    assert_eq!(refused, Rejection::TooLarge { limit_bytes: size - 1 });
    assert_eq!(refused.code(), Code::ImageTooLarge);
}

#[test]
fn a_refusal_is_final() {
    let mut inspector = Inspector::new(Declared::default(), Limits::default());
    let refused = inspector.push(&[b'x'; 600]).unwrap_err();
    assert_eq!(inspector.push(&fixture("palette.png")), Err(refused.clone()));
    assert_eq!(inspector.finish(), Err(refused));
}

#[test]
fn damage_is_seen_while_the_upload_runs() {
    for name in ["generated_q100.jpg", "generated_rgba.png", "generated_rgba.webp"] {
        let mut bytes = SAMPLES.iter().find(|sample| sample.name == name).unwrap().bytes.clone();
        let middle = bytes.len() / 2;
        bytes[middle..middle + 64].fill(0xff);
        let mut inspector = Inspector::new(Declared::default(), Limits::default());
        let refused_at = bytes.chunks(16).position(|chunk| inspector.push(chunk).is_err());
        assert!(refused_at.is_some_and(|chunk| chunk * 16 < bytes.len() * 9 / 10), "{name}: {refused_at:?}");
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_verdict_does_not_depend_on_the_chunks(
        upload in damaged(),
        sizes in prop_oneof![
            prop::collection::vec(1usize..4, 1..4),
            prop::collection::vec(1usize..40, 1..40),
            prop::collection::vec(1usize..5000, 1..8),
        ],
    ) {
        let (chunked, whole) = (verdict_in_chunks(&upload.bytes, &sizes), verdict(&upload.bytes));
        if upload.bytes.starts_with(b"\x89PNG") {
            // How far the inflater looks ahead decides which of several faults is named.
            prop_assert_eq!(chunked.map_err(|e| e.code()), whole.map_err(|e| e.code()));
        } else {
            prop_assert_eq!(chunked, whole);
        }
    }

    /// JPEG and lossy WebP are left out: they have no checksums, and of the damaged ones that libjpeg and
    /// libwebp read without a warning, as the walkers do, the `image` crate refuses a few in ten thousand.
    #[test]
    fn what_passes_can_be_decoded(upload in damaged()) {
        let is_lossy = upload.bytes.starts_with(b"\xff\xd8") || upload.bytes.windows(4).any(|four| four == b"VP8 ");
        if !is_lossy && verdict(&upload.bytes).is_ok() {
            let decoded = image::load_from_memory(&upload.bytes);
            prop_assert!(decoded.is_ok(), "{:?}", decoded.err());
        }
    }
}
