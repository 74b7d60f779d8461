//! The `background` stage: which part of the picture is the subject.
//!
//! ```text
//!  alpha that cuts something out ──▶ the mask
//!  weights of a network are installed (network.rs) ──▶ what it sees
//!  otherwise: backdrop + mixtures + random walker (segment.rs, ~400 pixels) ──▶ guided enlargement ──▶ the mask
//!             a border too busy for a backdrop: what stands out + mixtures + random walker (scene.rs) ──▶ the same
//! ```

mod backdrop;
mod flood;
mod guided;
mod letterbox;
mod mixture;
pub(crate) mod network;
mod parts;
mod saliency;
mod scene;
mod segment;
mod shadow;
mod superpixels;
mod walker;

use orfeas_protocol::options::BackgroundRemoval;

pub(crate) use network::SubjectNetwork;

use super::PipelineError;
use super::decode::Picture;
use super::raster::{self, Raster};
use super::stage::{Tick, within};

/// The longest side of a mask: finer than any surface grid.
const MASK_SIDE_MAX: usize = 1024;

/// The longest side on which colours are segmented.
const SEGMENT_SIDE: usize = 384;

/// An alpha channel counts as a cut-out when at least this part of the picture is more transparent than not.
const CUT_OUT_PART_MIN: f32 = 0.005;

/// A subject is at least this part of the picture…
const SUBJECT_PART_MIN: f32 = 0.001;

/// …and, found by colour, at most this part: beyond it, it is the background that was not found.
const SUBJECT_PART_MAX: f32 = 0.99;

/// A separate part smaller than this beside the largest is dirt: in a cut-out that somebody made, and in one found by
/// colour, which mistakes more.
const DRAWN_PART_MIN: f32 = 0.002;
const FOUND_PART_MIN: f32 = 0.05;

/// An enclosed gap smaller than this beside the largest part is noise rather than a hole.
const PINHOLE_DRAWN: f32 = 0.0003;
const PINHOLE_FOUND: f32 = 0.002;

/// Lines thinner than a pixel are drawn half transparent; they belong to the subject as well.
const WIRE_GAIN: f32 = 1.35;

/// How much of each pixel the subject covers, 0 to 1; at most 1024 pixels a side, over the same extent as the picture.
///
/// # Errors
/// [`PipelineError::NoSubject`] when nothing, or all, of the picture stands out; what `tick` answers, which is asked
/// between the steps of the work.
pub(crate) fn remove(
    picture: &Picture,
    removal: BackgroundRemoval,
    network: Option<&SubjectNetwork>,
    tick: &mut Tick<'_>,
) -> Result<Raster<f32>, PipelineError> {
    let (width, height) = raster::fit(picture.colour.width(), picture.colour.height(), MASK_SIDE_MAX);
    let alpha = picture.colour.map(|[.., a]| f32::from(a) / 255.0).resized(width, height);
    tick(0.1)?;
    let transparent = part(&alpha, |a| a < 0.5);
    match removal {
        BackgroundRemoval::Never => Ok(alpha.map(|_| 1.0)),
        BackgroundRemoval::Auto if transparent >= CUT_OUT_PART_MIN => {
            let mask = alpha.map(|a| (a * WIRE_GAIN).min(1.0));
            accept(mask, DRAWN_PART_MIN, PINHOLE_DRAWN, 1.0)
        }
        BackgroundRemoval::Auto | BackgroundRemoval::Always => {
            let mask = match network {
                Some(network) => network.coverage(picture, (width, height), &mut within(tick, 0.1, 0.9))?,
                None => {
                    let flattened = flattened(picture, (width, height));
                    tick(0.2)?;
                    by_colour(&flattened, &mut within(tick, 0.2, 0.9))?
                }
            };
            tick(0.9)?;
            accept(mask.zip(&alpha, |m, a| m.min(a)), FOUND_PART_MIN, PINHOLE_FOUND, SUBJECT_PART_MAX)
        }
    }
}

fn accept(
    mut mask: Raster<f32>,
    relative_part_min: f32,
    pinhole: f32,
    part_max: f32,
) -> Result<Raster<f32>, PipelineError> {
    parts::clean(&mut mask, relative_part_min, pinhole);
    let subject = part(&mask, |m| m >= 0.5);
    if (SUBJECT_PART_MIN..=part_max).contains(&subject) { Ok(mask) } else { Err(PipelineError::NoSubject) }
}

fn part(mask: &Raster<f32>, counts: impl Fn(f32) -> bool) -> f32 {
    mask.samples().iter().filter(|value| counts(**value)).count() as f32 / mask.samples().len() as f32
}

/// The picture over neutral grey, 0 to 1.
fn flattened(picture: &Picture, (width, height): (usize, usize)) -> Raster<[f32; 3]> {
    let over = |[r, g, b, a]: [u8; 4]| {
        let alpha = f32::from(a) / 255.0;
        [r, g, b].map(|value| f32::from(value) / 255.0 * alpha + 0.5 * (1.0 - alpha))
    };
    picture.colour.map(over).resized(width, height)
}

/// What is between the bars of a letterboxed picture is segmented; the bars are background.
fn by_colour(whole: &Raster<[f32; 3]>, tick: &mut Tick<'_>) -> Result<Raster<f32>, PipelineError> {
    let (columns, rows) = letterbox::content(whole);
    if (columns.len(), rows.len()) == (whole.width(), whole.height()) {
        return between_bars(whole, tick);
    }
    let inner =
        Raster::from_fn(columns.len(), rows.len(), |x, y| whole.at(columns.start + x, rows.start + y));
    let mask = between_bars(&inner, tick)?;
    Ok(Raster::from_fn(whole.width(), whole.height(), |x, y| {
        let within = columns.contains(&x) && rows.contains(&y);
        if within { mask.at(x - columns.start, y - rows.start) } else { 0.0 }
    }))
}

fn between_bars(fine: &Raster<[f32; 3]>, tick: &mut Tick<'_>) -> Result<Raster<f32>, PipelineError> {
    let coarse = fine.fitted(SEGMENT_SIDE);
    let mask = segment::segment(&coarse, &mut within(tick, 0.0, 0.8))?;
    tick(0.8)?;
    Ok(guided::enlarge(&mask, &coarse, fine).map(steepen))
}

/// The enlargement leaves a boundary as soft as a window of the coarse grid; pictures are sharper.
fn steepen(value: f32) -> f32 {
    let t = ((value - 0.2) / 0.6).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}
