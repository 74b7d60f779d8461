//! Claims about what is stored of an upload: the same picture, of the same length, and nothing about its maker.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, in its helpers too")]

#[path = "support/labels.rs"]
mod labels;
mod support;

use std::borrow::Cow;
use std::io::Cursor;

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageReader};
use labels::{GPS, SECRET, labelled};
use orfeas_intake::{Declared, Limits, Received, Receiver, Redactor, ValidImage, inspect, redact};
use orfeas_protocol::Sha256Digest;
use proptest::prelude::*;
use support::damage::{config, damaged};
use support::encoders::fixture;
use support::{SAMPLES, Sample};

/// What a redactor may hold back: the longest EXIF block with its header.
const LAG_BYTES_MAX: usize = 64 * 1024 + 8;

/// The output for chunks of the given sizes, repeated, and whether it differs from the input.
fn redact_in_chunks(bytes: &[u8], sizes: &[usize]) -> (Vec<u8>, bool) {
    let mut redactor = Redactor::new();
    let mut out = Vec::new();
    let mut rest = bytes;
    for &size in sizes.iter().cycle() {
        let (chunk, after) = rest.split_at(size.min(rest.len()));
        redactor.push(chunk, &mut out);
        rest = after;
        let read = bytes.len() - rest.len();
        assert!((read.saturating_sub(LAG_BYTES_MAX)..=read).contains(&out.len()), "{} of {read}", out.len());
        if rest.is_empty() {
            break;
        }
    }
    let is_changed = redactor.finish(&mut out);
    (out, is_changed)
}

fn verdict(bytes: &[u8]) -> Option<ValidImage> {
    inspect(bytes, Declared::default(), Limits::default()).ok()
}

fn decode(bytes: &[u8]) -> (DynamicImage, Orientation) {
    let mut decoder =
        ImageReader::new(Cursor::new(bytes)).with_guessed_format().unwrap().into_decoder().unwrap();
    let orientation = decoder.orientation().unwrap();
    (DynamicImage::from_decoder(decoder).unwrap(), orientation)
}

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// Checks a valid file, and returns what is stored of it.
#[track_caller]
fn check<'f>(name: &str, file: &'f [u8]) -> Cow<'f, [u8]> {
    let stored = redact(file);
    let sent = verdict(file).unwrap_or_else(|| panic!("{name} is valid"));
    let again = verdict(&stored).unwrap_or_else(|| panic!("{name} stays valid"));
    assert_eq!(again, ValidImage { sha256: Sha256Digest::of(&stored), ..sent }, "{name}");
    assert!(decode(&stored) == decode(file), "{name}: the same pixels and orientation");
    assert!(matches!(redact(&stored), Cow::Borrowed(_)), "{name} comes to rest");
    stored
}

#[test]
fn every_picture_stays_what_it_is() {
    for Sample { name, bytes } in &*SAMPLES {
        check(name, bytes);
    }
}

#[test]
fn metadata_of_every_kind_goes_and_the_orientation_stays() {
    for (n, Sample { name, bytes }) in SAMPLES.iter().enumerate() {
        // Fixtures with an orientation of their own have their EXIF block behind ours.
        if name.starts_with("orientation") {
            continue;
        }
        let orientation = (n % 8 + 1) as u8;
        let file = labelled(bytes, orientation);
        assert!(holds(&file, SECRET) && holds(&file, &GPS), "{name}");
        let stored = check(name, &file);
        for part in [SECRET, &GPS, &SECRET[..8], &SECRET[9..17], b"xmpmeta", b"Photoshop", b"Author"] {
            assert!(!holds(&stored, part), "{name} holds {:?}", String::from_utf8_lossy(part));
        }
        let (decoded, shown) = decode(&stored);
        assert_eq!(shown.to_exif(), orientation, "{name}");
        assert!(decoded == decode(bytes).0, "{name}");
    }
}

#[test]
fn a_picture_without_metadata_is_stored_as_it_was_sent() {
    for name in ["baseline_optimised.jpg", "lossless.webp", "lossy_alpha.webp", "palette.png"] {
        let file = fixture(name);
        assert!(matches!(redact(&file), Cow::Borrowed(same) if same == file), "{name}");
    }
}

/// What a receiver makes of an upload in chunks of one size.
fn receive(file: &[u8], chunk_bytes: usize) -> (Received, Vec<u8>) {
    let mut receiver = Receiver::new(Declared::default(), Limits::default());
    let mut out = Vec::new();
    for chunk in file.chunks(chunk_bytes) {
        receiver.push(chunk, &mut out).unwrap();
    }
    (receiver.finish(&mut out).unwrap(), out)
}

#[test]
fn a_receiver_knows_both_digests() {
    for Sample { name, bytes } in &*SAMPLES {
        for file in [bytes.clone(), labelled(bytes, 6)] {
            for chunk_bytes in [1, 7, 100, 4096, usize::MAX] {
                let (received, stored) = receive(&file, chunk_bytes);
                assert_eq!(Some(&received.image), verdict(&file).as_ref(), "{name}");
                assert!(stored == *redact(&file), "{name}");
                assert_eq!(received.stored_sha256, Sha256Digest::of(&stored), "{name} by {chunk_bytes}");
            }
        }
    }
}

/// Damaged samples, half of them with metadata.
fn uploads() -> impl Strategy<Value = Vec<u8>> {
    let changed = (any::<prop::sample::Index>(), 1u8..9, any::<prop::sample::Index>(), any::<u8>());
    prop_oneof![
        damaged().prop_map(|upload| upload.bytes),
        changed.prop_map(|(sample, orientation, at, byte)| {
            let mut bytes = labelled(&sample.get(&SAMPLES).bytes, orientation);
            let at = at.index(bytes.len());
            bytes[at] = byte;
            bytes
        }),
    ]
}

/// Anything, behind what may make a redactor take it for a picture.
fn garbage() -> impl Strategy<Value = Vec<u8>> {
    let start = prop::sample::select(vec![
        &b""[..],
        b"\xff\xd8",
        b"\xff\xd8\xff\xe1\0\x40Exif\0\0",
        b"\xff\xd8\xff\xda\0\x02",
        b"\x89PNG\r\n\x1a\n",
        b"\x89PNG\r\n\x1a\n\0\0\0\x30eXIfMM\0*",
        b"RIFF\xff\0\0\0WEBP",
        b"RIFF\xff\0\0\0WEBPEXIF\x30\0\0\0II*\0",
    ]);
    (start, prop::collection::vec(any::<u8>(), 0..600)).prop_map(|(start, rest)| [start, &rest].concat())
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn the_output_depends_on_nothing_but_the_bytes(
        upload in prop_oneof![uploads(), garbage()],
        sizes in prop_oneof![
            prop::collection::vec(1usize..4, 1..4),
            prop::collection::vec(1usize..40, 1..40),
            prop::collection::vec(1usize..5000, 1..8),
        ],
    ) {
        let (out, is_changed) = redact_in_chunks(&upload, &sizes);
        prop_assert_eq!(out.len(), upload.len());
        prop_assert_eq!(is_changed, out != upload);
        prop_assert!(out == *redact(&upload), "cut or whole");
        prop_assert!(matches!(redact(&out), Cow::Borrowed(_)), "twice is once");
    }

    #[test]
    fn what_passes_the_checks_passes_them_redacted(upload in uploads()) {
        if let Some(sent) = verdict(&upload) {
            let stored = redact(&upload);
            let again = ValidImage { sha256: Sha256Digest::of(&stored), ..sent };
            prop_assert_eq!(verdict(&stored), Some(again));
        }
    }
}
