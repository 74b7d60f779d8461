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
