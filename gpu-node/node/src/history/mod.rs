//! What past jobs tell about the next: stage times, estimates of the end, and the quality that a caller usually
//! wants.
//!
//! ```text
//!  job ends ─▶ Outcome ─▶ store ─▶ KV orfeas_history_<region> ─▶ watch of every node ─▶ Models
//!                                                                                        │ profile  stage times
//!  job begins ◀─ quality, stage weights ◀─ History ◀─────────────────────────────────────┤ quality  callers' wishes
//!  job waits, runs ◀─ Forecast: ETA p50, p90 ◀───────────────────────────────────────────┘ calibration  errors
//! ```
//! The models are plain code that folds outcomes in the order in which they were stored, so every node of a region
//! knows the same, and a node that starts anew knows it within a moment.

mod calibration;
mod eta;
mod forecast;
mod outcome;
mod profile;
mod quality;
#[cfg(test)]
mod simulation;
mod spread;
mod store;

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use orfeas_protocol::{TenantId, Timestamp};

use crate::pipeline::StageWeights;
use calibration::Calibrations;
pub use eta::Estimate;
use eta::{Ahead, Moments};
pub(crate) use forecast::{Forecast, Told};
pub use outcome::{ImageTraits, Outcome, Phase, Verified};
use profile::Profiles;
pub use profile::{Position, RunKind, SizeClass};
use quality::Wishes;
pub use quality::within_means;
pub(crate) use store::{Recorder, follow};

/// A job before another one.
#[derive(Debug, Clone, PartialEq)]
pub struct JobAhead {
    /// What kind of run it is.
    pub kind: Arc<RunKind>,
    /// Where it is, if it runs.
    pub position: Option<Position>,
    /// How long ago it was there.
    pub seen_seconds_ago: f64,
}

/// What is learned.
#[derive(Debug, Clone, Default)]
struct Models {
    profiles: Profiles,
    calibrations: Calibrations,
    wishes: Wishes,
}

impl Models {
    fn learn(&mut self, outcome: &Outcome) {
        if outcome.is_clean_run() {
            self.profiles.learn(&outcome.kind(), outcome.stage_seconds());
        }
        if outcome.is_success() {
            for verified in &outcome.estimates {
                self.calibrations.learn(&outcome.family, verified);
            }
        }
        self.wishes.learn(outcome);
    }
}

/// A handle of what a node has learned. Clones stand for the same.
#[derive(Debug, Clone, Default)]
pub struct History {
    models: Arc<RwLock<Models>>,
}

impl History {
    /// Learns from a job that has ended.
    pub fn learn(&self, outcome: &Outcome) {
        self.models.write().unwrap_or_else(PoisonError::into_inner).learn(outcome);
    }

    /// The quality level of a caller's similar requests.
    pub fn predict(&self, tenant: &TenantId, traits: &ImageTraits, now: Timestamp) -> Option<u8> {
        self.read().wishes.predict(tenant, traits, now)
    }

    /// How much of a job of a kind each stage is: measured if the family has run, else a guess.
    pub fn weights(&self, kind: &RunKind) -> StageWeights {
        self.read().profiles.of(kind).map_or_else(StageWeights::default, |profile| profile.weights())
    }

    /// Seconds until a job ends that waits behind others, of which `servers` run at one time. Those ahead whose
    /// family is unknown count like the job itself. `None` if its own family is unknown.
    pub(crate) fn waiting(&self, kind: &RunKind, ahead: &[JobAhead], servers: usize) -> Option<Told> {
        let models = self.read();
        let own = models.profiles.of(kind)?.whole()?;
        let mut line = Ahead { servers, ..Ahead::default() };
        // A long queue is of a few kinds only.
        let mut known: Vec<(&RunKind, Moments)> = Vec::new();
        for job in ahead {
            match job.position {
                Some(position) => {
                    let left = models.profiles.of(&job.kind).and_then(|profile| profile.remaining(&position));
                    let left = Moments::of(left.as_ref().unwrap_or(&own));
                    let mean = (left.mean - job.seen_seconds_ago).max(0.0);
                    line.running.push(Moments { mean, ..left });
                }
                None => {
                    let found =
                        known.iter().find(|(kind, _)| **kind == *job.kind).map(|(_, moments)| *moments);
                    let moments = found.unwrap_or_else(|| {
                        let whole = models.profiles.of(&job.kind).and_then(|profile| profile.whole());
                        Moments::of(whole.as_ref().unwrap_or(&own))
                    });
                    if found.is_none() {
                        known.push((&job.kind, moments));
                    }
                    line.waiting.push(moments);
                }
            }
        }
        let raw = eta::of_waiting(&line, &own);
        let told = models.calibrations.apply(&kind.family, Phase::Queued, raw);
        Some(Told { phase: Phase::Queued, raw, told })
    }

    /// Seconds until a running job ends.
    pub(crate) fn running(
        &self,
        kind: &RunKind,
        position: &Position,
        fraction: f64,
        elapsed_seconds: f64,
    ) -> Option<Told> {
        let models = self.read();
        let left = models.profiles.of(kind).and_then(|profile| profile.remaining(position));
        let raw = match left {
            Some(left) => eta::of_running(&left),
            None => eta::of_progress(elapsed_seconds, fraction)?,
        };
        let phase = Phase::of_progress(fraction);
        let told = models.calibrations.apply(&kind.family, phase, raw);
        Some(Told { phase, raw, told })
    }

    /// Everything anew, from a watch that has begun again.
    fn replace(&self, models: Models) {
        *self.models.write().unwrap_or_else(PoisonError::into_inner) = models;
    }

    fn read(&self) -> RwLockReadGuard<'_, Models> {
        // No code that can panic leaves the models half-changed; a poisoned lock is as good as any.
        self.models.read().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
