//! Takes work off the queue, ahead of what runs, so that the scheduler has something to choose from.
//!
//! ```text
//!   wake-up call ─┐
//!   scan, 1/s ────┼─▶ Lanes ─▶ fetch without waiting, from the most urgent lane down ─▶ job task ─▶ Scheduler
//!   free place ───┘      (up to `look_ahead` of each lane)                                   │
//!   another node is hungry ─▶ the back half of what waits goes back into the queue ◀─────────┘
//! ```
//! What is held and waits is kept from other nodes. So a node that has nothing to do says so, and whoever hears it
//! hands back the half of its waiting jobs that it would start last, and takes none for a while.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, PullConsumer, pull};
use async_nats::jetstream::{AckKind, Message};
use async_nats::{Subject, Subscriber};
use futures::StreamExt;
use orfeas_protocol::options::Priority;
use orfeas_protocol::{Channel, JobId, NodeId, Region};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::bus::{BusError, CALL_LIMIT};
use super::held::Held;
use super::job::deliver;
use super::node::{NodeContext, drained, job_of};
use super::retry::Backoff;
use crate::scheduler::queue::Gate;
use crate::scheduler::{Lane, Lanes};

/// Redelivered jobs make no wake-up call; this is how late they are found at most.
const SCAN_INTERVAL: Duration = Duration::from_secs(1);
/// Messages in work at one time in the whole region and lane; beyond any number of nodes.
const ACK_PENDING_MAX: i64 = 10_000;
/// After it has handed jobs back a node leaves them to others for this long, unless it has none itself: two scans.
const REFILL_AFTER: Duration = Duration::from_secs(2);
/// A job that was delivered more often stays where it is. Deliveries without a start count towards the end of a job
/// that no node can start; those that we make ourselves must not use that up.
const HANDED_DELIVERIES_MAX: i64 = 20;

/// What a node says that has nothing to do.
#[derive(Debug, Serialize, Deserialize)]
struct Hungry {
    node: NodeId,
    channels: Vec<Channel>,
}

/// The worker, ready to run.
pub(crate) struct Worker {
    node: Arc<NodeContext>,
    lanes: Lanes,
    consumers: HashMap<Lane, PullConsumer>,
    calls: Subscriber,
    hungry: Subscriber,
    held: Held,
    refill_at: Instant,
    jobs: JoinSet<()>,
}

impl Worker {
    /// Creates the consumers and listens for calls.
    pub(crate) async fn new(node: Arc<NodeContext>) -> Result<Self, BusError> {
        let open = |what: &str, source| BusError::Open { what: what.to_owned(), source };
        let lanes = Lanes::new(&node.channels);
        let names = node.bus.region.names();
        let calls = node.bus.client().subscribe(names.all_wake()).await;
        let calls = calls.map_err(|error| open("the wake-up calls", error.into()))?;
        let hungry = node.bus.client().subscribe(names.hungry()).await;
        let hungry = hungry.map_err(|error| open("the calls of idle nodes", error.into()))?;
        let mut consumers = HashMap::new();
        for lane in lanes.iter() {
            let name = lane.consumer_name();
            let config = pull::Config {
                durable_name: Some(name.clone()),
                filter_subject: names.work(lane.channel, lane.priority),
                ack_policy: AckPolicy::Explicit,
                ack_wait: node.work.ack_wait,
                // Our own count ends retries: after the server's last delivery nobody would hear of the job.
                max_deliver: -1,
                max_ack_pending: ACK_PENDING_MAX,
                ..pull::Config::default()
            };
            let consumer = node.bus.work.create_consumer(config).await;
            consumers
                .insert(lane, consumer.map_err(|error| open(&format!("consumer {name}"), error.into()))?);
        }
        let held = Held::new(node.work.look_ahead.get());
        let refill_at = Instant::now();
        Ok(Self { node, lanes, consumers, calls, hungry, held, refill_at, jobs: JoinSet::new() })
    }

