//! The silhouette family from picture to model file.
#![allow(
    clippy::unwrap_used,
    reason = "a test says so by failing; helpers outside of test functions count as well"
)]

mod specimens;

use std::io::Cursor;
use std::path::Path;

use image::{DynamicImage, ImageFormat, Rgba, RgbaImage};
use orfeas_geometry::import::read_glb;
use orfeas_geometry::render::{View, render};
use orfeas_node::pipeline::{
    self, Generated, GenerationRequest, Inference, InferenceConfig, PipelineError, Settings, Unwatched,
};
use orfeas_protocol::options::{BackgroundRemoval, JobOptions, JobType, ModelFormat};

fn png(picture: impl Into<DynamicImage>) -> Vec<u8> {
    let mut file = Cursor::new(Vec::new());
    picture.into().write_to(&mut file, ImageFormat::Png).unwrap();
    file.into_inner()
}

async fn generate(file: Vec<u8>, options: JobOptions) -> Result<Generated, PipelineError> {
    let inference = Inference::start(InferenceConfig::default()).unwrap();
    let settings = Settings::decide(&options);
    let request = GenerationRequest { image: file.into(), job_type: JobType::Generation3d, settings };
    pipeline::generate(&inference, None, request, Box::new(Unwatched)).await.outcome
}

fn fast() -> JobOptions {
    JobOptions { quality: Some(5), ..JobOptions::default() }
}

/// A flag of four colours with a pole down from its left end.
fn flag() -> RgbaImage {
    RgbaImage::from_fn(200, 200, |x, y| match (x, y) {
        (30..100, 20..70) => Rgba([220, 30, 30, 255]),
        (100..170, 20..70) => Rgba([30, 200, 30, 255]),
        (30..100, 70..120) => Rgba([30, 30, 220, 255]),
        (100..170, 70..120) => Rgba([230, 220, 40, 255]),
        (30..50, 120..190) => Rgba([140, 90, 40, 255]),
        _ => Rgba([0, 255, 255, 0]),
    })
}

#[tokio::test]
async fn the_front_shows_the_picture_upright_and_the_right_way_round() {
    let generated = generate(png(flag()), JobOptions::default()).await.unwrap();
    let bounds = generated.report.bounds.unwrap();
    let size = bounds.size();
    assert!((size[1] - 1.0).abs() < 1e-3 && (size[0] - 140.0 / 170.0).abs() < 0.02, "{size:?}");
    let model = read_glb(&generated.file).unwrap();
    let view = View::front(400);
    let picture = render(&model, &view).unwrap();
    // The camera fits the bounding sphere; a place in the picture is found by the model's box.
    let radius = model
        .mesh
        .positions()
        .iter()
        .map(|p| p.iter().map(|v| v * v).sum::<f32>().sqrt())
        .fold(0.0, f32::max);
    let seen = |x: f32, y: f32| {
        let (model_x, model_y) = ((x - 100.0) / 170.0, (105.0 - y) / 170.0);
        let column = (200.0 + model_x / radius * 200.0) as usize;
        let row = (200.0 - model_y / radius * 200.0) as usize;
        picture.pixels()[row * 400 + column]
    };
    for (x, y, expected) in [
        (65.0, 45.0, [220.0, 30.0, 30.0]),
        (135.0, 45.0, [30.0, 200.0, 30.0]),
        (65.0, 95.0, [30.0, 30.0, 220.0]),
        (135.0, 95.0, [230.0, 220.0, 40.0]),
        (40.0, 160.0, [140.0, 90.0, 40.0]),
    ] {
        let found = seen(x, y).map(f32::from);
        // Light changes brightness, not hue: compare directions.
        let dot: f32 = (0..3).map(|c| found[c] * expected[c]).sum();
        let lengths = |v: &[f32]| v[..3].iter().map(|c| c * c).sum::<f32>().sqrt();
        let cosine = dot / (lengths(&found) * lengths(&expected));
        assert!(cosine > 0.985, "{found:?} for {expected:?} at {x}, {y}");
    }
    assert_eq!(seen(135.0, 160.0), view.background, "beside the pole is nothing");
}

#[tokio::test]
async fn a_handle_stays_a_hole_and_the_solid_is_closed() {
    let mug = specimens::draw("mug", 320, 11);
    let picture = specimens::compose(&mug, "gradient", 11);
    let generated = generate(png(picture), JobOptions::default()).await.unwrap();
    let report = generated.report;
    assert!(report.watertight && report.manifold && report.degenerate_faces == 0, "{report:?}");
    assert_eq!((report.components, report.genus), (1, Some(1)), "{report:?}");
    assert!(report.faces <= 30_000 && report.volume > 0.0);
    let size = report.bounds.unwrap().size();
    assert!((0.15..0.8).contains(&size[2]), "neither a wafer nor a balloon: {size:?}");
}

