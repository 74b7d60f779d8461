//! What a job goes through: a [`Ticket`] while it waits, an [`Admission`] while it has the device, a [`Place`] until
//! its result is stored. Each gives back what it holds when it is dropped, on every path.

use std::sync::Arc;
use std::time::{Duration, Instant};

use orfeas_protocol::options::Priority;
use orfeas_protocol::preset::Preset;
use orfeas_protocol::{JobId, TenantId, Timestamp};
use thiserror::Error;
use tokio::sync::{oneshot, watch};

use super::driver::Shared;
use super::queue::SubmitError;
use crate::models::ModelLease;
use crate::pipeline::{GenerationRequest, ModelSource, Monitor, PipelineError, Run, Settings};
use crate::vram::estimate::JobKind;
use crate::vram::{Permit, Refusal};

/// Kinds of jobs are told apart by the family's guess in steps of this size, so that there are few of them.
const GUESS_STEP_BYTES: u64 = 64 << 20;

/// A job that wants to run.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// The job.
    pub id: JobId,
    /// Whose it is.
    pub tenant: TenantId,
    /// How urgent it is.
    pub priority: Priority,
    /// The model family; `None` = the engine's own.
    pub family: Option<String>,
    /// How it is to run.
    pub settings: Settings,
    /// The longest side of its picture, in pixels.
    pub picture_side: u32,
    /// Since when it waits.
    pub created_at: Timestamp,
    /// After this nobody wants it any more.
    pub deadline: Option<Timestamp>,
}

/// Why a job was not admitted.
#[derive(Debug, Error)]
pub enum AdmitError {
    /// It did not come into the queue.
    #[error(transparent)]
    Refused(#[from] SubmitError),
    /// Its deadline has passed.
    #[error("the deadline has passed")]
    Expired,
    /// This device is too small for it.
    #[error(
        "the job needs {needed_bytes} bytes of device memory, and this device gives {ceiling_bytes} at most"
    )]
    NeverFits {
        /// With its model.
        needed_bytes: u64,
        /// When nothing else is there.
        ceiling_bytes: u64,
    },
    /// Others use the memory that it needs and do not give it back, or its model takes long to come.
    #[error("the device's memory did not come free in time, or the model did not come")]
    NoRoom,
    /// Another node is to have it.
    #[error("the job is handed back")]
    HandedBack,
}

/// Jobs of the same model and about the same memory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Kind {
    pub(super) family: String,
    pub(super) preset: Preset,
    pub(super) resolution: u32,
    /// Works on less at one time than its preset does.
    pub(super) is_reduced: bool,
    pub(super) guess_bytes: u64,
}

/// What the queue's choice brings.
pub(super) struct Grant {
    pub(super) device: DeviceTurn,
    pub(super) place: Place,
    pub(super) permit: Permit,
    pub(super) estimated_bytes: u64,
}

/// A job's place in the queue; dropping it leaves the queue.
pub struct Ticket {
    pub(super) shared: Arc<Shared>,
    pub(super) id: JobId,
    pub(super) kind: Kind,
    pub(super) answer: Option<oneshot::Receiver<Result<Grant, AdmitError>>>,
    pub(super) near: watch::Receiver<bool>,
}

/// A job's right to the device and to memory on it. Dropping it gives them back.
pub struct Admission {
    // Dropped in this order: the next that is called may need the memory.
    permit: Permit,
    device: DeviceTurn,
    place: Place,
    estimated_bytes: u64,
    kind: Kind,
}

/// The device is a job's; dropping it charges the job's tenant for what was used and calls the next.
pub(super) struct DeviceTurn {
    pub(super) shared: Arc<Shared>,
    pub(super) tenant: TenantId,
    pub(super) kind: Kind,
    pub(super) charged: Duration,
    pub(super) used: Duration,
    pub(super) running_since: Option<Instant>,
}

/// A job's place in the pipeline, kept until its result is stored.
pub struct Place {
    pub(super) shared: Arc<Shared>,
}

impl Ticket {
    /// Turns true once, when the job is among the next: what it needs beside the device may be brought here.
    pub fn near(&self) -> watch::Receiver<bool> {
        self.near.clone()
    }

    /// Waits for the job's turn. Dropping the future leaves the queue.
    ///
    /// # Errors
    /// The job cannot be admitted here.
    pub async fn admitted(mut self) -> Result<Admission, AdmitError> {
        let Some(answer) = self.answer.take() else { return Err(AdmitError::HandedBack) };
        // The seat is dropped without an answer only with the scheduler.
        let Grant { device, place, permit, estimated_bytes } =
            answer.await.unwrap_or(Err(AdmitError::HandedBack))?;
        Ok(Admission { permit, device, place, estimated_bytes, kind: self.kind.clone() })
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        let was_waiting = state.queue.remove(self.id).is_some();
        state.seats.remove(&self.id);
        drop(state);
        if was_waiting {
            self.shared.pump();
        }
    }
}

