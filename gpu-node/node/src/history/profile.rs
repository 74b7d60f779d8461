//! How long the stages of a kind of run take, learned from runs like it.
//!
//! ```text
//!  (family, version, preset, size) ─ too few runs? ─▶ (family, preset, size) ─▶ (family, preset) ─▶ (family)
//! ```
//! A kind keeps whole runs, not a sketch for each stage: stages of one job are slow together, and the sum of
//! the stages that are left is asked for far more often than any one of them.

use std::collections::{HashMap, VecDeque};

use orfeas_protocol::preset::Preset;
use serde::{Deserialize, Serialize};

use super::spread::{Spread, weight_of_age};
use crate::pipeline::{Stage, StageWeights};

/// Runs that a kind remembers. With [`weight_of_age`] the oldest weighs a seventh of the newest.
const RUNS_MAX: usize = 96;
/// Kinds that are remembered; the one unused for longest goes first. A full one takes about 3 KiB.
const KINDS_MAX: usize = 1_024;
/// A kind with fewer runs asks the next coarser one: the nearest-rank p90 of five is their greatest.
const RUNS_MIN: usize = 5;

/// Number of stages.
const STAGES: usize = Stage::ALL.len();

/// Seconds by stage, in the order of [`Stage::ALL`]; not a number where the stage did not run.
pub(crate) type StageSeconds = [f32; STAGES];

/// How many pixels a picture has, roughly: what the stages before the shape depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SizeClass {
    /// Under half a megapixel.
    Small,
    /// Under two megapixels.
    Medium,
    /// Under eight megapixels.
    Large,
    /// From there on.
    Huge,
}

impl SizeClass {
    /// From a picture's dimensions.
    pub const fn of(width: u32, height: u32) -> Self {
        match width as u64 * height as u64 {
            0..500_000 => SizeClass::Small,
            500_000..2_000_000 => SizeClass::Medium,
            2_000_000..8_000_000 => SizeClass::Large,
            _ => SizeClass::Huge,
        }
    }

    /// How far apart two classes are: 0 for the same, 3 at most.
    pub fn distance(self, other: Self) -> u8 {
        (self as u8).abs_diff(other as u8)
    }
}

/// Runs that take about the same time.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RunKind {
    /// The model family.
    pub family: String,
    /// The version of its weights; empty if it is not decided.
    pub version: String,
    /// The quality preset.
    pub preset: Preset,
    /// The picture's size.
    pub size: SizeClass,
    /// Whether the mesh is painted. Not part of what is looked up: the same runs tell of both.
    pub texture: bool,
}

/// A kind, or a coarser class of kinds.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Tier {
    family: String,
    version: Option<String>,
    preset: Option<Preset>,
    size: Option<SizeClass>,
}

impl RunKind {
    /// From the finest to the coarsest.
    fn tiers(&self) -> [Tier; 4] {
        let tier = |version: bool, preset: bool, size: bool| Tier {
            family: self.family.clone(),
            version: version.then(|| self.version.clone()),
            preset: preset.then_some(self.preset),
            size: size.then_some(self.size),
        };
        [tier(true, true, true), tier(false, true, true), tier(false, true, false), tier(false, false, false)]
    }
}

/// Where a run is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Position {
    /// The stage that runs.
    pub stage: Stage,
    /// How much of the stage is done, 0 to 1, as the stage itself says; 0 from one that does not say.
    pub within: f64,
    /// How long the stage has been running, if that is known.
    pub stage_seconds: Option<f64>,
}

impl Position {
    /// Of a run that begins.
    pub const START: Self = Self { stage: Stage::Decode, within: 0.0, stage_seconds: Some(0.0) };
}

/// The profiles of one region, as one node knows them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Profiles {
    kinds: HashMap<Tier, Runs>,
    clock: u64,
}

#[derive(Debug, Clone, Default)]
struct Runs {
    /// The newest is at the back.
    seconds: VecDeque<StageSeconds>,
    used_at: u64,
}

impl Profiles {
    /// Notes the times of a run that went well.
    pub(crate) fn learn(&mut self, kind: &RunKind, mut seconds: StageSeconds) {
        if !seconds.iter().any(|seconds| seconds.is_finite()) {
            return;
        }
        if let Some(texture) = seconds.get_mut(TEXTURE).filter(|seconds| kind.texture && seconds.is_nan()) {
            // It was wanted, and the family has no such stage.
            *texture = 0.0;
        }
        self.clock += 1;
        for tier in kind.tiers() {
            let runs = self.kinds.entry(tier).or_default();
            runs.used_at = self.clock;
            runs.seconds.push_back(seconds);
            if runs.seconds.len() > RUNS_MAX {
                runs.seconds.pop_front();
            }
        }
        while self.kinds.len() > KINDS_MAX {
            let oldest = self.kinds.iter().min_by_key(|(_, runs)| runs.used_at).map(|(tier, _)| tier.clone());
            let Some(oldest) = oldest else { return };
            self.kinds.remove(&oldest);
        }
    }

