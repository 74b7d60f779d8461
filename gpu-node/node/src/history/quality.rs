//! Which quality a caller wants who does not say: what they asked for, for pictures like this one, of late.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use orfeas_protocol::preset::Preset;
use orfeas_protocol::{TenantId, Timestamp};

use super::outcome::{ImageTraits, Outcome};
use crate::pipeline::{QualitySource, Settings};

/// Wishes that a tenant is remembered by: with [`HALF_LIFE`] more would not change the average.
const WISHES_MAX: usize = 64;
/// Tenants that are remembered; the one who asked longest ago goes first.
const TENANTS_MAX: usize = 4_096;
/// A wish counts half after this long: habits change over weeks.
const HALF_LIFE: Duration = Duration::from_secs(14 * 24 * 60 * 60);
/// The wishes must add up to this much of a fresh one for the same kind of picture. One such is enough: what this
/// caller wanted last for a picture like this is a better guess than what anybody wants for any.
const WEIGHT_MIN: f64 = 0.5;

/// Lowers a quality that nobody asked for, preset by preset, as long as the job could never run on this device. What
/// the caller asks for is left as it is: admission refuses it, with its figures.
pub fn within_means(settings: Settings, ever_fits: impl Fn(&Settings) -> bool) -> Settings {
    if settings.quality_source == QualitySource::Request {
        return settings;
    }
    let cheaper = std::iter::successors(Some(settings.clone()), Settings::lowered);
    cheaper.into_iter().find(|settings| ever_fits(settings)).unwrap_or(settings)
}

/// The quality levels that tenants asked for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wishes {
    by_tenant: HashMap<TenantId, Remembered>,
    clock: u64,
}

#[derive(Debug, Clone, Default)]
struct Remembered {
    /// The newest is at the back.
    wishes: VecDeque<Wish>,
    used_at: u64,
}

#[derive(Debug, Clone)]
struct Wish {
    quality: u8,
    traits: ImageTraits,
    at: Timestamp,
}

impl Wishes {
    /// Notes what a caller asked for and got. A wish that was guessed is none, or guesses would feed on themselves.
    pub(crate) fn learn(&mut self, outcome: &Outcome) {
        let Some(quality) = outcome.quality_requested else { return };
        if !outcome.is_success() {
            return;
        }
        self.clock += 1;
        let remembered = self.by_tenant.entry(outcome.tenant.clone()).or_default();
        remembered.used_at = self.clock;
        let wish = Wish { quality, traits: outcome.traits.clone(), at: outcome.created_at };
        remembered.wishes.push_back(wish);
        if remembered.wishes.len() > WISHES_MAX {
            remembered.wishes.pop_front();
        }
        if self.by_tenant.len() > TENANTS_MAX {
            let oldest = self.by_tenant.iter().min_by_key(|(_, remembered)| remembered.used_at);
            oldest.map(|(tenant, _)| tenant.clone()).and_then(|tenant| self.by_tenant.remove(&tenant));
        }
    }

    /// The level of the preset nearest to (or below) the average of the caller's similar wishes; `None` when there
    /// are too few, too old or too different ones.
    pub(crate) fn predict(&self, tenant: &TenantId, traits: &ImageTraits, now: Timestamp) -> Option<u8> {
        let (mut sum, mut weight) = (0.0, 0.0);
        for wish in &self.by_tenant.get(tenant)?.wishes {
            let age = now.since(wish.at).as_secs_f64() / HALF_LIFE.as_secs_f64();
            let similar = similarity(&wish.traits, traits) * 0.5_f64.powf(age);
            sum += similar * f64::from(wish.quality);
            weight += similar;
        }
        // `as` saturates; the average of 1 to 10 is among them.
        (weight >= WEIGHT_MIN).then(|| Preset::for_quality((sum / weight).round() as u8).quality())
    }
}

