//! Segmentation of a scene: a photograph whose border is no backdrop. What stands out (saliency.rs) is where the
//! subject's colours are learnt, what does not is where the scene's are; then both are learnt anew from what the
//! other leaves, as in segment.rs.

use super::mixture::Mixture;
use super::saliency::saliency;
use super::walker::{self, Belief};
use crate::pipeline::PipelineError;
use crate::pipeline::raster::{Raster, box_mean};
use crate::pipeline::stage::{Tick, within};

/// Rounds of learning the colours from the last segmentation.
const ROUNDS: usize = 2;

/// Sweeps of the random walker in a round.
const SWEEPS: usize = 30;

const SCENE_COMPONENTS: usize = 8;
const SUBJECT_COMPONENTS: usize = 6;

/// No colour model of a photograph is surer than this.
const NOISE_DEVIATION: f32 = 4.0 / 255.0;

/// ln of the density of "any other colour", on either side.
const ODD_LOG_DENSITY: f32 = -2.0;

/// Colours overlap in scenes: what they say counts this much, and never more than the bound.
const COLOUR_TRUST: f32 = 0.7;
const COLOUR_LOG_ODDS_MAX: f32 = 3.0;

/// Log odds of what stands out most; of what stands out least, the same below zero.
const SALIENT_LOG_ODDS: f32 = 4.0;

/// Log odds of background on the outermost pixels: subjects are framed.
const BORDER_LOG_ODDS: f32 = -2.0;

/// What stands out is a little narrower than the better half: surroundings are raised by what they surround.
const LEVEL_OVER_OTSU: f32 = 0.15;

/// Colours of the subject are learnt where it is sure, those of the scene where the subject is not likely.
const SURE_SUBJECT: f32 = 0.9;
const SURE_SCENE: f32 = 0.5;

/// How far inwards the border counts, as a part of the shorter side.
const BORDER_PART: f32 = 0.06;

/// The log odds at which a belief has most of its weight, and its pull then against one link between neighbours.
const FIRM_LOG_ODDS: f32 = 6.0;
const BELIEF_WEIGHT: f32 = 0.12;

/// Softens the patches' outlines in what stands out, in pixels.
const PATCH_BLUR: usize = 3;

/// The probability of subject for each pixel.
///
/// # Errors
/// [`PipelineError::NoSubject`] when nothing stands out; what `tick` answers.
pub(super) fn segment(colour: &Raster<[f32; 3]>, tick: &mut Tick<'_>) -> Result<Raster<f32>, PipelineError> {
    let salient = box_mean(&saliency(colour, &mut within(tick, 0.1, 0.5))?, PATCH_BLUR);
    tick(0.5)?;
    let level = otsu(salient.samples()) + LEVEL_OVER_OTSU;
    let prior = Raster::from_fn(colour.width(), colour.height(), |x, y| {
        let value = salient.at(x, y);
        let above = if value > level { (value - level) / (1.0 - level) } else { (value - level) / level };
        SALIENT_LOG_ODDS * above + border(colour, x, y)
    });
    let mut field = prior.map(|log_odds| 1.0 / (1.0 + (-log_odds).exp()));
    for round in 0..ROUNDS {
        let mut tick = |part: f32| tick(0.5 + 0.5 * (round as f32 + part) / ROUNDS as f32);
        let learn = |keep: &dyn Fn(f32) -> bool, components: usize| {
            let pairs = colour.samples().iter().zip(field.samples());
            let kept: Vec<_> = pairs.filter(|(_, value)| keep(**value)).map(|(c, _)| *c).collect();
            Mixture::fit(&kept, components, NOISE_DEVIATION)
        };
        let scene = learn(&|value| value < SURE_SCENE, SCENE_COMPONENTS).ok_or(PipelineError::NoSubject)?;
        tick(0.2)?;
        let subject = learn(&|value| value > SURE_SUBJECT, SUBJECT_COMPONENTS);
        let subject = subject.ok_or(PipelineError::NoSubject)?;
        tick(0.4)?;
        let beliefs = colour.zip(&prior, |colour, prior| {
            let foreground = subject.log_density(colour).max(ODD_LOG_DENSITY);
            let background = scene.log_density(colour).max(ODD_LOG_DENSITY);
            let by_colour = COLOUR_TRUST * (foreground - background);
            let log_odds = by_colour.clamp(-COLOUR_LOG_ODDS_MAX, COLOUR_LOG_ODDS_MAX) + prior;
            Belief {
                foreground: 1.0 / (1.0 + (-log_odds).exp()),
                weight: BELIEF_WEIGHT * (log_odds.abs() / FIRM_LOG_ODDS).clamp(0.01, 1.0),
            }
        });
        tick(0.7)?;
        field = walker::walk(colour, &beliefs, field, SWEEPS);
    }
    Ok(field)
}

fn border(colour: &Raster<[f32; 3]>, x: usize, y: usize) -> f32 {
    let (width, height) = (colour.width(), colour.height());
    let depth = x.min(y).min(width - 1 - x).min(height - 1 - y) as f32;
    let reach = BORDER_PART * width.min(height) as f32;
    BORDER_LOG_ODDS * (1.0 - depth / reach.max(1.0)).max(0.0)
}

/// The level that parts values from 0 to 1 into two groups that are as different as can be (Otsu, 1979), kept from
/// the ends.
fn otsu(values: &[f32]) -> f32 {
    const BINS: usize = 64;
    let mut counts = [0.0_f64; BINS];
    for value in values {
        counts[((value * BINS as f32) as usize).min(BINS - 1)] += 1.0;
    }
    let total: f64 = counts.iter().sum();
    let weighted: f64 = counts.iter().enumerate().map(|(bin, count)| bin as f64 * count).sum();
    let (mut below, mut sum_below) = (0.0, 0.0);
    let mut best = (0.0, BINS / 2);
    for (bin, count) in counts.iter().enumerate() {
        below += count;
        sum_below += bin as f64 * count;
        let above = total - below;
        if below == 0.0 || above <= 0.0 {
            continue;
        }
        let apart = sum_below / below - (weighted - sum_below) / above;
        let spread = below * above * apart * apart;
        if spread > best.0 {
            best = (spread, bin + 1);
        }
    }
    (best.1 as f32 / BINS as f32).clamp(0.15, 0.85)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn otsu_parts_two_groups_between_them() {
        let values: Vec<f32> = (0..100).map(|i| if i < 70 { 0.2 } else { 0.75 } + 0.001 * i as f32).collect();
        let level = otsu(&values);
        assert!((0.27..0.77).contains(&level), "{level}");
    }
}
