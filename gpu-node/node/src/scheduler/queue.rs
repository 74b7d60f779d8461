//! The order in which waiting jobs start, as a plain state machine. Time is passed in.
//!
//! ```text
//!  submit ─▶ band 1 … band 10 ─▶ in a band: tenants by virtual time ─▶ of a tenant: the longest waiting ─▶ next
//!              └──── ageing ───┘        (accounts)                        (lines)
//! ```
//! * **Priority and ageing.** A job enters the band of its priority and rises by one band for each
//!   [`Policy::age_step`] that it has waited. So within `(10 - priority) × age_step` every job is in the top band,
//!   whatever comes after it.
//! * **Fairness.** In a band the tenant that has used the least device time goes first (weighted fair queueing
//!   with equal weights, Demers, Keshav and Shenker 1989; see [`accounts`]). Of one tenant's jobs, the one that
//!   has waited longest.
//! * **Memory.** The caller says for each *kind* of job whether it fits now. A job that is first and does not fit is
//!   passed over, at most [`Policy::bypass_max`] times; then the queue starts nothing else until it fits, for at
//!   most [`Policy::reservation_max`], and after that hands it out as [`Next::NoRoom`].
//! * **Models.** Among near-equals (the same band, and tenants no further apart than [`Policy::affinity_window`] of
//!   device time) a job whose model is loaded goes before one that needs a swap, at most [`Policy::affinity_max`]
//!   times in a row.
//!
//! **The bound.** Nothing starves: a job that has reached the top band at virtual time V, whose tenant stands at v
//! with k older jobs of its own waiting, has run before the virtual clock has passed
//! `max(v, V) + account_max + 2 (k + 1) × cost`, where `cost` is that of the dearest job, and but for the jobs that may
//! pass it over as above. The clock moves by what each job used divided by the number of tenants that wait,
//! so it cannot stand still while the device works; `account_max` is what a tenant may have in hand that
//! could not start its jobs for long. (Test: `no_job_starves`, with six tenants. Where many go with one job each,
//! the clock is faster, as fewer and fewer share it: by the harmonic number of their count.)
//!
//! **Cost.** With n jobs waiting, of K kinds (families × presets: a handful): submit, start, remove and each rise
//! of a job are O(log n); a change of a tenant's account moves its head in at most 10 K ordered sets; a look at
//! the queue reads at most 10 K heads. A job rises nine times in its life, and one call moves at most
//! [`ageing::RISES_MAX`] jobs, the longest due first: after a long pause the rest follow with the next calls. Memory is
//! bounded by [`Policy::depth_max`] jobs and [`accounts::IDLE_MAX`] tenants that still owe time.

mod accounts;
mod ageing;
mod choice;
mod lines;
mod policy;
mod preview;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use orfeas_protocol::options::Priority;
use orfeas_protocol::{JobId, TenantId, Timestamp};
use thiserror::Error;

use accounts::{Accounts, TenantKey};
use choice::Choice;
use lines::{Lines, Place, Turn};
pub use policy::Policy;

/// A job that waits. `K` is its kind: jobs of a kind need the same model and about the same memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queued<K> {
    /// The job.
    pub id: JobId,
    /// Whose device time it will use.
    pub tenant: TenantId,
    /// How urgent it is.
    pub priority: Priority,
    /// What it needs.
    pub kind: K,
    /// Since when it waits; a time in the future counts as now.
    pub created_at: Timestamp,
    /// After this nobody wants it any more.
    pub deadline: Option<Timestamp>,
    /// The device time that it is expected to use; charged when it starts, see [`JobQueue::settle`].
    pub expected: Duration,
}

/// Whether jobs of a kind can start now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// There is room, and the model is loaded.
    Warm,
    /// There is room, and the model is loaded when the job has the device.
    Cold,
    /// There is no room now, or the model is on its way.
    NotNow,
    /// The empty device would be too small.
    Never,
}

/// What the queue says when it is asked for work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next<K> {
    /// This job starts; it has left the queue, and its tenant is charged what it is expected to use.
    Start(Queued<K>),
    /// This job's deadline has passed; it has left the queue.
    Expired(Queued<K>),
    /// This job does not fit into the empty device; it has left the queue.
    NeverFits(Queued<K>),
    /// The device was kept for this job in vain; it has left the queue.
    NoRoom(Queued<K>),
    /// Nothing can start now.
    Wait,
}

/// Why a job was not taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SubmitError {
    /// As many jobs wait as may.
    #[error("the queue is full")]
    Full,
    /// It waits already.
    #[error("the job is in the queue already")]
    Duplicate,
    /// The queue is being emptied.
    #[error("the queue takes no jobs any more")]
    Draining,
}

/// Whether jobs come in and go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// Both.
    Open,
    /// Jobs come in and wait.
    Paused,
    /// Neither: what waits is for [`JobQueue::remove`].
    Draining,
}

/// The queue.
#[derive(Debug)]
pub struct JobQueue<K> {
    policy: Policy,
    gate: Gate,
    jobs: HashMap<Turn, Waiting<K>>,
    turns: HashMap<JobId, Turn>,
    lines: Lines<K>,
    accounts: Accounts,
    /// When a job rises next.
    rises: BTreeSet<(Timestamp, Turn)>,
    deadlines: BTreeSet<(Timestamp, Turn)>,
    reservation: Option<Reservation>,
    submitted: u64,
}

#[derive(Debug)]
struct Waiting<K> {
    job: Queued<K>,
    tenant: TenantKey,
    band: usize,
    rises_at: Option<Timestamp>,
    passed_over: u32,
}

/// The device is kept for a job.
#[derive(Debug, Clone, Copy)]
struct Reservation {
    turn: Turn,
    since: Timestamp,
}