/// How alike two pictures are: 1 for the same traits, nearly 0 for a small icon and a large photograph.
fn similarity(a: &ImageTraits, b: &ImageTraits) -> f64 {
    let size = f64::from(a.size.distance(b.size));
    let aspect = f64::from((a.aspect.max(0.01) / b.aspect.max(0.01)).log2()).abs();
    let alpha = match (a.has_alpha, b.has_alpha) {
        (Some(a), Some(b)) if a != b => 1.0,
        _ => 0.0,
    };
    let format = if a.format == b.format { 0.0 } else { 0.5 };
    let difference = size + aspect + alpha + format;
    (-difference * difference / 2.0).exp()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use orfeas_protocol::JobOptions;

    use super::super::profile::SizeClass;
    use super::super::tests::outcome;
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    fn traits(size: SizeClass, aspect: f32) -> ImageTraits {
        ImageTraits { size, aspect, has_alpha: Some(false), format: "jpeg".to_owned() }
    }

    fn at(age: Duration) -> Timestamp {
        Timestamp::from_unix_ms((1_000 * DAY - age).as_millis() as u64)
    }

    fn wish(tenant: &str, quality: u8, traits: ImageTraits, age: Duration) -> Outcome {
        Outcome {
            tenant: tenant.parse().unwrap(),
            quality_requested: Some(quality),
            traits,
            created_at: at(age),
            ..outcome()
        }
    }

    fn predict(wishes: &Wishes, tenant: &str, traits: &ImageTraits) -> Option<u8> {
        wishes.predict(&tenant.parse().unwrap(), traits, at(Duration::ZERO))
    }

    fn learned(outcomes: &[Outcome]) -> Wishes {
        let mut wishes = Wishes::default();
        outcomes.iter().for_each(|outcome| wishes.learn(outcome));
        wishes
    }

    #[test]
    fn the_average_of_a_callers_similar_wishes_is_a_presets_level() {
        let square = traits(SizeClass::Medium, 1.0);
        let wishes = learned(&[
            wish("a", 9, square.clone(), DAY),
            wish("a", 6, square.clone(), DAY),
            wish("b", 5, square.clone(), DAY),
        ]);
        assert_eq!(predict(&wishes, "a", &square), Some(7), "7.5, rounded, takes the preset below");
        assert_eq!(predict(&wishes, "b", &square), Some(5));
        assert_eq!(predict(&wishes, "c", &square), None, "nobody's wishes are another's");
    }

    #[test]
    fn a_guess_is_lowered_to_what_the_device_can_ever_run_and_a_wish_is_not() {
        let decided = |asked: Option<u8>, predicted: Option<u8>, most: Option<Preset>| {
            let options = JobOptions { quality: asked, ..JobOptions::default() };
            let settings = Settings::decide_with(&options, predicted);
            let settings =
                within_means(settings, |settings| most.is_some_and(|most| settings.preset <= most));
            (settings.quality, settings.quality_source)
        };
        assert_eq!(decided(None, None, Some(Preset::Quality)), (7, QualitySource::Default));
        assert_eq!(decided(None, Some(9), Some(Preset::Quality)), (9, QualitySource::History));
        assert_eq!(decided(None, Some(9), Some(Preset::Fast)), (5, QualitySource::History));
        assert_eq!(decided(None, None, Some(Preset::Fast)), (5, QualitySource::Default));
        assert_eq!(decided(Some(10), Some(5), Some(Preset::Fast)), (10, QualitySource::Request));
        assert_eq!(decided(None, None, None), (7, QualitySource::Default), "nothing fits: admission answers");
    }

    #[test]
    fn other_pictures_old_wishes_guesses_and_failures_do_not_count() {
        let square = traits(SizeClass::Medium, 1.0);
        let panorama = traits(SizeClass::Huge, 4.0);
        let guessed = Outcome { quality_requested: None, ..wish("a", 9, square.clone(), DAY) };
        let failed =
            Outcome { status: orfeas_protocol::JobStatus::Failed, ..wish("a", 9, square.clone(), DAY) };
        for outcome in [wish("a", 9, panorama, DAY), wish("a", 9, square.clone(), 90 * DAY), guessed, failed]
        {
            assert_eq!(predict(&learned(&[outcome]), "a", &square), None);
        }
    }

    #[test]
    fn wishes_for_like_pictures_and_of_late_outweigh_the_others() {
        let square = traits(SizeClass::Medium, 1.0);
        let other = traits(SizeClass::Small, 1.6);
        let mut outcomes: Vec<_> = (0..5).map(|_| wish("a", 5, other.clone(), DAY)).collect();
        outcomes.push(wish("a", 9, square.clone(), DAY));
        outcomes.push(wish("a", 9, square.clone(), DAY));
        assert_eq!(predict(&learned(&outcomes), "a", &square), Some(7));
        outcomes.drain(..4);
        assert_eq!(predict(&learned(&outcomes), "a", &square), Some(9));
    }

    #[test]
    fn memory_is_bounded_by_tenants_and_wishes() {
        let square = traits(SizeClass::Medium, 1.0);
        let mut wishes = Wishes::default();
        for tenant in 0..TENANTS_MAX + 100 {
            wishes.learn(&wish(&format!("t{tenant}"), 9, square.clone(), DAY));
        }
        for _ in 0..2 * WISHES_MAX {
            wishes.learn(&wish("a", 5, square.clone(), DAY));
        }
        assert!(wishes.by_tenant.len() <= TENANTS_MAX);
        assert!(wishes.by_tenant.values().all(|remembered| remembered.wishes.len() <= WISHES_MAX));
        assert_eq!(predict(&wishes, "t0", &square), None, "the oldest went first");
        assert_eq!(predict(&wishes, "a", &square), Some(5));
    }

    proptest! {
        #[test]
        fn a_prediction_is_a_preset_between_the_least_and_the_greatest_wish(
            wanted in prop::collection::vec((1u8..=10, 0u64..60, 0.25f32..4.0), 0..100),
            aspect in 0.25f32..4.0,
        ) {
            let outcomes: Vec<_> = wanted
                .iter()
                .map(|(quality, days, aspect)| {
                    wish("a", *quality, traits(SizeClass::Medium, *aspect), *days as u32 * DAY)
                })
                .collect();
            if let Some(level) = predict(&learned(&outcomes), "a", &traits(SizeClass::Medium, aspect)) {
                let levels = wanted.iter().map(|(quality, ..)| Preset::for_quality(*quality).quality());
                let (least, greatest) = (levels.clone().min().unwrap(), levels.max().unwrap());
                prop_assert!((least..=greatest).contains(&level));
                prop_assert_eq!(Preset::for_quality(level).quality(), level);
            }
        }
    }
}
