//! The driver: does what the queue says, with the memory and the models in view.
//!
//! The queue decides ([`queue`](super::queue)), the memory says what fits ([`Memory`]), the models say what is loaded
//! ([`ModelCache`]). Each of them has its own lock; this one's is taken first and never held over a wait.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use orfeas_protocol::{JobId, Timestamp};
use tokio::sync::{oneshot, watch};

use super::admission::{AdmitError, DeviceTurn, Grant, Kind, Place};
use super::costs::Costs;
use super::queue::{Fit, JobQueue, Next, Policy, Queued};
use crate::metrics::Metrics;
use crate::models::ModelCache;
use crate::pipeline::Engine;
use crate::vram::estimate::JobKind;
use crate::vram::{Memory, Permit, Refusal};

/// What a scheduler goes by.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Jobs that run or store their result at one time.
    pub concurrency: usize,
    /// The queue's bounds.
    pub policy: Policy,
}

pub(super) struct Shared {
    pub(super) engine: Arc<dyn Engine>,
    pub(super) models: ModelCache,
    pub(super) memory: Memory,
    pub(super) metrics: Arc<Metrics>,
    pub(super) limits: Limits,
    state: Mutex<State>,
    /// Memory that ended jobs have not given back.
    leaked: Mutex<Option<(Permit, u64)>>,
    start: Instant,
    start_unix: Duration,
}

pub(super) struct State {
    pub(super) queue: JobQueue<Kind>,
    pub(super) seats: HashMap<JobId, Seat>,
    pub(super) costs: Costs<Kind>,
    pub(super) on_device: Option<JobId>,
    /// Jobs that run or store their result.
    pub(super) in_pipeline: usize,
    is_evicting: bool,
    /// The family whose model is brought here for a job whose turn is near.
    loading: Option<String>,
    /// Families whose models did not come: their jobs start, and say why.
    missing: HashSet<String>,
}

/// What jobs that do not start wait for.
#[derive(Default)]
struct Wants {
    /// The first that is short of memory: its family, and how much.
    memory: Option<(String, u64)>,
    /// The first family whose model is to be loaded.
    model: Option<String>,
}

/// The driver's end of a ticket.
pub(super) struct Seat {
    pub(super) answer: oneshot::Sender<Result<Grant, AdmitError>>,
    pub(super) near: watch::Sender<bool>,
}

