//! The scheduler of a device, for those who have jobs.
//!
//! ```text
//!  Scheduler::queue ─▶ Ticket ── waits in JobQueue ──▶ Admission: device and memory ── runs on a model lease ─▶ Place
//!                        │ near: its picture, its model come                             until the result is stored
//!                        └ dropped: leaves the queue
//! ```

use std::sync::Arc;
use std::time::Duration;

use orfeas_protocol::JobId;
use tokio::sync::{oneshot, watch};
use tokio::time::{MissedTickBehavior, interval};

use super::admission::{Admission, AdmitError, Candidate, Kind, Ticket, guess_bytes};
use super::driver::{Limits, Seat, Shared};
use super::queue::{Gate, Queued};
use super::room::DeviceRoom;
use crate::metrics::Metrics;
use crate::models::{ModelCache, Room};
use crate::pipeline::{Engine, Settings};
use crate::vram::Memory;

/// Deadlines, ageing and the memory of others are looked at this often when nothing else happens.
const TICK: Duration = Duration::from_millis(250);
/// The figures are for scrapers that come each 15 s; asking a driver costs microseconds.
const FIGURE_TICKS: u32 = 8;
/// What a crash may take of what was learned.
const SAVE_TICKS: u32 = 120;

/// The scheduler of one device. Clones stand for the same one.
#[derive(Clone)]
pub struct Scheduler {
    shared: Arc<Shared>,
}

impl Scheduler {
    /// Of an engine's device. Nothing is admitted late or looked at again until [`Self::drive`] runs.
    pub fn new(
        engine: Arc<dyn Engine>,
        models: ModelCache,
        memory: Memory,
        limits: Limits,
        metrics: Arc<Metrics>,
    ) -> Self {
        let shared = Shared::new(engine, models, memory, limits, metrics);
        Self { shared: Arc::new(shared) }
    }

    /// Sees to deadlines, figures and the models until the future is dropped.
    pub async fn drive(self) {
        let room: Arc<dyn Room> = Arc::new(DeviceRoom::new(self.shared.clone()));
        tokio::join!(self.shared.models.clone().drive(room), self.tick());
    }

    async fn tick(&self) {
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut count: u32 = 0;
        loop {
            ticks.tick().await;
            self.shared.pump();
            if count.is_multiple_of(FIGURE_TICKS) {
                self.shared.memory.refresh();
                self.shared.metrics.vram(&self.shared.memory.figures());
            }
            count = count.wrapping_add(1);
            if count.is_multiple_of(SAVE_TICKS) {
                self.save().await;
            }
        }
    }

    /// Puts a job into the queue.
    ///
    /// # Errors
    /// The queue is full or being emptied, or has the job already.
    pub fn queue(&self, candidate: Candidate) -> Result<Ticket, AdmitError> {
        let shared = &self.shared;
        let family = candidate.family.unwrap_or_else(|| shared.models.default_family().to_owned());
        let source = shared.models.source(&family);
        let guess_bytes = source.map_or(0, |source| guess_bytes(source.as_ref(), &candidate.settings));
        let kind = Kind {
            family,
            preset: candidate.settings.preset,
            resolution: candidate.picture_side.checked_next_power_of_two().unwrap_or(u32::MAX),
            is_reduced: false,
            guess_bytes,
        };
        let (sender, answer) = oneshot::channel();
        let (near, near_seen) = watch::channel(false);
        let mut state = shared.state();
        let queued = Queued {
            id: candidate.id,
            tenant: candidate.tenant,
            priority: candidate.priority,
            kind: kind.clone(),
            created_at: candidate.created_at,
            deadline: candidate.deadline,
            expected: state.costs.expected(&kind),
        };
        state.queue.submit(queued, shared.now())?;
        state.seats.insert(candidate.id, Seat { answer: sender, near });
        drop(state);
        let ticket =
            Ticket { shared: shared.clone(), id: candidate.id, kind, answer: Some(answer), near: near_seen };
        shared.pump();
        Ok(ticket)
    }

    /// Queues a job and waits for its turn. Dropping the future leaves the queue.
    ///
    /// # Errors
    /// The job cannot be admitted here.
    pub async fn admit(&self, candidate: Candidate) -> Result<Admission, AdmitError> {
        self.queue(candidate)?.admitted().await
    }

    /// Whether a job of these settings could run on this device at all, with nothing else there.
    ///
    /// # Errors
    /// What it would need, and what there is.
    pub fn can_ever_process(&self, family: Option<&str>, settings: &Settings) -> Result<(), AdmitError> {
        let family = family.unwrap_or(self.shared.models.default_family());
        let Some(source) = self.shared.models.source(family) else { return Ok(()) };
        let needed_bytes = source.job_bytes(settings).saturating_add(source.resident_bytes());
        let ceiling_bytes = self.shared.memory.ceiling_bytes();
        if needed_bytes > ceiling_bytes {
            return Err(AdmitError::NeverFits { needed_bytes, ceiling_bytes });
        }
        Ok(())
    }

    /// How many jobs wait.
    pub fn waiting(&self) -> usize {
        self.shared.state().queue.len()
    }

    /// How many jobs run or store their result.
    pub fn in_pipeline(&self) -> usize {
        self.shared.state().in_pipeline
    }

    /// Whether the device has nothing to do.
    pub fn is_idle(&self) -> bool {
        let state = self.shared.state();
        state.queue.is_empty() && state.on_device.is_none()
    }

    /// The job that has the device.
    pub fn on_device(&self) -> Option<JobId> {
        self.shared.state().on_device
    }

    /// The jobs that wait, in the order in which they would start, at most `limit`.
    pub fn order(&self, limit: usize) -> Vec<JobId> {
        self.shared.state().queue.order(limit)
    }

    /// Hands the last of the waiting jobs back, for another node; those that `may_go` says no to stay. Gives how
    /// many have gone.
    pub fn hand_back(&self, count: usize, may_go: impl Fn(JobId) -> bool) -> usize {
        let mut answers = Vec::new();
        {
            let mut state = self.shared.state();
            let order = state.queue.order(usize::MAX);
            for id in order.into_iter().rev().filter(|id| may_go(*id)).take(count) {
                state.queue.remove(id);
                answers.extend(state.seats.remove(&id).map(|seat| seat.answer));
            }
        }
        let gone = answers.len();
        for answer in answers {
            let _ = answer.send(Err(AdmitError::HandedBack));
        }
        gone
    }

    /// Starts nothing more until it is opened again.
    pub fn set_gate(&self, gate: Gate) {
        self.shared.state().queue.set_gate(gate);
        self.shared.pump();
    }

    /// Whether jobs start.
    pub fn gate(&self) -> Gate {
        self.shared.state().queue.gate()
    }

    /// The device's models.
    pub fn models(&self) -> &ModelCache {
        &self.shared.models
    }

    /// The device's memory.
    pub fn memory(&self) -> &Memory {
        &self.shared.memory
    }

    /// Writes what has been learned.
    pub async fn save(&self) {
        let shared = self.shared.clone();
        let saved = tokio::task::spawn_blocking(move || shared.memory.save()).await;
        if let Ok(Err(error)) = saved {
            tracing::warn!(%error, "learned memory estimates not stored");
        }
    }
}
