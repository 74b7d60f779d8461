//! The region's open jobs in the order in which they will start, and telling those who wait where they stand. This is
//! the only place where a caller's place in the queue is worked out: records, and with them every answer and the
//! estimates, have it from here.
//!
//! ```text
//!  watcher ─▶ Line ─▶ place of a job, what goes before it ─▶ history ─▶ queue_position, ETA ─▶ record
//! ```
//! One node of a channel tells: the first of those that are alive, by name. Records are written for the front of the
//! line, and for a few others in turn, so that a long queue costs no more than a short one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use orfeas_protocol::job::{Eta, WaitingEstimate};
use orfeas_protocol::options::Priority;
use orfeas_protocol::{Channel, JobId, JobRecord, JobStatus, NodeId, Timestamp};
use tokio::time::{MissedTickBehavior, interval};

use super::entropy::{self, now};
use super::foresight::foreseen_kind;
use super::inventory::{self, Serving};
use super::node::NodeContext;
use super::provision::NODE_TTL;
use super::records::ChangeError;
use crate::history::{History, JobAhead, Position, RunKind, Told};
use crate::pipeline::Stage;
use crate::scheduler::queue::Policy;

/// Between two looks at the line.
const TELL_INTERVAL: Duration = Duration::from_secs(2);
/// A job that has waited for less is about to start: writing its place would only slow it down.
const WAIT_MIN: Duration = Duration::from_secs(1);
/// Jobs at the front that are told at each look.
const FRONT: usize = 16;
/// Jobs behind them that are told at each look, taking turns.
const BEHIND: usize = 4;
/// A change of this part of an estimate is news.
const NEWS_RATIO: f64 = 0.1;
/// A smaller change than this is none, whatever its part.
const NEWS_SECONDS: f64 = 0.5;
/// One write; the next look comes anyway.
const WRITE_LIMIT: Duration = Duration::from_secs(2);

/// The region's open jobs, and the nodes that take them. Clones stand for the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Line {
    jobs: Arc<Mutex<HashMap<JobId, Open>>>,
    nodes: Arc<Mutex<Vec<Serving>>>,
}

/// A job that has not ended, as its record last said.
#[derive(Debug, Clone)]
struct Open {
    channel: Channel,
    priority: Priority,
    created_at: Timestamp,
    kind: Arc<RunKind>,
    state: State,
    seen_at: Instant,
}

#[derive(Debug, Clone)]
enum State {
    Waiting { position: Option<u64>, eta_seconds: Option<f64> },
    Running { node: Option<NodeId>, stage: Option<Stage>, percent: u8 },
}

impl Open {
    /// The order in which waiting jobs start: that of the nodes' queues ([`JobQueue`](crate::scheduler::queue::JobQueue)),
    /// but for what differs from node to node: what tenants have used there, what is loaded and what fits.
    fn turn(
        &self,
        id: JobId,
        policy: &Policy,
        now: Timestamp,
    ) -> (std::cmp::Reverse<usize>, Timestamp, JobId) {
        let band = policy.band(self.priority, now.since(self.created_at));
        (std::cmp::Reverse(band), self.created_at, id)
    }

    fn waits_in(&self, channel: Channel) -> bool {
        matches!(self.state, State::Waiting { .. }) && self.channel == channel
    }

    fn runs_on(&self, nodes: &[NodeId]) -> bool {
        match &self.state {
            State::Running { node, .. } => node.as_ref().is_some_and(|node| nodes.contains(node)),
            State::Waiting { .. } => false,
        }
    }

    fn ahead(&self, history: &History, at: Instant) -> JobAhead {
        let position = match &self.state {
            State::Running { stage: Some(stage), percent, .. } => {
                let within = history.weights(&self.kind).within(*stage, f32::from(*percent) / 100.0);
                Some(Position { stage: *stage, within: f64::from(within), stage_seconds: None })
            }
            State::Running { stage: None, .. } => Some(Position::START),
            State::Waiting { .. } => None,
        };
        let seen_seconds_ago = at.saturating_duration_since(self.seen_at).as_secs_f64();
        JobAhead { kind: self.kind.clone(), position, seen_seconds_ago }
    }
}