#[tokio::test]
async fn the_same_request_gives_the_same_bytes() {
    let picture = png(specimens::compose(&specimens::draw("lamp", 200, 3), "textured", 3));
    let first = generate(picture.clone(), fast()).await.unwrap();
    let second = generate(picture, fast()).await.unwrap();
    assert!(first.file == second.file);
    assert_eq!(first.model, second.model);
}

#[tokio::test]
async fn the_number_of_faces_is_kept_and_the_solid_stays_closed() {
    for faces in [100, 2_000] {
        let options = JobOptions { target_faces: Some(faces), ..fast() };
        let report = generate(png(specimens::draw("chair", 256, 2)), options).await.unwrap().report;
        assert!(report.faces <= faces as usize, "{} of {faces}", report.faces);
        assert!(report.watertight && report.manifold, "{report:?}");
    }
}

#[tokio::test]
async fn colours_of_the_background_do_not_show() {
    let red_on_green = RgbaImage::from_fn(240, 240, |x, y| {
        let coverage = (60.5 - (x as f32 - 119.5).hypot(y as f32 - 119.5)).clamp(0.0, 1.0);
        let mix = |front: f32, behind: f32| (front * coverage + behind * (1.0 - coverage)) as u8;
        Rgba([mix(200.0, 20.0), mix(20.0, 220.0), mix(30.0, 40.0), 255])
    });
    let generated = generate(png(red_on_green), JobOptions::default()).await.unwrap();
    let model = read_glb(&generated.file).unwrap();
    for side in 0..8 {
        let view = View { azimuth: side as f32 * std::f32::consts::FRAC_PI_4, ..View::front(160) };
        let picture = render(&model, &view).unwrap();
        let greenish = picture.pixels().iter().filter(|[r, g, b, _]| g > r && g > b).count();
        assert_eq!(greenish, 0, "side {side}");
    }
}

#[tokio::test]
async fn every_format_comes_with_its_media_type() {
    let file = png(specimens::draw("vase", 160, 4));
    for (format, start) in [
        (ModelFormat::Glb, b"glTF".as_slice()),
        (ModelFormat::Obj, b"#"),
        (ModelFormat::Ply, b"ply\n"),
        (ModelFormat::Stl, b"ORFEAS"),
    ] {
        let generated = generate(file.clone(), JobOptions { format, ..fast() }).await.unwrap();
        assert!(generated.file.starts_with(start), "{format}");
        assert_eq!(generated.media_type, format.media_type());
    }
}

#[tokio::test]
async fn a_model_without_texture_has_none() {
    let options = JobOptions { texture: false, ..fast() };
    let generated = generate(png(specimens::draw("star", 160, 4)), options).await.unwrap();
    let model = read_glb(&generated.file).unwrap();
    assert!(model.texture.is_none() && model.mesh.uvs().is_none() && model.mesh.normals().is_some());
    assert!(!generated.stage_seconds.iter().any(|(stage, _)| *stage == "texture"));
}

#[tokio::test]
async fn a_whole_picture_is_a_cushion_and_an_empty_one_has_no_subject() {
    let plain = png(RgbaImage::from_pixel(80, 50, Rgba([90, 120, 150, 255])));
    let options = JobOptions { remove_background: BackgroundRemoval::Never, ..fast() };
    let report = generate(plain.clone(), options).await.unwrap().report;
    assert!(report.watertight && report.genus == Some(0), "{report:?}");
    assert!(matches!(generate(plain, fast()).await, Err(PipelineError::NoSubject)));
}

/// A watertight manifold without floaters and with no more faces than asked for.
fn assert_sound(name: &str, generated: &Generated, faces_max: usize) {
    let report = &generated.report;
    assert!(report.watertight && report.manifold && report.degenerate_faces == 0, "{name}: {report:?}");
    assert!(report.faces <= faces_max && report.volume > 0.0, "{name}: {report:?}");
    let longest = report.bounds.unwrap().size().into_iter().fold(0.0, f32::max);
    assert!((longest - 1.0).abs() < 1e-3, "{name}: {report:?}");
}