    /// Runs until the node is asked to stop. What waits goes back into the queue at once; what runs may end within
    /// the drain limit, and the rest goes back then.
    pub(crate) async fn run(mut self) {
        self.take_work().await;
        self.node.scheduler.set_gate(Gate::Draining);
        let drained = timeout(self.node.work.drain_limit, self.join_all()).await;
        if drained.is_err() {
            tracing::warn!(jobs = self.node.active.len(), "drain limit reached; jobs go back into the queue");
            self.node.active.stop_all(super::progress::Stop::Draining);
            // Between two steps of the pipeline and two answers of NATS.
            if timeout(CALL_LIMIT * 2, self.join_all()).await.is_err() {
                tracing::warn!("jobs did not stop in time; their ack wait will free them");
            }
        }
    }

    async fn join_all(&mut self) {
        while self.jobs.join_next().await.is_some() {}
    }

    /// Returns when the node is asked to stop. A fetch is never cut off: it may have brought messages.
    async fn take_work(&mut self) {
        let mut draining = self.node.draining.clone();
        let mut gate_changed = self.node.gate_changed.subscribe();
        let mut scan = interval(SCAN_INTERVAL);
        scan.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let lane = self.wanted();
            let held = self.held.clone();
            tokio::select! {
                biased;
                () = drained(&mut draining) => return,
                Some(ended) = self.jobs.join_next() => note_panic(ended),
                Some(call) = self.calls.next() => self.note_call(&call.subject),
                Some(call) = self.hungry.next() => self.share(&call.payload),
                _ = scan.tick() => self.scan().await,
                // It opens again with a look at every lane.
                Ok(()) = gate_changed.changed() => self.lanes.call_all(),
                () = std::future::ready(()), if lane.is_some() => {
                    if let Some(lane) = lane {
                        self.ask(lane).await;
                    }
                }
                () = held.freed() => {}
            }
        }
    }

    /// The lane to ask now.
    fn wanted(&self) -> Option<Lane> {
        if self.node.scheduler.gate() != Gate::Open {
            return None;
        }
        let leaves_to_others = Instant::now() < self.refill_at && self.node.scheduler.waiting() > 0;
        if leaves_to_others {
            return None;
        }
        let yielded = &self.node.yielded;
        self.lanes.next_of(|lane| self.held.is_low(lane) && !yielded.is_to_others(lane))
    }

    /// Every lane is worth a question again; and if the last time gave nothing, others may have what we could do.
    async fn scan(&mut self) {
        let is_open = self.node.scheduler.gate() == Gate::Open;
        if is_open && self.lanes.next().is_none() && self.held.is_empty() {
            let hungry = Hungry { node: self.node.id.clone(), channels: self.node.channels.clone() };
            let subject = self.node.bus.region.names().hungry();
            if let Ok(payload) = serde_json::to_vec(&hungry)
                && let Err(error) = self.node.bus.client().publish(subject, payload.into()).await
            {
                tracing::debug!(%error, "idle node not heard");
            }
        }
        self.lanes.call_all();
    }

    /// Another node has nothing to do: it may have the back half of what waits here.
    fn share(&mut self, payload: &[u8]) {
        let Ok(hungry) = serde_json::from_slice::<Hungry>(payload) else { return };
        if hungry.node == self.node.id || Instant::now() < self.refill_at {
            return;
        }
        let node = &self.node;
        let may_go = |id: JobId| {
            let Some(job) = node.active.get(id) else { return false };
            let message = job.message();
            let lane = lane_in(&message.subject, &node.bus.region.names().all_work());
            lane.is_some_and(|lane| hungry.channels.contains(&lane.channel))
                && message.info().is_ok_and(|info| info.delivered <= HANDED_DELIVERIES_MAX)
        };
        let gone = node.scheduler.hand_back(node.scheduler.waiting() / 2, may_go);
        if gone > 0 {
            tracing::info!(jobs = gone, to = %hungry.node, "waiting jobs handed back for an idle node");
            self.refill_at = Instant::now() + REFILL_AFTER;
        }
    }

    /// Asks a lane for as many jobs as there is room for.
    async fn ask(&mut self, lane: Lane) {
        let room = self.held.room(lane);
        match self.fetch(lane, room).await {
            Ok(messages) => {
                let count = messages.len();
                for message in messages {
                    self.begin(lane, message).await;
                }
                if count > 0 {
                    self.lanes.gave(lane);
                }
                if count < room {
                    self.lanes.found_empty(lane);
                }
            }
            Err(error) => {
                tracing::debug!(?lane, %error, "queue not asked");
                self.lanes.found_empty(lane);
                // The scan comes back to it; until then NATS is given time to come back itself.
                tokio::time::sleep(Backoff::CALL.jittered(1)).await;
            }
        }
    }

    /// What the lane has now. Messages that came before a failure are not lost with it.
    async fn fetch(&self, lane: Lane, count: usize) -> Result<Vec<Message>, async_nats::Error> {
        let Some(consumer) = self.consumers.get(&lane) else { return Ok(Vec::new()) };
        let mut messages = Vec::new();
        let fetched = timeout(CALL_LIMIT, async {
            let mut batch = consumer.fetch().max_messages(count).messages().await?;
            while let Some(message) = batch.next().await {
                messages.push(message?);
            }
            Ok::<_, async_nats::Error>(())
        });
        match fetched.await {
            Ok(Ok(())) => Ok(messages),
            Ok(Err(_)) | Err(_) if !messages.is_empty() => Ok(messages),
            Ok(Err(error)) => Err(error),
            Err(elapsed) => Err(elapsed.into()),
        }
    }

    async fn begin(&mut self, lane: Lane, message: Message) {
        let id = match job_of(&message) {
            Ok(id) => id,
            Err(error) => {
                tracing::error!(subject = %message.subject, %error, "message is not a work item");
                if let Err(error) = message.ack_with(AckKind::Term).await {
                    tracing::debug!(%error, "message not terminated");
                }
                return;
            }
        };
        let node = self.node.clone();
        let place = self.held.take(lane);
        self.jobs.spawn(async move {
            let _place = place;
            deliver(node, id, message).await;
        });
    }

    fn note_call(&mut self, subject: &Subject) {
        if let Some(lane) = lane_of(&self.node.bus.region, subject) {
            self.lanes.call(lane);
        }
    }
}