/// The jobs of one channel, those that wait in their order.
struct Queue {
    running: Vec<JobAhead>,
    waiting: Vec<(JobId, Open)>,
    servers: usize,
}

impl Line {
    /// A record was written.
    pub(crate) fn note(&self, record: &JobRecord, history: &History, default_family: &str) {
        let job = &record.job;
        if job.status.is_terminal() {
            self.forget(job.id);
            return;
        }
        let state = match job.status {
            JobStatus::Queued => {
                State::Waiting { position: job.queue_position, eta_seconds: job.eta_seconds }
            }
            _ => State::Running {
                node: job.node.clone(),
                stage: job.stage.as_deref().and_then(Stage::named),
                percent: job.progress,
            },
        };
        let open = Open {
            channel: job.channel,
            priority: job.priority,
            created_at: job.created_at,
            kind: Arc::new(foreseen_kind(history, default_family, record)),
            state,
            seen_at: Instant::now(),
        };
        lock(&self.jobs).insert(job.id, open);
    }

    /// A record is gone.
    pub(crate) fn forget(&self, id: JobId) {
        lock(&self.jobs).remove(&id);
    }

    /// The watch begins again.
    pub(crate) fn clear(&self) {
        lock(&self.jobs).clear();
    }

    /// Which nodes are alive, with their channels.
    fn set_nodes(&self, nodes: Vec<Serving>) {
        *lock(&self.nodes) = nodes;
    }

    /// The nodes that serve a channel, by name; `this` one among them, even before its first sign of life.
    fn serving(&self, channel: Channel, this: &NodeContext) -> Vec<NodeId> {
        let nodes = lock(&self.nodes);
        let alive = nodes.iter().filter(|(_, channels)| channels.contains(&channel)).map(|(node, _)| node);
        let this = this.channels.contains(&channel).then_some(&this.id);
        let mut serving: Vec<NodeId> = alive.chain(this).cloned().collect();
        serving.sort();
        serving.dedup();
        serving
    }

    /// How many jobs go before a job that waits, and what they are.
    fn before(&self, id: JobId, serving: &[NodeId], history: &History) -> Option<(u64, Vec<JobAhead>)> {
        let at = Instant::now();
        let jobs = lock(&self.jobs);
        let own = jobs.get(&id)?;
        let (policy, now) = (Policy::default(), now());
        let turn = own.turn(id, &policy, now);
        let goes_before =
            |id: JobId, open: &Open| open.waits_in(own.channel) && open.turn(id, &policy, now) < turn;
        let waiting = jobs.iter().filter(|(id, open)| goes_before(**id, open)).count() as u64;
        let ahead = jobs.iter().filter(|(id, open)| open.runs_on(serving) || goes_before(**id, open));
        let ahead = ahead.map(|(_, open)| open.ahead(history, at)).collect();
        Some((waiting, ahead))
    }

    /// The jobs of a channel that `serving` nodes take.
    fn queue(&self, channel: Channel, serving: &[NodeId], history: &History) -> Queue {
        let at = Instant::now();
        let jobs = lock(&self.jobs);
        let running = jobs.values().filter(|open| open.runs_on(serving));
        let running = running.map(|open| open.ahead(history, at)).collect();
        let waiting = jobs.iter().filter(|(_, open)| open.waits_in(channel));
        let mut waiting: Vec<(JobId, Open)> = waiting.map(|(id, open)| (*id, open.clone())).collect();
        drop(jobs);
        let (policy, now) = (Policy::default(), now());
        waiting.sort_by_cached_key(|(id, open)| open.turn(*id, &policy, now));
        Queue { running, waiting, servers: serving.len().max(1) }
    }
}

/// No code that can panic runs under these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Queue {
    /// What the job at a place is told of its end; `None` if its family has never run.
    fn told(&self, place: usize, history: &History) -> Option<Told> {
        let (_, open) = self.waiting.get(place)?;
        let at = Instant::now();
        let before = self.waiting.iter().take(place).map(|(_, open)| open.ahead(history, at));
        let ahead: Vec<JobAhead> = self.running.iter().cloned().chain(before).collect();
        history.waiting(&open.kind, &ahead, self.servers)
    }

    /// The places that are told at the `look`-th look: the front, and some behind it in turn.
    fn turns(&self, look: usize) -> Vec<usize> {
        let front = self.waiting.len().min(FRONT);
        let behind = self.waiting.len() - front;
        let others = (0..BEHIND.min(behind)).map(|n| front + (look * BEHIND + n) % behind.max(1));
        (0..front).chain(others).collect()
    }
}

