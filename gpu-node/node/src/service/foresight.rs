//! What a node foresees of one job, and what it learns from it when the job has ended.
//!
//! ```text
//!  record ─▶ settings (quality predicted where the caller leaves it open) ─▶ Forecast ─▶ weights, ETA
//!  record, stage times, estimates ─▶ Outcome ─▶ recorder, metrics
//! ```

use std::time::Instant;

use orfeas_protocol::job::Eta;
use orfeas_protocol::preset::Preset;
use orfeas_protocol::view::ModelChoice;
use orfeas_protocol::{JobRecord, Timestamp};

use super::entropy::{self, now};
use super::node::NodeContext;
use super::progress::Progress;
use crate::history::{
    Estimate, Forecast, History, ImageTraits, Outcome, Phase, RunKind, Verified, within_means,
};
use crate::pipeline::{Settings, Stage, StageWeights};

impl From<Estimate> for Eta {
    fn from(estimate: Estimate) -> Self {
        Eta { p50_seconds: estimate.p50_seconds, p90_seconds: estimate.p90_seconds }
    }
}

/// What is foreseen of one job.
#[derive(Debug)]
pub(crate) struct Foresight {
    traits: ImageTraits,
    settings: Settings,
    forecast: Forecast,
    stage: &'static str,
}

impl Foresight {
    /// Of a job that this node has taken from the queue.
    pub(crate) fn of(node: &NodeContext, record: &JobRecord) -> Self {
        let family = family_of(node.engine.default_family(), record);
        let traits = ImageTraits::of(&record.job.input);
        let settings = decide(&node.history, record, &traits);
        // A family that is not here is left to admission.
        let ever_fits = |settings: &Settings| node.scheduler.can_ever_process(Some(family), settings).is_ok();
        let settings = within_means(settings, ever_fits);
        let kind = kind_of(family, &settings, &traits);
        // The upper half of a UUIDv7 is the time; a fresh draw is as good as any.
        let seed = (entropy::unit() * u32::MAX as f64) as u64;
        let forecast = Forecast::new(node.history.clone(), kind, seed);
        Self { traits, settings, forecast, stage: Stage::Decode.as_str() }
    }

    /// How the job is to be run.
    pub(crate) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// How much of the job each stage is.
    pub(crate) fn weights(&self) -> StageWeights {
        self.forecast.weights()
    }

    /// A run begins, perhaps after one that failed, with other settings and on a model that is known now.
    pub(crate) fn begin(&mut self, settings: &Settings, version: &str, picture: &[u8], record: &JobRecord) {
        self.settings = settings.clone();
        self.traits = ImageTraits::seen(&record.job.input, picture);
        let known = self.forecast.kind();
        let version = version.to_owned();
        self.forecast.becomes(RunKind { version, preset: settings.preset, ..known.clone() });
        self.forecast.begin(Instant::now());
        self.stage = Stage::Decode.as_str();
    }

    /// Whether a run has begun.
    pub(crate) fn has_begun(&self) -> bool {
        // Only a run knows its version.
        !self.forecast.kind().version.is_empty()
    }

    /// The run came as far as this stage.
    pub(crate) fn reached(&mut self, stage: &'static str) {
        self.stage = stage;
    }

    /// The stage that runs, or ran last.
    pub(crate) fn stage(&self) -> &'static str {
        self.stage
    }

    /// Says in the job object what was decided.
    pub(crate) fn describe(&self, model: &mut ModelChoice) {
        let settings = &self.settings;
        if self.has_begun() {
            model.version = Some(self.forecast.kind().version.clone());
        }
        model.family.get_or_insert_with(|| self.forecast.kind().family.clone());
        model.seed = Some(settings.seed);
        model.steps = Some(settings.steps);
        model.quality = Some(settings.quality);
        model.quality_source = Some(settings.quality_source.as_str().to_owned());
    }

    /// The job has come this far.
    pub(crate) fn progressed(&mut self, progress: Progress) -> Option<Eta> {
        self.stage = progress.stage;
        self.forecast.running(progress.stage, progress.fraction(), Instant::now()).map(Eta::from)
    }

    /// The job has ended, and its record says how. Tells the metrics and the region.
    pub(crate) fn ended(&self, node: &NodeContext, record: &JobRecord, stages: &[(&'static str, f64)]) {
        let outcome = self.outcome(node, record, stages, now());
        if outcome.is_success() {
            for verified in &outcome.estimates {
                node.metrics.eta_verified(verified);
            }
        }
        if !node.recorder.note(outcome) {
            node.metrics.outcomes_dropped.inc();
        }
    }

    fn outcome(
        &self,
        node: &NodeContext,
        record: &JobRecord,
        stages: &[(&'static str, f64)],
        now: Timestamp,
    ) -> Outcome {
        let job = &record.job;
        let kind = self.forecast.kind();
        let quality = job.model.quality.unwrap_or(self.settings.quality);
        let ended_at = job.completed_at.unwrap_or(now);
        let waited = record.waiting_estimate.map(|estimate| Verified {
            phase: Phase::Queued,
            raw_p50: estimate.raw.p50_seconds,
            raw_p90: estimate.raw.p90_seconds,
            p50: estimate.told.p50_seconds,
            p90: estimate.told.p90_seconds,
            actual: ended_at.since(estimate.at).as_secs_f64(),
        });
        Outcome {
            job: job.id,
            tenant: record.tenant.clone(),
            node: node.id.clone(),
            channel: job.channel,
            priority: job.priority.get(),
            family: kind.family.clone(),
            version: job.model.version.clone().unwrap_or_else(|| kind.version.clone()),
            preset: Preset::for_quality(quality),
            quality_requested: record.options.quality,
            quality,
            texture: self.settings.texture,
            traits: self.traits.clone(),
            stages: stages.iter().map(|(stage, seconds)| ((*stage).to_owned(), *seconds)).collect(),
            run_seconds: self.forecast.elapsed(Instant::now()).as_secs_f64(),
            queue_wait_seconds: job.started_at.unwrap_or(ended_at).since(job.created_at).as_secs_f64(),
            result_bytes: job.result.as_ref().map(|result| result.bytes),
            recoveries: u32::try_from(job.recoveries.len()).unwrap_or(u32::MAX),
            attempts: job.attempt,
            status: job.status,
            created_at: job.created_at,
            ended_at,
            estimates: waited.into_iter().chain(self.forecast.verified(Instant::now())).collect(),
        }
    }
}

/// The kind of run that a waiting job will be, as far as its record tells.
pub(crate) fn foreseen_kind(history: &History, default_family: &str, record: &JobRecord) -> RunKind {
    let traits = ImageTraits::of(&record.job.input);
    kind_of(family_of(default_family, record), &decide(history, record, &traits), &traits)
}

/// A job that was begun before keeps the quality that was chosen then.
fn decide(history: &History, record: &JobRecord, traits: &ImageTraits) -> Settings {
    let chosen =
        record.job.model.quality.filter(|_| record.job.model.quality_source.as_deref() == Some("history"));
    let predicted = || history.predict(&record.tenant, traits, now());
    let open = record.options.quality.is_none();
    Settings::decide_with(&record.options, if open { chosen.or_else(predicted) } else { None })
}

fn family_of<'a>(default_family: &'a str, record: &'a JobRecord) -> &'a str {
    record.options.model.as_deref().unwrap_or(default_family)
}

fn kind_of(family: &str, settings: &Settings, traits: &ImageTraits) -> RunKind {
    RunKind {
        family: family.to_owned(),
        version: String::new(),
        preset: settings.preset,
        size: traits.size,
        texture: settings.texture,
    }
}
