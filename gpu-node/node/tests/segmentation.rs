//! The background removal against subjects whose outline is known.
#![allow(
    clippy::unwrap_used,
    reason = "a test says so by failing; helpers outside of test functions count as well"
)]

mod specimens;

use std::io::Cursor;

use image::{ImageFormat, RgbaImage};
use orfeas_node::pipeline::{PipelineError, cut_out};
use orfeas_protocol::options::BackgroundRemoval;

fn png(picture: &image::DynamicImage) -> Vec<u8> {
    let mut file = Cursor::new(Vec::new());
    picture.write_to(&mut file, ImageFormat::Png).unwrap();
    file.into_inner()
}

#[test]
fn drawn_subjects_are_cut_out_of_plain_gradient_and_textured_backgrounds() {
    let side = 240;
    for (kind, threshold) in specimens::BACKGROUNDS {
        let mut scores = Vec::new();
        for (index, subject) in specimens::SUBJECTS.iter().enumerate() {
            for round in 0..2 {
                let truth = specimens::draw(subject, side, index as u64 + 40 * round + 1);
                let picture = specimens::compose(&truth, kind, 1000 * round + index as u64);
                let found = cut_out(&png(&picture.into()), BackgroundRemoval::Auto).unwrap();
                scores.push(specimens::intersection_over_union(&found.rgba, &truth));
            }
        }
        let mean = scores.iter().sum::<f64>() / scores.len() as f64;
        assert!(mean >= threshold, "{kind}: mean {mean:.4} of {scores:.3?}");
    }
}

/// The mean score over the drawn subjects of the pictures that `compose` makes of them.
fn mean_score(
    side: u32,
    compose: impl Fn(RgbaImage, u64) -> (image::RgbImage, RgbaImage),
) -> (f64, Vec<f64>) {
    let mut scores = Vec::new();
    for (index, subject) in specimens::SUBJECTS.iter().enumerate() {
        let seed = index as u64 + 1;
        let (picture, truth) = compose(specimens::draw(subject, side, seed), seed);
        let found = cut_out(&png(&picture.into()), BackgroundRemoval::Auto);
        scores.push(found.map_or(0.0, |found| specimens::intersection_over_union(&found.rgba, &truth)));
    }
    (scores.iter().sum::<f64>() / scores.len() as f64, scores)
}

#[test]
fn soft_shadows_are_mostly_left_out() {
    for kind in ["plain", "gradient"] {
        let shadow =
            |truth: RgbaImage, seed: u64| (specimens::compose_with_shadow(&truth, kind, 500 + seed), truth);
        let (mean, scores) = mean_score(240, shadow);
        assert!(mean >= 0.88, "{kind}: mean {mean:.4} of {scores:.3?}");
    }
}

#[test]
fn subjects_that_leave_the_picture_are_cut_out() {
    let cropped = |whole: RgbaImage, seed: u64| {
        let truth = image::imageops::crop_imm(&whole, 60, 0, 180, 200).to_image();
        (specimens::compose(&truth, "gradient", seed), truth)
    };
    let (mean, scores) = mean_score(240, cropped);
    assert!(mean >= 0.93, "mean {mean:.4} of {scores:.3?}");
}

#[test]
fn subjects_of_nearly_the_background_s_colour_are_cut_out() {
    let ground = [150.0, 140.0, 130.0];
    let close = |drawn: RgbaImage, seed: u64| {
        let truth = specimens::camouflaged(&drawn, ground, 20.0);
        let mut dice = specimens::Dice::new(seed);
        let picture = image::RgbImage::from_fn(truth.width(), truth.height(), |x, y| {
            let [r, g, b, a] = truth.get_pixel(x, y).0.map(f32::from);
            let noise = 2.0 * (dice.roll() + dice.roll() - 1.0);
            let mix =
                |front: f32, behind: f32| (front * a / 255.0 + behind * (1.0 - a / 255.0) + noise) as u8;
            image::Rgb([mix(r, ground[0]), mix(g, ground[1]), mix(b, ground[2])])
        });
        (picture, truth)
    };
    let (mean, scores) = mean_score(240, close);
    assert!(mean >= 0.95, "mean {mean:.4} of {scores:.3?}");
}

#[test]
fn bars_above_and_below_are_no_background() {
    // A film still: sand that fills the frame between black bars, and something on it.
    let truth = image::imageops::resize(
        &specimens::draw("star", 160, 4),
        160,
        160,
        image::imageops::FilterType::Triangle,
    );
    let still = specimens::compose(&truth, "textured", 11);
    let mut picture = image::RgbImage::new(160, 220);
    image::imageops::replace(&mut picture, &still, 0, 30);
    let mut framed = RgbaImage::new(160, 220);
    image::imageops::replace(&mut framed, &truth, 0, 30);
    let found = cut_out(&png(&picture.into()), BackgroundRemoval::Auto).unwrap();
    let score = specimens::intersection_over_union(&found.rgba, &framed);
    assert!(score > 0.85, "{score:.3}");
}

#[test]
fn a_picture_that_nothing_stands_out_of_is_not_taken_whole() {
    // A busy scene is beyond a colour model; what it finds is still a part of the picture, about where the subject is.
    let (mean, scores) = mean_score(240, |truth, seed| (specimens::scene(&truth, seed), truth));
    assert!(mean >= 0.4, "mean {mean:.4} of {scores:.3?}");
}

#[test]
fn an_alpha_channel_that_cuts_out_is_the_outline() {
    let truth = specimens::draw("mug", 200, 7);
    let found = cut_out(&png(&truth.clone().into()), BackgroundRemoval::Auto).unwrap();
    assert!(specimens::intersection_over_union(&found.rgba, &truth) > 0.98);
}

#[test]
fn always_segments_what_already_has_an_alpha_channel() {
    // The caller's cut-out kept a coloured card around the subject: only `always` removes it.
    let subject = specimens::draw("vase", 240, 3);
    let card = RgbaImage::from_fn(240, 240, |x, y| {
        let behind = image::Rgba([40, 90, 200, 255]);
        let image::Rgba([r, g, b, a]) = *subject.get_pixel(x, y);
        let outside = x.min(y).min(239 - x).min(239 - y) < 1;
        match (outside, a) {
            (true, _) => image::Rgba([0; 4]),
            (_, 128..) => image::Rgba([r, g, b, 255]),
            _ => behind,
        }
    });
    let file = png(&card.into());
    let kept = cut_out(&file, BackgroundRemoval::Auto).unwrap();
    assert!(specimens::intersection_over_union(&kept.rgba, &subject) < 0.5);
    let cut = cut_out(&file, BackgroundRemoval::Always).unwrap();
    assert!(specimens::intersection_over_union(&cut.rgba, &subject) > 0.9);
}

#[test]
fn pictures_without_a_subject_say_so() {
    let plain = image::RgbImage::from_pixel(64, 48, image::Rgb([120, 130, 140]));
    let empty = RgbaImage::from_pixel(64, 48, image::Rgba([255, 0, 0, 0]));
    for picture in [png(&plain.clone().into()), png(&empty.into())] {
        assert!(matches!(cut_out(&picture, BackgroundRemoval::Auto), Err(PipelineError::NoSubject)));
    }
    let whole = cut_out(&png(&plain.into()), BackgroundRemoval::Never).unwrap();
    assert!(whole.rgba.chunks_exact(4).all(|pixel| pixel[3] == 255));
}
