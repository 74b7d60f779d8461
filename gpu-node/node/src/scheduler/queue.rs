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
//! [`RISES_MAX`] jobs, the longest due first: after a long pause the rest follow with the next calls. Memory is
//! bounded by [`Policy::depth_max`] jobs and [`accounts::IDLE_MAX`] tenants that still owe time.

mod accounts;
mod lines;
mod preview;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use orfeas_protocol::options::Priority;
use orfeas_protocol::{JobId, TenantId, Timestamp};
use thiserror::Error;

use accounts::{Accounts, TenantKey};
use lines::{BANDS, Lines, Place, Turn};

/// Jobs that one call lets rise by a band.
const RISES_MAX: usize = 256;

/// The bounds of the queue.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// Jobs that may wait.
    pub depth_max: usize,
    /// How long a job waits for each level that it rises.
    pub age_step: Duration,
    /// How often a job that does not fit is passed over before the device is kept for it.
    pub bypass_max: u32,
    /// How long the device is kept for a job that does not fit.
    pub reservation_max: Duration,
    /// How often a job that needs another model is passed over by jobs of loaded ones.
    pub affinity_max: u32,
    /// How much more device time than the first one's a tenant may have used and still pass it, with a loaded model.
    pub affinity_window: Duration,
    /// What a tenant can owe or be owed at most, in device time.
    pub account_max: Duration,
}

impl Default for Policy {
    /// For jobs of a second to a minute on one device.
    fn default() -> Self {
        Self {
            // What one node may hold with its look-ahead over 20 lanes is a tenth of this.
            depth_max: 10_000,
            // A level is worth half a minute: the least urgent job is among the most urgent after 4.5 minutes.
            age_step: Duration::from_secs(30),
            // About the time in which what runs now ends and makes room.
            bypass_max: 16,
            reservation_max: Duration::from_secs(60),
            // A swap of a large model costs some jobs' time; nobody waits for more than eight.
            affinity_max: 8,
            affinity_window: Duration::from_secs(30),
            account_max: Duration::from_secs(600),
        }
    }
}

impl Policy {
    /// The band, 0 to 9, of a job of a priority that has waited for so long. Jobs of a higher band start first.
    pub fn band(&self, priority: Priority, waited: Duration) -> usize {
        let steps = waited.as_millis() / u128::from(self.age_step_ms());
        let entry = usize::from(priority.get()) - 1;
        entry.saturating_add(usize::try_from(steps).unwrap_or(usize::MAX)).min(BANDS - 1)
    }

    fn age_step_ms(&self) -> u64 {
        u64::try_from(self.age_step.as_millis()).unwrap_or(u64::MAX).max(1)
    }
}

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

/// What [`JobQueue::choose`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Choice {
    Start { turn: Turn, passes: Option<Turn> },
    Never(Turn),
    NoRoom(Turn),
    Reserve(Turn),
    Nothing,
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

    /// The band of a job and when it rises to the next.
    fn standing(&self, priority: Priority, turn: Turn, now: Timestamp) -> (usize, Option<Timestamp>) {
        let band = self.policy.band(priority, now.since(turn.since));
        let step_ms = self.policy.age_step_ms();
        let steps = now.since(turn.since).as_millis() as u64 / step_ms;
        let rises_ms = turn.since.unix_ms().saturating_add(step_ms.saturating_mul(steps.saturating_add(1)));
        (band, (band < BANDS - 1).then_some(Timestamp::from_unix_ms(rises_ms)))
    }

    /// Lets jobs rise that are due.
    fn age(&mut self, now: Timestamp) {
        for _ in 0..RISES_MAX {
            let Some(&(at, turn)) = self.rises.first() else { return };
            if at > now {
                return;
            }
            self.rises.pop_first();
            let Some(waiting) = self.jobs.get(&turn) else { continue };
            let (band, rises_at) = self.standing(waiting.job.priority, turn, now);
            let virtual_time = self.accounts.virtual_time(waiting.tenant);
            let before = Place { band: waiting.band, tenant: waiting.tenant };
            self.lines.remove(before, &waiting.job.kind, turn, virtual_time);
            self.lines.insert(Place { band, ..before }, &waiting.job.kind, turn, virtual_time);
            self.rises.extend(rises_at.map(|at| (at, turn)));
            if let Some(waiting) = self.jobs.get_mut(&turn) {
                (waiting.band, waiting.rises_at) = (band, rises_at);
            }
        }
    }

    fn choose(&self, now: Timestamp, mut fit: impl FnMut(&K) -> Fit) -> Choice {
        if let Some(reserved) = self.reservation
            && let Some(waiting) = self.jobs.get(&reserved.turn)
        {
            return match fit(&waiting.job.kind) {
                Fit::Warm | Fit::Cold => Choice::Start { turn: reserved.turn, passes: None },
                Fit::Never => Choice::Never(reserved.turn),
                Fit::NotNow if now.since(reserved.since) >= self.policy.reservation_max => {
                    Choice::NoRoom(reserved.turn)
                }
                Fit::NotNow => Choice::Nothing,
            };
        }
        let mut known: Vec<(&K, Fit)> = Vec::new();
        let mut fit_of = |kind| match known.iter().find(|(known, _)| *known == kind) {
            Some((_, fit)) => *fit,
            None => {
                let answer = fit(kind);
                known.push((kind, answer));
                answer
            }
        };
        let mut first = None;
        for band in (0..BANDS).rev() {
            // The band's first fitting job, and whether its model is loaded.
            let mut best = None;
            for (used, turn, kind) in self.lines.heads(band) {
                let first = *first.get_or_insert(turn);
                let fit = fit_of(kind);
                match (fit, best) {
                    (Fit::Never, _) => return Choice::Never(turn),
                    (Fit::NotNow, _)
                        if turn == first && self.passed_over(first) >= self.policy.bypass_max =>
                    {
                        return Choice::Reserve(turn);
                    }
                    (Fit::NotNow, _) => {}
                    (Fit::Cold, None) => best = Some((used, turn)),
                    (Fit::Cold, Some(_)) => {}
                    (Fit::Warm, None) => return start(turn, first),
                    (Fit::Warm, Some((best_used, best))) => {
                        let near = used.since(best_used) <= self.policy.affinity_window;
                        let may_pass = best != first || self.passed_over(first) < self.policy.affinity_max;
                        return start(if near && may_pass { turn } else { best }, first);
                    }
                }
            }
            if let (Some((_, turn)), Some(first)) = (best, first) {
                return start(turn, first);
            }
        }
        Choice::Nothing
    }

    fn passed_over(&self, turn: Turn) -> u32 {
        self.jobs.get(&turn).map_or(0, |waiting| waiting.passed_over)
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

/// A start that passes the first in order, if it is another.
fn start(turn: Turn, first: Turn) -> Choice {
    Choice::Start { turn, passes: (turn != first).then_some(first) }
}
