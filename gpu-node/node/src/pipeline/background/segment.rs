//! Which pixels belong to the subject, from colour alone: a smooth backdrop with its texture against a mixture of
//! subject colours, each learnt from what the other leaves, as GrabCut alternates them (Rother, Kolmogorov and
//! Blake, 2004), with a random walker in place of the cut.

use super::backdrop::{Backdrop, Observation, unit_position};
use super::flood;
use super::mixture::Mixture;
use super::scene;
use super::shadow;
use super::walker::{self, Belief};
use crate::pipeline::PipelineError;
use crate::pipeline::raster::Raster;
use crate::pipeline::stage::Tick;

/// Width of the border that is taken for background at first, as a part of the shorter side.
const BORDER_PART: f32 = 0.03;

/// Rounds of learning the colours from the last segmentation.
const ROUNDS: usize = 3;

/// Sweeps of the random walker: from nothing, and from the last round's field.
const FIRST_SWEEPS: usize = 40;
const SWEEPS: usize = 20;

/// Pixels that a backdrop is fitted to.
const OBSERVATIONS_MAX: usize = 3000;

/// Colour noise of eight-bit, lossily compressed pictures; no model is surer than this.
const NOISE_DEVIATION: f32 = 2.0 / 255.0;

/// Components of the backdrop's texture and of the subject's colours.
const BACKDROP_COMPONENTS: usize = 4;
const SUBJECT_COMPONENTS: usize = 6;

/// ln of the density of "any other colour": a part of the uniform density over the colour cube, which is one.
const ODD_SUBJECT_LOG_DENSITY: f32 = -1.5;
const ODD_BACKDROP_LOG_DENSITY: f32 = -6.0;

/// Log odds of foreground at the picture's border and at its centre.
const BORDER_LOG_ODDS: f32 = -2.0;
const CENTRE_LOG_ODDS: f32 = 1.0;

/// Added to the log odds of what hangs together with the border without an edge: soft shadows, glows.
const REACHED_LOG_ODDS: f32 = -3.0;

/// A border that the best backdrop does not explain is a scene: at three parts of its pixels, ordered by their
/// distance, the distance is beyond these. A subject that reaches the border leaves the median alone, a texture the
/// last tenth.
const SCENE_DISTANCES: [(f32, f32); 3] = [(0.5, 0.006), (0.75, 0.04), (0.9, 0.13)];

/// Beyond this many median distances from the backdrop, a pixel of the border belongs to a subject that reaches it.
const OUTLIER_DISTANCE: f32 = 4.0;

/// The log odds at which a belief has most of its weight.
const FIRM_LOG_ODDS: f32 = 6.0;

/// Pull of a firm belief against one link between neighbours.
const BELIEF_WEIGHT: f32 = 0.25;

/// The probability of subject for each pixel of a picture of a few hundred pixels a side.
///
/// # Errors
/// [`PipelineError::NoSubject`] when the picture gives nothing to learn from; what `tick` answers.
pub(super) fn segment(colour: &Raster<[f32; 3]>, tick: &mut Tick<'_>) -> Result<Raster<f32>, PipelineError> {
    tick(0.0)?;
    let rim = border_width(colour);
    let in_rim = |x: usize, y: usize| depth(colour, x, y) < rim;
    let (at_border, usual) = fit_backdrop(colour, in_rim).ok_or(PipelineError::NoSubject)?;
    if is_scene(colour, &at_border, usual, in_rim) {
        return scene::segment(colour, tick);
    }
    tick(0.1)?;
    let reached = flood::reach_from_border(colour, |x, y| {
        in_rim(x, y)
            && at_border.distance(unit_position(colour, x, y), colour.at(x, y)) <= OUTLIER_DISTANCE * usual
    });
    let backdrop = fit_backdrop(colour, |x, y| reached.at(x, y) || in_rim(x, y));
    let (backdrop, _) = backdrop.ok_or(PipelineError::NoSubject)?;
    tick(0.2)?;
    let residual = backdrop.residual(colour);
    let border = select(&residual, in_rim);
    let texture = Mixture::fit(&inliers(border), BACKDROP_COMPONENTS, NOISE_DEVIATION);
    let texture = texture.ok_or(PipelineError::NoSubject)?;
    tick(0.3)?;
    let mut field = solve(
        colour,
        &residual,
        &texture,
        &reached,
        None,
        Raster::filled(colour.width(), colour.height(), 0.5),
    );
    for round in 0..ROUNDS {
        let mut tick = |part: f32| tick(0.4 + 0.5 * (round as f32 + part) / ROUNDS as f32);
        let Some(next) = learn_and_solve(colour, &reached, &field, &mut tick)? else { break };
        field = next;
    }
    tick(0.9)?;
    if let Some((backdrop, _)) = fit_backdrop(colour, |x, y| field.at(x, y) < 0.2) {
        tick(0.95)?;
        shadow::clear(colour, &backdrop, &mut field);
    }
    Ok(field)
}