/// Whether a caller wants to hear: another place, or another time than would be expected from what was told.
fn is_news(open: &Open, position: u64, told: Option<&Told>) -> bool {
    let State::Waiting { position: last, eta_seconds } = open.state else { return false };
    if last != Some(position) {
        return true;
    }
    let passed = open.seen_at.elapsed().as_secs_f64();
    match (eta_seconds, told.map(|told| told.told.p50_seconds)) {
        (None, None) => false,
        (Some(last), Some(new)) => {
            // What was told stands in the record as seconds from then; it grows stale as they pass.
            let change = (last - new).abs().max(passed.min(last));
            change > NEWS_SECONDS.max(NEWS_RATIO * last)
        }
        _ => true,
    }
}

/// What a new job is told at once. Its record is not stored yet: who fails to store it calls [`Line::forget`].
pub(crate) fn foresee_new(node: &NodeContext, record: &mut JobRecord) {
    let id = record.job.id;
    node.line.note(record, &node.history, node.engine.default_family());
    let serving = node.line.serving(record.job.channel, node);
    let Some((position, ahead)) = node.line.before(id, &serving, &node.history) else { return };
    let kind = foreseen_kind(&node.history, node.engine.default_family(), record);
    let told = node.history.waiting(&kind, &ahead, serving.len());
    if let Err(refused) = record.foresee_wait(position, told.map(|told| estimate(&told)), 0) {
        tracing::debug!(job = %id, %refused, "place not told");
    }
}

fn estimate(told: &Told) -> WaitingEstimate {
    WaitingEstimate { at: now(), told: Eta::from(told.told), raw: Eta::from(told.raw), count: 1 }
}

/// Tells until the future is dropped.
pub(crate) async fn tell(node: Arc<NodeContext>) {
    let mut ticks = interval(TELL_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut nodes_seen_at: Option<Instant> = None;
    for look in 0.. {
        ticks.tick().await;
        if nodes_seen_at.is_none_or(|at| at.elapsed() >= NODE_TTL / 3) {
            match inventory::serving(&node).await {
                Ok(nodes) => node.line.set_nodes(nodes),
                Err(error) => tracing::debug!(%error, "nodes not counted"),
            }
            nodes_seen_at = Some(Instant::now());
        }
        for channel in node.channels.clone() {
            let serving = node.line.serving(channel, &node);
            if serving.first() == Some(&node.id) {
                tell_channel(&node, channel, &serving, look).await;
            }
        }
    }
}

async fn tell_channel(node: &NodeContext, channel: Channel, serving: &[NodeId], look: usize) {
    let queue = node.line.queue(channel, serving, &node.history);
    for place in queue.turns(look) {
        let Some((id, open)) = queue.waiting.get(place) else { continue };
        let told = queue.told(place, &node.history);
        let has_waited = now().since(open.created_at) >= WAIT_MIN;
        if has_waited && is_news(open, place as u64, told.as_ref()) {
            tell_one(node, *id, place as u64, told).await;
        }
    }
}

async fn tell_one(node: &NodeContext, id: JobId, position: u64, told: Option<Told>) {
    let Ok(Some(mut stored)) = node.records.load(id).await else { return };
    let draw = (entropy::unit() * f64::from(u32::MAX)) as u64;
    let estimate = told.map(|told| estimate(&told));
    let change = |record: &mut JobRecord| record.foresee_wait(position, estimate, draw);
    match node.records.change(&mut stored, WRITE_LIMIT, change).await {
        // It has started, or has ended: it is told otherwise.
        Ok(()) | Err(ChangeError::Refused(_)) => {}
        Err(ChangeError::Record(error)) => tracing::debug!(job = %id, %error, "place not told"),
    }
}

#[cfg(test)]
mod tests;
