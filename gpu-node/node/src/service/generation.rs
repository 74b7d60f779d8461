//! The run of a job on the device: up to three tries with the recovery ladder between them, progress into the record,
//! and a hand on the thread's pulse.
//!
//! ```text
//!   settings ─▶ try ─▶ model, or stopped ─────────────────────────────▶ verdict
//!      ▲         └▶ failure ─▶ class ─▶ ladder ─▶ nothing helps ──────▶ verdict
//!      │                                   └▶ rungs: carried out, recorded in the job, counted
//!      └──────────────── reduced ◀─────────────┘
//! ```
//! A failure that only a new process heals is told to the node's health, and the job goes back into the queue.

use std::sync::Arc;
use std::time::{Duration, Instant as Moment};

use bytes::Bytes;
use orfeas_protocol::view::Recovery;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::job::{Attempt, CHANGE_LIMIT, Interruption, Refusal, Settlement};
use super::picture::CheckedPicture;
use super::progress::{Due, JobMonitor, Progress, REFRESH_INTERVAL, ReportGate, Stop};
use super::records::ChangeError;
use super::retry::Backoff;
use super::spans::JobSpan;
use super::start::START_AFTER;
use super::verdict::{Failure, judge};
use crate::pipeline::{Generated, GenerationRequest, PipelineError, Settings};
use crate::recovery::{FailureClass, Fault, Ladder, Pulse, PulseLimits, Reductions, Rung, Step, Vital};
use crate::scheduler::Admission;

/// A progress report that comes later is not worth its wait.
const REPORT_LIMIT: Duration = Duration::from_secs(2);
/// A pulse is taken at least this often, however long the silence may last.
const PULSE_INTERVAL_MAX: Duration = Duration::from_secs(5);

impl Attempt {
    /// Runs the job and settles it.
    pub(super) async fn generate(mut self, picture: CheckedPicture, mut admission: Admission) -> Settlement {
        tracing::info!(job = %self.id, attempts_before = self.stored.record.job.attempt, "job started");
        let outcome = self.climb(picture, &mut admission).await;
        if let Some(late) = self.active.stop.cancelled_for()
            && outcome.is_err()
        {
            self.node.metrics.cancelled(self.foresight.stage(), late.as_secs_f64());
        }
        // The next job runs while this one's result is stored; its place in the pipeline is kept until then.
        let _place = admission.leave_device();
        let stop = self.active.stop.raised();
        // A result starts its job if need be, and a stop is no reason to; a failure counts as a start.
        let started = match (&outcome, stop) {
            (Err(_), None) => self.ensure_started().await,
            _ => self.settle_start().await,
        };
        match started {
            Ok(()) => {}
            // A finished model waits for NATS for longer than a start does.
            Err(ChangeError::Record(_)) if outcome.is_ok() => {}
            Err(error) => return self.interrupted(Interruption::from(error)).await,
        }
        let attempt = self.stored.record.job.attempt.max(1);
        let verdict = judge(outcome, self.active.stop.raised(), attempt, self.node.work.attempts_max);
        self.carry_out(verdict).await
    }

    /// Tries until there is a model, or nothing helps, or the job is to stop.
    async fn climb(
        &mut self,
        picture: CheckedPicture,
        admission: &mut Admission,
    ) -> Result<Generated, Failure> {
        let CheckedPicture { bytes: image, views, .. } = picture;
        let mut settings = Settings { views, ..self.foresight.settings().clone() };
        let exact = settings.exact;
        let mut ladder = Ladder::new(exact, self.node.weights.has_source());
        let mut taken: Vec<Rung> = Vec::new();
        let mut version = None;
        loop {
            let outcome = self.run_once(image.clone(), settings.clone(), &mut version, admission).await;
            self.node.metrics.recovered(&taken, outcome.is_ok());
            let error = match outcome {
                Ok(generated) => return Ok(generated),
                Err(error) => error,
            };
            let failure = Failure::new(error, exact);
            if let Some(fault) = fault_of(&failure.error) {
                self.node.health.fail(fault);
                return Err(failure);
            }
            if self.active.stop.raised().is_some() || matches!(failure.error, PipelineError::Cancelled) {
                return Err(failure);
            }
            let tries = ladder.tries() + 1;
            tracing::warn!(job = %self.id, tries, class = failure.class.as_str(), error = %failure.error, "run failed");
            let can = Reductions { batch: settings.halved().is_some(), preset: settings.lowered().is_some() };
            let Step::Again(rungs) = ladder.next(failure.class, can) else { return Err(failure) };
            for rung in &rungs {
                self.take(*rung, tries, &mut settings).await;
            }
            self.note(&rungs, failure.class).await;
            if self.active.stop.raised().is_some() {
                return Err(failure);
            }
            taken = rungs;
        }
    }