impl Shared {
    pub(super) fn new(
        engine: Arc<dyn Engine>,
        models: ModelCache,
        memory: Memory,
        limits: Limits,
        metrics: Arc<Metrics>,
    ) -> Self {
        let state = State {
            queue: JobQueue::new(limits.policy.clone()),
            seats: HashMap::new(),
            costs: Costs::default(),
            on_device: None,
            in_pipeline: 0,
            is_evicting: false,
            loading: None,
            missing: HashSet::new(),
        };
        Self {
            engine,
            models,
            memory,
            metrics,
            limits,
            state: Mutex::new(state),
            leaked: Mutex::new(None),
            start: Instant::now(),
            start_unix: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // The queue's methods leave it consistent at every point where they could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Unix time that never goes back.
    pub(super) fn now(&self) -> Timestamp {
        let now_ms = (self.start_unix + self.start.elapsed()).as_millis();
        Timestamp::from_unix_ms(u64::try_from(now_ms).unwrap_or(u64::MAX))
    }

    /// Does what the queue says until it says to wait. Answers go out after the lock: who has left in the meantime
    /// drops its grant, and that calls the next.
    pub(super) fn pump(self: &Arc<Self>) {
        let mut answers = Vec::new();
        let mut wants = Wants::default();
        let mut state = self.state();
        if state.queue.is_empty() {
            return;
        }
        let mut is_fresh = false;
        loop {
            let now = self.now();
            let is_busy = state.on_device.is_some() || state.in_pipeline >= self.limits.concurrency;
            let next = if is_busy {
                state.queue.expired(now).map_or(Next::Wait, Next::Expired)
            } else {
                if !std::mem::replace(&mut is_fresh, true) {
                    self.memory.refresh_if_stale();
                }
                let State { queue, loading, missing, .. } = &mut *state;
                queue.next(now, |kind| self.fit(kind, loading.as_deref(), missing, &mut wants))
            };
            let (id, answer) = match next {
                Next::Wait => break,
                Next::Start(job) => match self.grant(&mut state, job) {
                    Some((id, grant)) => (id, Ok(grant)),
                    // Its memory went to a model that loads; it is tried again at the next occasion.
                    None => break,
                },
                Next::Expired(job) => (job.id, Err(AdmitError::Expired)),
                Next::NoRoom(job) => (job.id, Err(AdmitError::NoRoom)),
                Next::NeverFits(job) => (job.id, Err(self.never_fits(&job.kind))),
            };
            let seat = state.seats.remove(&id);
            answers.push((seat.map(|seat| seat.answer), answer));
        }
        self.mark_near(&state);
        wants.model = wants.model.or_else(|| self.near_model(&state));
        let evicts = wants.memory.filter(|_| !state.is_evicting);
        state.is_evicting |= evicts.is_some();
        let loads = wants.model.filter(|_| state.loading.is_none());
        if loads.is_some() {
            state.loading.clone_from(&loads);
        }
        drop(state);
        for (seat, answer) in answers {
            match seat {
                Some(seat) => drop(seat.send(answer)),
                None => drop(answer),
            }
        }
        if let Some((family, bytes)) = evicts {
            tokio::spawn(evict(self.clone(), family, bytes));
        }
        if let Some(family) = loads {
            tokio::spawn(bring(self.clone(), family));
        }
    }

    /// Whether jobs of a kind can start now; notes what the first that cannot waits for.
    ///
    /// A model that has to be loaded is loaded first: the device is for others meanwhile. One without weights comes at
    /// once, and one that did not come would not be any better for a wait.
    fn fit(&self, kind: &Kind, loading: Option<&str>, missing: &HashSet<String>, wants: &mut Wants) -> Fit {
        // No such family: the job starts, and its lease says so.
        let Some(source) = self.models.source(&kind.family) else { return Fit::Warm };
        let is_warm = self.models.is_warm(&kind.family);
        let resident_bytes = source.resident_bytes();
        let job_kind = self.job_kind(kind);
        match self.memory.can_process(&job_kind, kind.guess_bytes, resident_bytes, is_warm) {
            Ok(()) if is_warm => Fit::Warm,
            Err(Refusal::NeverFits { .. }) => Fit::Never,
            // Its memory may be set aside already.
            _ if loading == Some(kind.family.as_str()) => Fit::NotNow,
            Ok(()) if resident_bytes == 0 || missing.contains(&kind.family) => Fit::Cold,
            Ok(()) => {
                wants.model.get_or_insert_with(|| kind.family.clone());
                Fit::NotNow
            }
            Err(Refusal::NoRoomNow { asked_bytes, available_bytes }) => {
                wants.memory.get_or_insert_with(|| (kind.family.clone(), asked_bytes - available_bytes));
                Fit::NotNow
            }
        }
    }

    /// Gives the device to a job. `None` if its memory is not there any more; it waits again then.
    fn grant(self: &Arc<Self>, state: &mut State, job: Queued<Kind>) -> Option<(JobId, Grant)> {
        let resident_bytes = self.resident_bytes(&job.kind);
        match self.memory.reserve(&self.job_kind(&job.kind), job.kind.guess_bytes, resident_bytes) {
            Ok((permit, estimated_bytes)) => {
                state.on_device = Some(job.id);
                // The next job of the family has it looked for again.
                state.missing.remove(&job.kind.family);
                state.in_pipeline += 1;
                let device = DeviceTurn {
                    shared: self.clone(),
                    tenant: job.tenant,
                    kind: job.kind,
                    charged: job.expected,
                    used: Duration::ZERO,
                    running_since: None,
                };
                let place = Place { shared: self.clone() };
                Some((job.id, Grant { device, place, permit, estimated_bytes }))
            }
            Err(_) => {
                state.queue.settle(&job.tenant, job.expected, Duration::ZERO);
                // It left a place free a moment ago.
                let _ = state.queue.submit(job, self.now());
                None
            }
        }
    }

    fn never_fits(&self, kind: &Kind) -> AdmitError {
        let resident_bytes = self.resident_bytes(kind);
        let job_bytes = self.memory.estimate(&self.job_kind(kind), kind.guess_bytes, resident_bytes);
        AdmitError::NeverFits {
            needed_bytes: job_bytes.saturating_add(resident_bytes),
            ceiling_bytes: self.memory.ceiling_bytes(),
        }
    }

    fn resident_bytes(&self, kind: &Kind) -> u64 {
        self.models.source(&kind.family).map_or(0, |source| source.resident_bytes())
    }

    fn job_kind(&self, kind: &Kind) -> JobKind {
        kind.at(self.models.version(&kind.family).unwrap_or_default())
    }

    /// Tells the next few that their turn is near.
    fn mark_near(&self, state: &State) {
        let ahead = self.limits.concurrency.saturating_sub(1);
        let near = state.seats.values().filter(|seat| *seat.near.borrow()).count();
        if near >= ahead {
            return;
        }
        let mut left = ahead - near;
        for id in state.queue.order(ahead) {
            let Some(seat) = state.seats.get(&id) else { continue };
            let is_new = seat.near.send_if_modified(|near| !std::mem::replace(near, true));
            left -= usize::from(is_new);
            if left == 0 {
                return;
            }
        }
    }

    /// The model to load while another job has the device: of a job whose turn is near, if there is room for both.
    fn near_model(&self, state: &State) -> Option<String> {
        if state.loading.is_some() {
            return None;
        }
        let near = state.seats.iter().filter(|(_, seat)| *seat.near.borrow());
        let mut wants = Wants::default();
        for job in near.filter_map(|(id, _)| state.queue.get(*id)) {
            if !self.models.is_warm(&job.kind.family) {
                self.fit(&job.kind, None, &state.missing, &mut wants);
            }
        }
        wants.model
    }

    /// Memory that a job left behind is ours and in use: it stays promised, so that nobody else is promised it.
    pub(super) fn note_leak(&self, leaked_bytes: u64) {
        if leaked_bytes == 0 {
            return;
        }
        self.metrics.memory_leaks.inc();
        let mut leaked = self.leaked.lock().unwrap_or_else(PoisonError::into_inner);
        if leaked.is_none() {
            *leaked = self.memory.vram().try_reserve(0).ok().map(|permit| (permit, 0));
        }
        if let Some((permit, bytes)) = leaked.as_mut() {
            *bytes = bytes.saturating_add(leaked_bytes);
            permit.correct(*bytes);
            tracing::warn!(leaked_bytes, all_bytes = *bytes, "device memory was not given back");
        }
    }
}

/// Has a model loaded, and kept until those who wait for it have been called.
async fn bring(shared: Arc<Shared>, family: String) {
    // The wait for room, and then the load.
    let limit = shared.models.lease_limit().saturating_mul(2);
    let lease = shared.models.lease(&family, None, limit).await;
    let mut state = shared.state();
    state.loading = None;
    match &lease {
        Ok(_) => {
            state.missing.remove(&family);
        }
        Err(error) => {
            tracing::debug!(family, %error, "model did not come; the job that wants it says why");
            state.missing.insert(family);
        }
    }
    drop(state);
    shared.pump();
}

/// Makes room for the first in line. Its own model stays: a lease holds it meanwhile.
async fn evict(shared: Arc<Shared>, family: String, bytes: u64) {
    let own = if shared.models.is_warm(&family) {
        shared.models.lease(&family, None, Duration::ZERO).await.ok()
    } else {
        None
    };
    let freed = shared.models.evict_idle(bytes).await;
    drop(own);
    shared.state().is_evicting = false;
    if freed > 0 {
        shared.pump();
    }
}