    /// The runs that tell the most about a kind; `None` if its family has never run.
    pub(crate) fn of(&self, kind: &RunKind) -> Option<Profile<'_>> {
        let found = kind.tiers().into_iter().filter_map(|tier| {
            let usable = |seconds: &&StageSeconds| !kind.texture || seconds[TEXTURE].is_finite();
            let runs: Vec<&StageSeconds> = self.kinds.get(&tier)?.seconds.iter().filter(usable).collect();
            (!runs.is_empty()).then_some(Profile { runs, texture: kind.texture })
        });
        let mut fallback = None;
        for profile in found {
            if profile.runs.len() >= RUNS_MIN {
                return Some(profile);
            }
            fallback = Some(profile);
        }
        fallback
    }
}

/// The texture stage's place in [`StageSeconds`].
const TEXTURE: usize = Stage::Texture.index();

/// What is known about a kind's runs.
#[derive(Debug, Clone)]
pub(crate) struct Profile<'a> {
    /// The newest is last.
    runs: Vec<&'a StageSeconds>,
    texture: bool,
}

impl Profile<'_> {
    /// Seconds of one stage.
    pub(crate) fn stage(&self, stage: Stage) -> Option<Spread> {
        if stage == Stage::Texture && !self.texture {
            return None;
        }
        self.spread(|run| f64::from(run[stage.index()]))
    }

    /// How much of the job each stage is.
    pub(crate) fn weights(&self) -> StageWeights {
        let means = Stage::ALL.map(|stage| self.stage(stage).map_or(0.0, |spread| spread.mean()));
        StageWeights::of_seconds(means).unwrap_or_default()
    }

    /// Seconds of a whole run.
    pub(crate) fn whole(&self) -> Option<Spread> {
        self.remaining(&Position::START)
    }

    /// Seconds that are left of a run, seeing where it is.
    ///
    /// A stage that tells how far it is speaks of its own speed the better, the further it is; one that does
    /// not tell is judged by the runs in which it has taken at least as long.
    pub(crate) fn remaining(&self, position: &Position) -> Option<Spread> {
        let at = position.stage.index();
        let within = position.within.clamp(0.0, 1.0);
        let elapsed = position.stage_seconds.map(|seconds| seconds.max(0.0));
        let later = |run: &StageSeconds| -> f64 {
            Stage::ALL.iter().skip(at + 1).map(|stage| self.seconds(run, *stage)).sum()
        };
        let left = |run: &StageSeconds| -> f64 {
            let usual = self.seconds(run, position.stage);
            match elapsed {
                None => (1.0 - within) * usual,
                Some(elapsed) if within > 0.0 => {
                    (1.0 - within) * (usual + within * (elapsed / within - usual))
                }
                Some(elapsed) => usual - elapsed,
            }
        };
        let as_usual = self.spread(|run| {
            let left = left(run);
            if left < 0.0 { f64::NAN } else { left + later(run) }
        });
        // Slower than any run that is known: the longer it has taken, the longer it may yet take.
        as_usual.or_else(|| self.spread(|run| OVERDUE * elapsed.unwrap_or(0.0) + later(run)))
    }

    fn seconds(&self, run: &StageSeconds, stage: Stage) -> f64 {
        let seconds = f64::from(run[stage.index()]);
        if seconds.is_nan() || (stage == Stage::Texture && !self.texture) { 0.0 } else { seconds }
    }

    fn spread(&self, value: impl Fn(&StageSeconds) -> f64) -> Option<Spread> {
        Spread::of(self.runs.iter().rev().enumerate().map(|(age, run)| (value(run), weight_of_age(age))))
    }
}

