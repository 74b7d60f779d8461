//! Estimates learn from their own errors, so that nine in ten jobs keep the upper one whatever is wrong with the
//! model behind it.
//!
//! The recent ratios of what came to what was estimated give a factor: their median corrects the median, a high
//! quantile of them the upper estimate (split conformal prediction, Vovk et al. 2005). The level of that quantile is
//! itself steered by whether the last estimates were kept (adaptive conformal inference, Gibbs and Candès 2021,
//! arXiv:2106.00263), which holds the coverage in the long run even while load and models drift.

use std::collections::{HashMap, VecDeque};

use super::eta::Estimate;
use super::outcome::{Phase, Verified};
use super::spread::{Spread, weight_of_age};

/// The part of jobs that keep the upper estimate.
const COVERAGE: f64 = 0.9;
/// How far one kept or missed estimate moves the level; Gibbs and Candès find 0.005 to 0.05 to work, and estimates
/// that are given before the last ones are verified want it small.
const STEP: f64 = 0.01;
/// The level stays within what a window can tell apart.
const LEVELS: std::ops::RangeInclusive<f64> = 0.5..=0.99;
/// Ratios that are remembered.
const RATIOS_MAX: usize = 128;
/// With fewer, estimates are told as they are.
const RATIOS_MIN: usize = 8;
/// A factor outside of these says that something else is wrong.
const FACTORS: std::ops::RangeInclusive<f64> = 0.1..=10.0;
/// Estimates under this are told of jobs that are all but done: a ratio to them would be noise.
const SECONDS_MIN: f64 = 0.05;
/// Families that are remembered; there are a few, and a name comes from a request.
const FAMILIES_MAX: usize = 64;

/// The calibrations of all families.
#[derive(Debug, Clone, Default)]
pub(crate) struct Calibrations {
    by_family: HashMap<(String, Phase), Calibration>,
}

impl Calibrations {
    pub(crate) fn learn(&mut self, family: &str, verified: &Verified) {
        let key = (family.to_owned(), verified.phase);
        if self.by_family.len() < FAMILIES_MAX * Phase::ALL.len() || self.by_family.contains_key(&key) {
            self.by_family.entry(key).or_default().learn(verified);
        }
    }

    /// An estimate as it is to be told.
    pub(crate) fn apply(&self, family: &str, phase: Phase, raw: Estimate) -> Estimate {
        let calibration = self.by_family.get(&(family.to_owned(), phase));
        calibration.map_or(raw, |calibration| calibration.apply(raw))
    }
}

/// How wrong the estimates of a family and phase are.
#[derive(Debug, Clone)]
struct Calibration {
    /// What came over the raw median, and over the raw upper estimate; the newest is at the back.
    ratios: VecDeque<(f64, f64)>,
    level: f64,
    /// What the ratios come to, once there are enough: estimates are told more often than verified.
    factors: Option<(f64, f64)>,
}

impl Default for Calibration {
    fn default() -> Self {
        Self { ratios: VecDeque::new(), level: COVERAGE, factors: None }
    }
}

impl Calibration {
    fn learn(&mut self, verified: &Verified) {
        let Verified { raw_p50, raw_p90, p90, actual, .. } = *verified;
        if ![raw_p50, raw_p90, p90, actual].iter().all(|seconds| seconds.is_finite()) {
            return;
        }
        if self.ratios.len() >= RATIOS_MIN {
            let missed = f64::from(u8::from(actual > p90.max(SECONDS_MIN)));
            let moved = self.level + STEP * (missed - (1.0 - COVERAGE));
            self.level = moved.clamp(*LEVELS.start(), *LEVELS.end());
        }
        let actual = actual.max(SECONDS_MIN);
        self.ratios.push_back((actual / raw_p50.max(SECONDS_MIN), actual / raw_p90.max(SECONDS_MIN)));
        if self.ratios.len() > RATIOS_MAX {
            self.ratios.pop_front();
        }
        self.factors = self.learned_factors();
    }

    fn apply(&self, raw: Estimate) -> Estimate {
        let Some((median, upper)) = self.factors else { return raw };
        let p50_seconds = raw.p50_seconds * median;
        Estimate { p50_seconds, p90_seconds: (raw.p90_seconds * upper).max(p50_seconds) }
    }