    /// Carries a rung out. One that fails is no reason to stop: the next try tells whether it was needed.
    async fn take(&self, rung: Rung, tries: u32, settings: &mut Settings) {
        let reduced = match rung {
            Rung::HalveBatch => settings.halved(),
            Rung::LowerPreset => settings.lowered(),
            Rung::EmptyCache => {
                self.node.engine.trim().await;
                None
            }
            Rung::EvictIdle => {
                // The least recently used one at a time, until none is left: at most as many as are loaded.
                for _ in self.node.models.views() {
                    if self.node.models.evict_idle(1).await == 0 {
                        break;
                    }
                }
                None
            }
            Rung::FetchWeights => {
                let family = self.family();
                if let Err(error) = self.node.weights.fetch(&family).await {
                    tracing::warn!(job = %self.id, family, error = %error, "weights not fetched");
                }
                None
            }
            Rung::ReloadModel => {
                let (family, limit) = (self.family(), self.node.models.lease_limit());
                if let Err(error) = self.node.models.reload(&family, limit).await {
                    tracing::warn!(job = %self.id, family, %error, "model not loaded again");
                }
                None
            }
            Rung::BackOff => {
                tokio::select! {
                    () = sleep(Backoff::JOB.jittered(tries)) => {}
                    _ = self.active.stop.wait() => {}
                }
                None
            }
        };
        if let Some(reduced) = reduced {
            *settings = reduced;
        }
    }

    fn family(&self) -> String {
        let asked = self.stored.record.options.model.clone();
        asked.unwrap_or_else(|| self.node.engine.default_family().to_owned())
    }

    /// Writes the rungs into the record, where callers see them. A record that has gone on without us says so.
    async fn note(&mut self, rungs: &[Rung], class: FailureClass) {
        self.start_in_mid_run().await;
        let owner = &self.owner;
        let changed = self.node.records.change(&mut self.stored, CHANGE_LIMIT, |record| {
            owner.check(record)?;
            rungs.iter().try_for_each(|rung| {
                let (strategy, reason) = (rung.as_str().to_owned(), class.as_str().to_owned());
                record.recover(Recovery { strategy, reason }).map_err(|_| Refusal::TakenOver)
            })
        });
        match changed.await {
            Ok(()) if self.stored.record.is_cancel_requested() => self.active.stop.raise(Stop::Cancelled),
            Ok(()) => {}
            Err(ChangeError::Refused(_)) => self.active.stop.raise(Stop::Lost),
            Err(ChangeError::Record(error)) => tracing::warn!(job = %self.id, %error, "recovery not noted"),
        }
    }

    /// One try, on the version of the try before it where that is still there. It ends with the run, or without it if
    /// the thread is stuck.
    async fn run_once(
        &mut self,
        image: Bytes,
        settings: Settings,
        version: &mut Option<String>,
        admission: &mut Admission,
    ) -> Result<Generated, PipelineError> {
        let node = self.node.clone();
        let family = self.family();
        let lease = tokio::select! {
            biased;
            _ = self.active.stop.wait() => return Err(PipelineError::Cancelled),
            lease = node.models.lease(&family, version.as_deref(), node.models.lease_limit()) => lease?,
        };
        *version = Some(lease.key().version.clone());
        self.foresight.begin(&settings, &lease.key().version, &image, &self.stored.record);
        let request = GenerationRequest { image, job_type: self.stored.record.job.job_type, settings };
        let limits = PulseLimits { run: node.work.job_limit, silence: node.work.stall_limit };
        let pulse = Arc::new(Pulse::begin(limits, Moment::now()));
        let (monitor, progress) =
            JobMonitor::new(self.active.stop.clone(), pulse.clone(), self.foresight.weights());
        let latest = progress.clone();
        let _busy = node.busy.begin();
        let mut span = JobSpan::begin(&node.tracer, &self.stored.record);
        let monitor = span.watch(Box::new(monitor));
        let outcome = tokio::select! {
            biased;
            run = admission.run(&lease, request, monitor) => run.outcome,
            silence = stuck(&pulse) => Err(PipelineError::Stuck { silence }),
            // A report that is cut off leaves an old revision behind; the next change reads again.
            () = self.report(progress) => Err(PipelineError::Stopped),
        };
        if let Err(error) = &outcome {
            span.failed(error);
        }
        if let Some(progress) = *latest.borrow() {
            self.foresight.reached(progress.stage);
        }
        match outcome {
            Err(PipelineError::Cancelled) if pulse.is_overdue(Moment::now()) => {
                Err(PipelineError::TimedOut { limit: limits.run })
            }
            outcome => outcome,
        }
    }