impl Admission {
    /// Runs a request on the device on a leased model, as often as need be, each time under a reservation of what these
    /// settings take on this version, and learns what it takes. Dropping the future cancels it.
    pub async fn run(
        &mut self,
        lease: &ModelLease,
        request: GenerationRequest,
        monitor: Box<dyn Monitor>,
    ) -> Run {
        let shared = self.device.shared.clone();
        let kind = self.kind.of_try(&request.settings).at(lease.key().version.clone());
        if let Err(error) = self.reserve(&kind, lease, &request.settings).await {
            return Run::failed(error);
        }
        self.device.running_since = Some(Instant::now());
        let run = shared.engine.run(lease.key().clone(), request, monitor).await;
        self.device.pause();
        // What failed for lack of memory says that it was more than this, not how much.
        let is_telling = run.outcome.is_ok()
            || matches!(run.outcome, Err(PipelineError::OutOfMemory(_)))
                && run.peak_bytes > self.estimated_bytes;
        if is_telling && let Some(error) = shared.memory.learn(&kind, self.estimated_bytes, run.peak_bytes) {
            shared.metrics.vram_estimate_error.observe(error);
        }
        shared.note_leak(run.leaked_bytes);
        run
    }

    /// Changes the reservation to what a try takes; idle models make way for one that takes more than the one before.
    async fn reserve(
        &mut self,
        kind: &JobKind,
        lease: &ModelLease,
        settings: &Settings,
    ) -> Result<(), PipelineError> {
        let shared = &self.device.shared;
        let source = lease.source();
        let guess_bytes = guess_bytes(source.as_ref(), settings);
        let bytes = shared.memory.estimate(kind, guess_bytes, source.resident_bytes());
        let mut resized = self.permit.resize(bytes);
        if let Err(Refusal::NoRoomNow { asked_bytes, available_bytes }) = resized {
            shared.models.evict_idle(asked_bytes.saturating_sub(available_bytes)).await;
            resized = self.permit.resize(bytes);
        }
        resized.map_err(|refusal| PipelineError::OutOfMemory(refusal.to_string()))?;
        self.estimated_bytes = bytes;
        Ok(())
    }

    /// The device is free for the next; the job keeps its place until its result is stored.
    pub fn leave_device(self) -> Place {
        let Self { device, place, permit, .. } = self;
        drop(permit);
        drop(device);
        place
    }
}

impl DeviceTurn {
    fn pause(&mut self) {
        self.used += self.running_since.take().map_or(Duration::ZERO, |since| since.elapsed());
    }
}

impl Drop for DeviceTurn {
    fn drop(&mut self) {
        self.pause();
        let mut state = self.shared.state();
        state.on_device = None;
        state.queue.settle(&self.tenant, self.charged, self.used);
        if !self.used.is_zero() {
            state.costs.learn(&self.kind, self.used);
        }
        drop(state);
        self.shared.pump();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.in_pipeline = state.in_pipeline.saturating_sub(1);
        drop(state);
        self.shared.pump();
    }
}

/// The family's own guess, in steps, so that there are few kinds of jobs.
pub(super) fn guess_bytes(source: &dyn ModelSource, settings: &Settings) -> u64 {
    source.job_bytes(settings).next_multiple_of(GUESS_STEP_BYTES)
}

impl Kind {
    /// The kind of a try with these settings. One that works on less at one time than its preset does takes less, and
    /// is no measure of the others.
    fn of_try(&self, settings: &Settings) -> Self {
        let is_reduced = settings.chunk_points_max.is_some() || settings.batch < settings.preset.batch();
        Self { preset: settings.preset, is_reduced, ..self.clone() }
    }

    /// The kind as memory estimates know it, of a model's version.
    pub(super) fn at(&self, version: String) -> JobKind {
        JobKind {
            family: self.family.clone(),
            version,
            preset: format!("{}{}", preset_name(self.preset), if self.is_reduced { "-reduced" } else { "" }),
            resolution: self.resolution,
        }
    }
}

fn preset_name(preset: Preset) -> &'static str {
    match preset {
        Preset::Fast => "fast",
        Preset::Balanced => "balanced",
        Preset::Quality => "quality",
    }
}