/// A stage that has taken longer than ever before is given this much of its time again.
const OVERDUE: f64 = 0.5;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kind(version: &str, preset: Preset, size: SizeClass) -> RunKind {
        RunKind { family: "f".to_owned(), version: version.to_owned(), preset, size, texture: true }
    }

    fn run(shape: f32) -> StageSeconds {
        [0.1, 0.2, shape, 0.1, 0.1, 0.2, 0.2, 0.1]
    }

    fn median(profiles: &Profiles, kind: &RunKind) -> f64 {
        profiles.of(kind).unwrap().stage(Stage::Shape).unwrap().quantile(0.5)
    }

    #[test]
    fn few_runs_of_a_kind_fall_back_to_coarser_ones_and_no_run_of_a_family_to_nothing() {
        let mut profiles = Profiles::default();
        let wanted = kind("2", Preset::Fast, SizeClass::Small);
        assert!(profiles.of(&wanted).is_none());
        for _ in 0..RUNS_MIN {
            profiles.learn(&kind("1", Preset::Quality, SizeClass::Huge), run(9.0));
        }
        assert_eq!(median(&profiles, &wanted), 9.0, "the family's");
        for _ in 0..RUNS_MIN {
            profiles.learn(&kind("1", Preset::Fast, SizeClass::Huge), run(4.0));
        }
        assert_eq!(median(&profiles, &wanted), 4.0, "the preset's");
        for _ in 0..RUNS_MIN {
            profiles.learn(&kind("1", Preset::Fast, SizeClass::Small), run(3.0));
        }
        assert_eq!(median(&profiles, &wanted), 3.0, "the size's");
        for _ in 0..RUNS_MIN {
            profiles.learn(&wanted, run(2.0));
        }
        assert_eq!(median(&profiles, &wanted), 2.0, "the version's own");
        let other = RunKind { family: "g".to_owned(), ..wanted };
        assert!(profiles.of(&other).is_none());
    }

    #[test]
    fn memory_is_bounded_and_the_kinds_in_use_are_kept() {
        let mut profiles = Profiles::default();
        let used = kind("used", Preset::Fast, SizeClass::Small);
        for version in 0..2 * KINDS_MAX {
            profiles.learn(&kind(&version.to_string(), Preset::Balanced, SizeClass::Small), run(1.0));
            profiles.learn(&used, run(2.0));
        }
        assert!(profiles.kinds.len() <= KINDS_MAX);
        assert!(profiles.kinds.values().all(|runs| runs.seconds.len() <= RUNS_MAX));
        assert_eq!(median(&profiles, &used), 2.0);
    }

    #[test]
    fn a_change_of_speed_is_followed_within_a_window() {
        let mut profiles = Profiles::default();
        let kind = kind("1", Preset::Fast, SizeClass::Small);
        for _ in 0..RUNS_MAX {
            profiles.learn(&kind, run(1.0));
        }
        for _ in 0..RUNS_MAX / 2 {
            profiles.learn(&kind, run(5.0));
        }
        assert_eq!(median(&profiles, &kind), 5.0, "half a window of new times outweighs the old half");
    }

    #[test]
    fn a_run_without_texture_is_not_charged_for_it() {
        let mut profiles = Profiles::default();
        let painted = kind("1", Preset::Fast, SizeClass::Small);
        for _ in 0..RUNS_MIN {
            profiles.learn(&painted, run(1.0));
        }
        let plain = RunKind { texture: false, ..painted.clone() };
        let whole = |kind: &RunKind| profiles.of(kind).unwrap().whole().unwrap().quantile(0.5);
        assert!((whole(&painted) - whole(&plain) - 0.2).abs() < 1e-6);
        assert_eq!(profiles.of(&plain).unwrap().weights().share(Stage::Texture), 0.0);
    }

    #[test]
    fn a_stage_that_overruns_leaves_more_to_wait_not_less() {
        let mut profiles = Profiles::default();
        let kind = kind("1", Preset::Fast, SizeClass::Small);
        for shape in 1..=10 {
            profiles.learn(&kind, run(shape as f32));
        }
        let profile = profiles.of(&kind).unwrap();
        let at = |stage_seconds: f64| {
            let position = Position { stage: Stage::Shape, within: 0.0, stage_seconds: Some(stage_seconds) };
            profile.remaining(&position).unwrap().quantile(0.5)
        };
        assert!(at(0.0) > at(2.0), "time passes");
        assert!(at(100.0) > at(20.0), "overdue");
        assert!(at(20.0) > 0.0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        #[test]
        fn what_is_left_is_never_negative_and_falls_as_a_steady_run_goes_on(
            runs in prop::collection::vec(prop::array::uniform8(0.001f32..50.0), 1..40),
            stage in 0usize..8,
            speed in 0.2f64..5.0,
        ) {
            let mut profiles = Profiles::default();
            let kind = kind("1", Preset::Fast, SizeClass::Small);
            for seconds in &runs {
                profiles.learn(&kind, *seconds);
            }
            let profile = profiles.of(&kind).unwrap();
            let stage = Stage::ALL[stage];
            // A stage that goes on at the pace at which it began, from its first percent on.
            let whole = speed * profile.stage(stage).unwrap().quantile(0.0);
            let mut last = f64::INFINITY;
            for percent in 1..=100 {
                let within = f64::from(percent) / 100.0;
                let position = Position { stage, within, stage_seconds: Some(within * whole) };
                let left = profile.remaining(&position).unwrap();
                prop_assert!(left.quantile(0.0) >= 0.0);
                // A stage that is slower than usual may look worse for a while before it looks better.
                if speed <= 1.0 {
                    prop_assert!(left.quantile(0.5) <= last + 1e-9);
                }
                last = left.quantile(0.5);
            }
        }
    }
}
