//! The estimates of one running job: what is told now, and what was told and is to be compared
//! with what came.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use super::History;
use super::eta::Estimate;
use super::outcome::{Phase, Verified};
use super::profile::{Position, RunKind};
use crate::pipeline::{Stage, StageWeights};

/// An estimate, before and after calibration.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Told {
    pub(crate) phase: Phase,
    pub(crate) raw: Estimate,
    pub(crate) told: Estimate,
}

impl Told {
    /// Compared with what came: the job ended `actual` seconds after this was told.
    pub(crate) fn verified(&self, actual: f64) -> Verified {
        Verified {
            phase: self.phase,
            raw_p50: self.raw.p50_seconds,
            raw_p90: self.raw.p90_seconds,
            p50: self.told.p50_seconds,
            p90: self.told.p90_seconds,
            actual,
        }
    }
}

/// The forecaster of one job. It holds no clock: every call says what time it is.
#[derive(Debug, Clone)]
pub(crate) struct Forecast {
    history: History,
    kind: RunKind,
    /// Worked out when somebody asks: a job waits as one kind of run and runs as another.
    weights: OnceLock<StageWeights>,
    began_at: Option<Instant>,
    stage: Option<(Stage, Instant)>,
    /// One estimate of each phase, drawn from those that were told with the same chance for each.
    kept: Vec<(Told, Instant, u32)>,
    random: u64,
}

impl Forecast {
    /// For a job of a kind; `seed` decides which of its estimates are kept, so jobs should have different ones.
    pub(crate) fn new(history: History, kind: RunKind, seed: u64) -> Self {
        let random = seed | 1;
        Self {
            history,
            kind,
            weights: OnceLock::new(),
            began_at: None,
            stage: None,
            kept: Vec::new(),
            random,
        }
    }

    /// How much of the job each stage is.
    pub(crate) fn weights(&self) -> StageWeights {
        *self.weights.get_or_init(|| self.history.weights(&self.kind))
    }

    /// What kind of run it is taken for.
    pub(crate) fn kind(&self) -> &RunKind {
        &self.kind
    }

    /// The job is another kind of run than was thought: its model is decided, or recovery has lowered its preset.
    pub(crate) fn becomes(&mut self, kind: RunKind) {
        if kind != self.kind {
            self.weights = OnceLock::new();
            self.kind = kind;
        }
    }

    /// The job begins, or begins again.
    pub(crate) fn begin(&mut self, now: Instant) {
        self.began_at = Some(now);
        self.stage = None;
    }

    /// The job has done `fraction` of its way and is in `stage`. `None` if that is not enough to tell.
    pub(crate) fn running(&mut self, stage: &str, fraction: f32, now: Instant) -> Option<Estimate> {
        let stage = Stage::named(stage)?;
        let began_at = *self.began_at.get_or_insert(now);
        let since = match self.stage {
            Some((last, since)) if last == stage => since,
            _ => {
                self.stage = Some((stage, now));
                now
            }
        };
        let position = Position {
            stage,
            within: f64::from(self.weights().within(stage, fraction)),
            stage_seconds: Some(now.saturating_duration_since(since).as_secs_f64()),
        };
        let elapsed_seconds = now.saturating_duration_since(began_at).as_secs_f64();
        let told = self.history.running(&self.kind, &position, f64::from(fraction), elapsed_seconds)?;
        self.keep(told, now);
        Some(told.told)
    }

    /// How long the job has been running.
    pub(crate) fn elapsed(&self, now: Instant) -> Duration {
        self.began_at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at))
    }

    /// The kept estimates, now that the job has ended.
    pub(crate) fn verified(&self, ended_at: Instant) -> Vec<Verified> {
        let seconds_since = |at: &Instant| ended_at.saturating_duration_since(*at).as_secs_f64();
        self.kept.iter().map(|(told, at, _)| told.verified(seconds_since(at))).collect()
    }

    /// Reservoir sampling: the n-th estimate of a phase replaces the kept one with a chance of 1 in n. Keeping the
    /// first would calibrate the beginnings of phases and nothing else.
    fn keep(&mut self, told: Told, now: Instant) {
        let draw = self.draw();
        match self.kept.iter_mut().find(|(kept, ..)| kept.phase == told.phase) {
            Some((kept, at, seen)) => {
                *seen = seen.saturating_add(1);
                if draw.is_multiple_of(u64::from(*seen)) {
                    (*kept, *at) = (told, now);
                }
            }
            None => self.kept.push((told, now, 1)),
        }
    }

    /// xorshift64* (Vigna 2016); its upper bits are the good ones.
    fn draw(&mut self) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::outcome;
    use super::*;

    fn history() -> History {
        let history = History::default();
        for _ in 0..10 {
            history.learn(&outcome());
        }
        history
    }

    /// Plays a run of [`outcome`]'s stage times and gives what was told, with the true rest.
    fn play(forecast: &mut Forecast, start: Instant) -> Vec<(Estimate, f64)> {
        let outcome = outcome();
        let whole: f64 = outcome.stages.iter().map(|(_, seconds)| seconds).sum();
        let (mut told, mut at) = (Vec::new(), 0.0);
        forecast.begin(start);
        for (stage, seconds) in &outcome.stages {
            for tenth in 0..10 {
                let within = f64::from(tenth) / 10.0;
                let now = at + within * seconds;
                let fraction = forecast.weights().done(Stage::named(stage).unwrap(), within as f32);
                let estimate =
                    forecast.running(stage, fraction, start + Duration::from_secs_f64(now)).unwrap();
                told.push((estimate, whole - now));
            }
            at += seconds;
        }
        told
    }

    #[test]
    fn a_run_like_all_others_is_told_to_the_second_and_the_rest_only_shrinks() {
        let mut forecast = Forecast::new(history(), outcome().kind(), 1);
        let told = play(&mut forecast, Instant::now());
        for (estimate, rest) in &told {
            assert!((estimate.p50_seconds - rest).abs() < 0.02 * rest + 1e-3, "{estimate:?} {rest}");
        }
        assert!(told.windows(2).all(|pair| pair[1].0.p50_seconds <= pair[0].0.p50_seconds + 1e-6));
    }

    #[test]
    fn one_estimate_of_each_phase_is_kept_and_not_always_the_first() {
        let start = Instant::now();
        let mut firsts = 0;
        for seed in 0..100 {
            let mut forecast = Forecast::new(history(), outcome().kind(), seed * 2 + 1);
            play(&mut forecast, start);
            let verified = forecast.verified(start + Duration::from_secs(9));
            let mut phases: Vec<_> = verified.iter().map(|verified| verified.phase).collect();
            phases.sort();
            assert_eq!(phases, [Phase::Early, Phase::Middle, Phase::Late]);
            firsts += usize::from(verified.iter().any(|v| v.phase == Phase::Early && v.actual == 9.0));
        }
        assert!((1..50).contains(&firsts), "{firsts}");
    }

    #[test]
    fn an_unknown_family_is_told_once_it_has_a_pace() {
        let start = Instant::now();
        let mut forecast = Forecast::new(History::default(), outcome().kind(), 1);
        forecast.begin(start);
        assert_eq!(forecast.running("decode", 0.01, start), None);
        let told = forecast.running("shape", 0.5, start + Duration::from_secs(4)).unwrap();
        assert!((told.p50_seconds - 4.0).abs() < 1e-6);
        assert_eq!(forecast.running("no stage", 0.5, start), None);
    }
}