impl<K: Ord + Clone> JobQueue<K> {
    /// An empty queue that is open.
    pub fn new(policy: Policy) -> Self {
        Self {
            accounts: Accounts::new(policy.account_max),
            policy,
            gate: Gate::Open,
            jobs: HashMap::new(),
            turns: HashMap::new(),
            lines: Lines::default(),
            rises: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            reservation: None,
            submitted: 0,
        }
    }

    /// Takes a job in.
    ///
    /// # Errors
    /// The queue is full or being emptied, or has the job already.
    pub fn submit(&mut self, job: Queued<K>, now: Timestamp) -> Result<(), SubmitError> {
        if self.gate == Gate::Draining {
            return Err(SubmitError::Draining);
        }
        if self.turns.contains_key(&job.id) {
            return Err(SubmitError::Duplicate);
        }
        if self.jobs.len() >= self.policy.depth_max {
            return Err(SubmitError::Full);
        }
        let turn = Turn { since: job.created_at.min(now), arrival: self.submitted };
        self.submitted += 1;
        let tenant = self.accounts.enter(&job.tenant);
        if let Some(deadline) = job.deadline {
            self.deadlines.insert((deadline, turn));
        }
        self.turns.insert(job.id, turn);
        let (band, rises_at) = self.standing(job.priority, turn, now);
        let place = Place { band, tenant };
        self.lines.insert(place, &job.kind, turn, self.accounts.virtual_time(tenant));
        self.rises.extend(rises_at.map(|at| (at, turn)));
        self.jobs.insert(turn, Waiting { job, tenant, band, rises_at, passed_over: 0 });
        Ok(())
    }

    /// What is to be done now. To be called again until it says [`Next::Wait`]. `fit` is asked once per kind.
    pub fn next(&mut self, now: Timestamp, fit: impl FnMut(&K) -> Fit) -> Next<K> {
        self.age(now);
        if let Some(job) = self.expired(now) {
            return Next::Expired(job);
        }
        if self.gate != Gate::Open {
            return Next::Wait;
        }
        match self.choose(now, fit) {
            Choice::Start { turn, passes } => {
                if let Some(passed) = passes.and_then(|turn| self.jobs.get_mut(&turn)) {
                    passed.passed_over += 1;
                }
                if let Some(Waiting { tenant, job, .. }) = self.jobs.get(&turn) {
                    let (before, after) = self.accounts.charge(*tenant, job.expected);
                    self.lines.rekey(*tenant, before, after);
                }
                self.take(turn).map_or(Next::Wait, Next::Start)
            }
            Choice::Never(turn) => self.take(turn).map_or(Next::Wait, Next::NeverFits),
            Choice::NoRoom(turn) => self.take(turn).map_or(Next::Wait, Next::NoRoom),
            Choice::Reserve(turn) => {
                self.reservation = Some(Reservation { turn, since: now });
                Next::Wait
            }
            Choice::Nothing => Next::Wait,
        }
    }

    /// A job whose deadline has passed; it has left the queue.
    pub fn expired(&mut self, now: Timestamp) -> Option<Queued<K>> {
        let (_, turn) = *self.deadlines.first().filter(|(deadline, _)| *deadline <= now)?;
        self.take(turn)
    }

    /// A job that started has ended, after `used` of device time; `charged` is its [`Queued::expected`]. To be called
    /// once for each start.
    pub fn settle(&mut self, tenant: &TenantId, charged: Duration, used: Duration) {
        if let Some((key, before, after)) = self.accounts.settle(tenant, charged, used) {
            self.lines.rekey(key, before, after);
        }
    }

    /// Takes a job out. `None` if it does not wait.
    pub fn remove(&mut self, id: JobId) -> Option<Queued<K>> {
        let turn = *self.turns.get(&id)?;
        self.take(turn)
    }

    /// Opens the queue, pauses it, or lets it be emptied.
    pub fn set_gate(&mut self, gate: Gate) {
        self.gate = gate;
    }

    /// Whether jobs come in and go out.
    pub fn gate(&self) -> Gate {
        self.gate
    }

    /// How many jobs wait.
    pub fn len(&self) -> usize {
        self.jobs.len()
    }

    /// Whether no job waits.
    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// A job that waits.
    pub fn get(&self, id: JobId) -> Option<&Queued<K>> {
        self.jobs.get(self.turns.get(&id)?).map(|waiting| &waiting.job)
    }

    /// When [`Self::next`] will have something to say even if nothing else happens: a deadline, or the end of a
    /// reservation.
    pub fn wake_at(&self) -> Option<Timestamp> {
        let deadline = self.deadlines.first().map(|(at, _)| *at);
        let reservation = self.reservation.filter(|_| self.gate == Gate::Open);
        let reserved_until = reservation.map(|reserved| reserved.since.plus(self.policy.reservation_max));
        deadline.into_iter().chain(reserved_until).min()
    }

    /// Takes a job out of everything that knows it.
    fn take(&mut self, turn: Turn) -> Option<Queued<K>> {
        let Waiting { job, tenant, band, rises_at, .. } = self.jobs.remove(&turn)?;
        self.turns.remove(&job.id);
        self.lines.remove(Place { band, tenant }, &job.kind, turn, self.accounts.virtual_time(tenant));
        if let Some(at) = rises_at {
            self.rises.remove(&(at, turn));
        }
        if let Some(deadline) = job.deadline {
            self.deadlines.remove(&(deadline, turn));
        }
        if self.reservation.is_some_and(|reserved| reserved.turn == turn) {
            self.reservation = None;
        }
        self.accounts.leave(tenant);
        Some(job)
    }
}