    /// Writes into the record that the job runs, if it does not say so yet.
    async fn start_in_mid_run(&mut self) {
        match self.ensure_started().await {
            Ok(()) => {}
            Err(ChangeError::Refused(Refusal::CancelRequested)) => self.active.stop.raise(Stop::Cancelled),
            Err(ChangeError::Refused(_)) => self.active.stop.raise(Stop::Lost),
            Err(ChangeError::Record(error)) => tracing::debug!(job = %self.id, %error, "start not noted yet"),
        }
    }

    /// Writes the start and the progress into the record until the pipeline ends. Never ends by itself.
    async fn report(&mut self, mut latest: watch::Receiver<Option<Progress>>) {
        if !self.is_started() {
            sleep(START_AFTER).await;
            self.start_in_mid_run().await;
        }
        let mut gate = ReportGate::new(Instant::now());
        let mut wake_at = None;
        loop {
            let changed = async {
                if latest.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            match wake_at {
                Some(at) => tokio::select! { () = changed => {}, () = sleep_until(at) => {} },
                None => changed.await,
            }
            let Some(progress) = *latest.borrow_and_update() else { continue };
            wake_at = match gate.due(progress, Instant::now()) {
                Due::At(at) => Some(at),
                Due::Now => {
                    self.report_once(progress).await;
                    gate.reported(progress, Instant::now());
                    Some(Instant::now() + REFRESH_INTERVAL)
                }
            };
        }
    }

    async fn report_once(&mut self, progress: Progress) {
        if !self.is_started() {
            self.start_in_mid_run().await;
        }
        let eta = self.foresight.progressed(progress);
        let (owner, foresight) = (&self.owner, &self.foresight);
        let changed = self.node.records.change(&mut self.stored, REPORT_LIMIT, |record| {
            owner.check(record)?;
            foresight.describe(&mut record.job.model);
            let told = record.advance(progress.stage, progress.percent());
            let told = told.and_then(|()| eta.map_or(Ok(()), |eta| record.foresee_end(eta)));
            told.map_err(|_| Refusal::TakenOver)
        });
        match changed.await {
            Ok(()) if self.stored.record.is_cancel_requested() => self.active.stop.raise(Stop::Cancelled),
            Ok(()) => {}
            Err(ChangeError::Refused(_)) => self.active.stop.raise(Stop::Lost),
            Err(ChangeError::Record(error)) => tracing::debug!(job = %self.id, %error, "progress not noted"),
        }
    }
}

/// Waits until a run has been silent for too long; gives the length of the silence.
async fn stuck(pulse: &Pulse) -> Duration {
    loop {
        match pulse.vital(Moment::now()) {
            Vital::Well(look_again) => sleep(look_again.min(PULSE_INTERVAL_MAX)).await,
            Vital::Stuck => return pulse.limits().silence,
        }
    }
}

/// The fault that a failure tells of, if only a new process heals it.
fn fault_of(error: &PipelineError) -> Option<Fault> {
    match error {
        PipelineError::DeviceLost(_) => Some(Fault::DeviceLost),
        PipelineError::Stopped => Some(Fault::InferenceStopped),
        PipelineError::Stuck { .. } => Some(Fault::InferenceStuck),
        _ => None,
    }
}