    fn learned_factors(&self) -> Option<(f64, f64)> {
        let weighted = || self.ratios.iter().rev().enumerate();
        let medians = Spread::of(weighted().map(|(age, (median, _))| (*median, weight_of_age(age))))?;
        let uppers = Spread::of(weighted().map(|(age, (_, upper))| (*upper, weight_of_age(age))))?;
        let factor = |factor: f64| factor.clamp(*FACTORS.start(), *FACTORS.end());
        let enough = self.ratios.len() >= RATIOS_MIN;
        enough.then(|| (factor(medians.quantile(0.5)), factor(uppers.quantile_with_room(self.level, 1.0))))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn told(calibration: &Calibration, raw: Estimate, actual: f64) -> Verified {
        let told = calibration.apply(raw);
        Verified {
            phase: Phase::Queued,
            raw_p50: raw.p50_seconds,
            raw_p90: raw.p90_seconds,
            p50: told.p50_seconds,
            p90: told.p90_seconds,
            actual,
        }
    }

    /// A stream of uniform numbers (xorshift64*, Vigna 2016).
    fn uniform(mut state: u64) -> impl FnMut() -> f64 {
        move || {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            (state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) as f64 / (1_u64 << 53) as f64
        }
    }

    #[test]
    fn estimates_that_are_always_half_of_what_comes_are_doubled() {
        let mut calibration = Calibration::default();
        let raw = Estimate { p50_seconds: 5.0, p90_seconds: 5.0 };
        assert_eq!(calibration.apply(raw), raw, "nothing is known");
        for _ in 0..RATIOS_MIN {
            calibration.learn(&told(&calibration, raw, 10.0));
        }
        assert_eq!(calibration.apply(raw), Estimate { p50_seconds: 10.0, p90_seconds: 10.0 });
    }

    #[test]
    fn nine_in_ten_keep_the_upper_estimate_even_while_the_error_drifts() {
        let mut random = uniform(7);
        let mut calibration = Calibration::default();
        let raw = Estimate { p50_seconds: 10.0, p90_seconds: 11.0 };
        let (mut kept, mut counted) = (0, 0);
        for job in 0..6_000 {
            // Between half and three times of what is estimated, with a tail of Pareto's kind.
            let drift = 1.75 + 1.25 * (f64::from(job) / 300.0).sin();
            let actual = 10.0 * drift * (1.0 - random()).powf(-0.4);
            let verified = told(&calibration, raw, actual);
            if job >= 200 {
                counted += 1;
                kept += usize::from(actual <= verified.p90);
            }
            calibration.learn(&verified);
        }
        let coverage = kept as f64 / f64::from(counted);
        assert!((0.88..=0.92).contains(&coverage), "{coverage}");
    }

    #[test]
    fn families_beyond_the_bound_are_told_raw() {
        let mut calibrations = Calibrations::default();
        let raw = Estimate { p50_seconds: 1.0, p90_seconds: 2.0 };
        for family in 0..2 * FAMILIES_MAX {
            for _ in 0..RATIOS_MIN {
                calibrations.learn(&family.to_string(), &told(&Calibration::default(), raw, 4.0));
            }
        }
        assert!(calibrations.by_family.len() <= FAMILIES_MAX * Phase::ALL.len());
        assert_eq!(calibrations.apply("0", Phase::Queued, raw).p50_seconds, 4.0);
        assert_eq!(calibrations.apply("0", Phase::Late, raw), raw, "phases are apart");
    }

    proptest! {
        #[test]
        fn what_is_told_is_finite_never_negative_and_in_order(
            past in prop::collection::vec((0f64..1e4, 1f64..5.0, 0f64..1e5), 0..200),
            raw in (0f64..1e4, 1f64..5.0),
        ) {
            let mut calibration = Calibration::default();
            for (p50_seconds, ratio, actual) in past {
                let raw = Estimate { p50_seconds, p90_seconds: p50_seconds * ratio };
                calibration.learn(&told(&calibration, raw, actual));
            }
            prop_assert!(calibration.ratios.len() <= RATIOS_MAX);
            let told = calibration.apply(Estimate { p50_seconds: raw.0, p90_seconds: raw.0 * raw.1 });
            prop_assert!(told.p50_seconds >= 0.0 && told.p50_seconds <= told.p90_seconds);
            prop_assert!(told.p90_seconds.is_finite());
        }
    }
}