fn is_scene(
    colour: &Raster<[f32; 3]>,
    backdrop: &Backdrop,
    usual: f32,
    in_rim: impl Fn(usize, usize) -> bool,
) -> bool {
    if usual < SCENE_DISTANCES[0].1 {
        return false;
    }
    let rim = pixels(colour).filter(|&(x, y)| in_rim(x, y));
    let mut distances: Vec<f32> =
        rim.map(|(x, y)| backdrop.distance(unit_position(colour, x, y), colour.at(x, y))).collect();
    distances.sort_by(f32::total_cmp);
    SCENE_DISTANCES.iter().all(|(part, least)| {
        let rank = (distances.len().saturating_sub(1)) as f32 * part;
        distances.get(rank as usize).is_some_and(|distance| distance > least)
    })
}

/// One round; `None` when either side has nothing left to learn from.
fn learn_and_solve(
    colour: &Raster<[f32; 3]>,
    reached: &Raster<bool>,
    field: &Raster<f32>,
    tick: &mut Tick<'_>,
) -> Result<Option<Raster<f32>>, PipelineError> {
    tick(0.0)?;
    let Some((backdrop, _)) = fit_backdrop(colour, |x, y| field.at(x, y) < 0.2) else { return Ok(None) };
    tick(0.3)?;
    let residual = backdrop.residual(colour);
    let behind = select(&residual, |x, y| field.at(x, y) < 0.2);
    let before = select(colour, |x, y| field.at(x, y) > 0.8);
    let texture = Mixture::fit(&behind, BACKDROP_COMPONENTS, NOISE_DEVIATION);
    let subject = Mixture::fit(&before, SUBJECT_COMPONENTS, NOISE_DEVIATION);
    let (Some(texture), Some(subject)) = (texture, subject) else { return Ok(None) };
    tick(0.6)?;
    Ok(Some(solve(colour, &residual, &texture, reached, Some(&subject), field.clone())))
}

fn solve(
    colour: &Raster<[f32; 3]>,
    residual: &Raster<[f32; 3]>,
    texture: &Mixture,
    reached: &Raster<bool>,
    subject: Option<&Mixture>,
    start: Raster<f32>,
) -> Raster<f32> {
    let half_side = colour.width().min(colour.height()) as f32 / 2.0;
    let beliefs = Raster::from_fn(colour.width(), colour.height(), |x, y| {
        let background = texture.log_density(residual.at(x, y)).max(ODD_BACKDROP_LOG_DENSITY);
        let foreground = subject.map_or(0.0, |s| s.log_density(colour.at(x, y)).max(ODD_SUBJECT_LOG_DENSITY));
        let inward = (depth(colour, x, y) as f32 / (0.5 * half_side)).min(1.0);
        let prior = if reached.at(x, y) { REACHED_LOG_ODDS } else { 0.0 }
            + BORDER_LOG_ODDS
            + (CENTRE_LOG_ODDS - BORDER_LOG_ODDS) * inward;
        let log_odds = foreground - background + prior;
        Belief {
            foreground: 1.0 / (1.0 + (-log_odds).exp()),
            weight: BELIEF_WEIGHT * (log_odds.abs() / FIRM_LOG_ODDS).clamp(0.01, 1.0),
        }
    });
    walker::walk(colour, &beliefs, start, if subject.is_none() { FIRST_SWEEPS } else { SWEEPS })
}

/// Pixels from the nearest border: zero on the outermost.
fn depth<T: Copy>(raster: &Raster<T>, x: usize, y: usize) -> usize {
    x.min(y).min(raster.width() - 1 - x).min(raster.height() - 1 - y)
}

fn border_width<T: Copy>(raster: &Raster<T>) -> usize {
    let shorter = raster.width().min(raster.height());
    ((shorter as f32 * BORDER_PART) as usize).max(2)
}

/// The backdrop of the pixels to keep, and their median distance from it.
fn fit_backdrop(colour: &Raster<[f32; 3]>, keep: impl Fn(usize, usize) -> bool) -> Option<(Backdrop, f32)> {
    let observe = |(x, y)| Observation { position: unit_position(colour, x, y), colour: colour.at(x, y) };
    let observations: Vec<_> = pixels(colour).filter(|&(x, y)| keep(x, y)).map(observe).collect();
    let stride = observations.len().div_ceil(OBSERVATIONS_MAX).max(1);
    Backdrop::fit(&observations.into_iter().step_by(stride).collect::<Vec<_>>())
}

/// The residuals without those far beyond the median: there the subject reaches the border.
fn inliers(residuals: Vec<[f32; 3]>) -> Vec<[f32; 3]> {
    let length = |r: &[f32; 3]| r.iter().map(|v| v * v).sum::<f32>().sqrt();
    let mut lengths: Vec<f32> = residuals.iter().map(length).collect();
    if lengths.is_empty() {
        return residuals;
    }
    let middle = lengths.len() / 2;
    let median = *lengths.select_nth_unstable_by(middle, f32::total_cmp).1;
    let limit = OUTLIER_DISTANCE * median.max(NOISE_DEVIATION);
    residuals.into_iter().filter(|residual| length(residual) <= limit).collect()
}

fn pixels<T: Copy>(raster: &Raster<T>) -> impl Iterator<Item = (usize, usize)> + use<T> {
    let width = raster.width();
    (0..width * raster.height()).map(move |index| (index % width, index / width))
}

fn select<T: Copy>(raster: &Raster<T>, keep: impl Fn(usize, usize) -> bool) -> Vec<T> {
    pixels(raster).filter(|&(x, y)| keep(x, y)).map(|(x, y)| raster.at(x, y)).collect()
}