#[tokio::test]
async fn hair_thin_tiny_and_very_long_pictures_give_solids() {
    let on = |side: (u32, u32), inside: &dyn Fn(u32, u32) -> bool| {
        RgbaImage::from_fn(side.0, side.1, |x, y| Rgba([200, 90, 40, if inside(x, y) { 255 } else { 0 }]))
    };
    let pictures = [
        ("a line of one pixel", on((200, 200), &|x, y| x == 100 && (20..180).contains(&y))),
        ("a diagonal of one pixel", on((300, 300), &|x, y| x == y && (30..270).contains(&x))),
        ("sixteen pixels a side", on((16, 16), &|x, y| (3..12).contains(&x) && (5..14).contains(&y))),
        ("a few pixels", on((16, 16), &|x, y| (7..9).contains(&x) && (7..9).contains(&y))),
        ("a strip", on((16, 4000), &|x, y| (4..12).contains(&x) && (100..3900).contains(&y))),
        ("a strip on its side", on((4000, 16), &|x, y| (100..3900).contains(&x) && (4..12).contains(&y))),
    ];
    for (name, picture) in pictures {
        let generated =
            generate(png(picture), fast()).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_sound(name, &generated, 30_000);
        assert_eq!(generated.report.components, 1, "{name}");
    }
}

#[tokio::test]
async fn a_picture_of_nothing_but_transparency_has_no_subject() {
    let empty = RgbaImage::from_pixel(120, 90, Rgba([200, 10, 10, 0]));
    assert!(matches!(generate(png(empty), fast()).await, Err(PipelineError::NoSubject)));
}

/// The corpus stands beside the repository; where it is not, there is nothing to look at.
#[tokio::test]
async fn every_good_picture_of_the_corpus_becomes_one_sound_solid() {
    let corpus = std::env::var_os("ORFEAS_CORPUS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpus"),
        std::path::PathBuf::from,
    );
    let Ok(entries) = std::fs::read_dir(corpus.join("good")) else {
        eprintln!("skipped: no corpus at {}", corpus.display());
        return;
    };
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| {
        ["jpg", "png", "webp"].iter().any(|e| file.extension().is_some_and(|extension| extension == *e))
    });
    files.sort();
    assert!(!files.is_empty(), "no pictures in {}", corpus.display());
    let inference = Inference::start(InferenceConfig::default()).unwrap();
    for file in files {
        let name = file.display().to_string();
        let options = JobOptions { target_faces: Some(12_000), ..fast() };
        let image = std::fs::read(&file).unwrap().into();
        let settings = Settings::decide(&options);
        let request = GenerationRequest { image, job_type: JobType::Generation3d, settings };
        let generated = pipeline::generate(&inference, None, request, Box::new(Unwatched)).await.outcome;
        let generated = generated.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_sound(&name, &generated, 12_000);
        // A subject may be in two or three pieces, as a picture shows it; more is dirt.
        assert!(generated.report.components <= 3, "{name}: {:?}", generated.report);
        let depth = generated.report.bounds.unwrap().size()[2];
        assert!((0.02..0.6).contains(&depth), "{name}: neither a wafer nor a balloon: {depth}");
    }
}

/// A JPEG of a red square on blue whose EXIF block, XMP packet and comment all hold `secret`.
fn jpeg_with_metadata(secret: &str) -> Vec<u8> {
    let picture = image::RgbImage::from_fn(96, 96, |x, y| {
        let inside = (24..72).contains(&x) && (20..76).contains(&y);
        if inside { image::Rgb([200, 40, 30]) } else { image::Rgb([60, 90, 160]) }
    });
    let mut plain = Cursor::new(Vec::new());
    picture.write_to(&mut plain, ImageFormat::Jpeg).unwrap();
    let plain = plain.into_inner();
    // Little-endian TIFF: the artist, whose text lies behind the directory.
    let mut exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x3b\x01\x02\0".to_vec();
    exif.extend(u32::try_from(secret.len() + 1).unwrap().to_le_bytes());
    exif.extend(26u32.to_le_bytes());
    exif.extend([0; 4]);
    exif.extend(secret.bytes().chain([0]));
    let xmp = format!("http://ns.adobe.com/xap/1.0/\0<x:xmpmeta>{secret}</x:xmpmeta>").into_bytes();
    let mut file = plain[..2].to_vec();
    for (marker, body) in [(0xe1, exif), (0xe1, xmp), (0xfe, secret.as_bytes().to_vec())] {
        file.extend([0xff, marker]);
        file.extend(u16::try_from(body.len() + 2).unwrap().to_be_bytes());
        file.extend(body);
    }
    file.extend_from_slice(&plain[2..]);
    file
}

#[tokio::test]
async fn nothing_that_a_picture_says_about_its_maker_is_in_the_model() {
    let secret = "Jane-Doe-52.5200N-13.4050E";
    let picture = jpeg_with_metadata(secret);
    let holds = |file: &[u8]| file.windows(secret.len()).any(|window| window == secret.as_bytes());
    assert!(holds(&picture));
    for format in ModelFormat::ALL {
        let options = JobOptions { format, target_faces: Some(500), ..fast() };
        let file = generate(picture.clone(), options).await.unwrap().file;
        assert!(!holds(&file), "{format}");
        let has_exif = file.windows(6).any(|window| window == b"Exif\0\0");
        assert!(!has_exif, "{format}");
    }
}