/// The lane that a wake-up call's subject names.
fn lane_of(region: &Region, subject: &Subject) -> Option<Lane> {
    lane_in(subject, &region.names().all_wake())
}

/// The lane in a subject below a pattern that ends in `>`.
pub(super) fn lane_in(subject: &Subject, pattern: &str) -> Option<Lane> {
    let rest = subject.strip_prefix(pattern.strip_suffix('>')?)?;
    let (channel, priority) = rest.split_once('.')?;
    let level: u8 = priority.parse().ok()?;
    Some(Lane { channel: channel.parse().ok()?, priority: Priority::try_from(level).ok()? })
}

/// A job task that panicked has left its place and its message; the message is delivered again.
fn note_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "job task panicked");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wake_up_call_names_its_lane() {
        let region: Region = "eu-1".parse().unwrap();
        let priority = Priority::try_from(7).unwrap();
        let subject = Subject::from(region.names().wake(Channel::Canary, priority));
        assert_eq!(lane_of(&region, &subject), Some(Lane { channel: Channel::Canary, priority }));
        for other in ["orfeas.eu-2.wake.stable.7", "orfeas.eu-1.wake.stable.11", "orfeas.eu-1.wake.stable"] {
            assert_eq!(lane_of(&region, &Subject::from(other)), None, "{other}");
        }
    }
}
