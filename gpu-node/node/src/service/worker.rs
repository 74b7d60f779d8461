//! Takes work off the queue: as many jobs as there are places, the most urgent first.
//!
//! ```text
//!   wake-up call ─┐
//!   scan, 1/s ────┼─▶ Lanes ─▶ fetch without waiting, from the most urgent lane down ─▶ job task
//!   free place ───┘
//! ```

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, PullConsumer, pull};
use async_nats::jetstream::{AckKind, Message};
use async_nats::{Subject, Subscriber};
use futures::StreamExt;
use orfeas_protocol::Region;
use orfeas_protocol::options::Priority;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::bus::{BusError, CALL_LIMIT};
use super::job::deliver;
use super::node::{NodeContext, drained, job_of};
use super::retry::Backoff;
use crate::scheduler::{Lane, Lanes};

/// Redelivered jobs make no wake-up call; this is how late they are found at most.
const SCAN_INTERVAL: Duration = Duration::from_secs(1);
/// Messages in work at one time in the whole region and lane; beyond any number of nodes.
const ACK_PENDING_MAX: i64 = 10_000;

/// The worker, ready to run.
pub(crate) struct Worker {
    node: Arc<NodeContext>,
    lanes: Lanes,
    consumers: HashMap<Lane, PullConsumer>,
    calls: Subscriber,
    places: Arc<Semaphore>,
    jobs: JoinSet<()>,
}

impl Worker {
    /// Creates the consumers and listens for wake-up calls.
    pub(crate) async fn new(node: Arc<NodeContext>) -> Result<Self, BusError> {
        let open = |what: &str, source| BusError::Open { what: what.to_owned(), source };
        let lanes = Lanes::new(&node.channels);
        let names = node.bus.region.names();
        let calls = node.bus.client().subscribe(names.all_wake()).await;
        let calls = calls.map_err(|error| open("the wake-up calls", error.into()))?;
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
        let places = Arc::new(Semaphore::new(node.work.concurrency.get()));
        Ok(Self { node, lanes, consumers, calls, places, jobs: JoinSet::new() })
    }

    /// Runs until the node is asked to stop, then waits for the jobs to end, for as long as the drain limit
    /// says, and puts the rest back into the queue.
    pub(crate) async fn run(mut self) {
        self.take_work().await;
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

    /// Returns when the node is asked to stop. A fetch is never cut off: it may have brought a message.
    async fn take_work(&mut self) {
        let mut draining = self.node.draining.clone();
        let mut scan = interval(SCAN_INTERVAL);
        scan.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut place: Option<OwnedSemaphorePermit> = None;
        loop {
            let lane = self.lanes.next();
            let places = self.places.clone();
            tokio::select! {
                biased;
                () = drained(&mut draining) => return,
                Some(ended) = self.jobs.join_next() => note_panic(ended),
                Some(call) = self.calls.next() => self.note_call(&call.subject),
                _ = scan.tick() => self.lanes.call_all(),
                Ok(permit) = places.acquire_owned(), if place.is_none() => place = Some(permit),
                () = std::future::ready(()), if place.is_some() && lane.is_some() => {
                    if let (Some(lane), Some(permit)) = (lane, place.take()) {
                        place = self.ask(lane, permit).await;
                    }
                }
            }
        }
    }

    /// Asks a lane for one job. Gives the place back if there was none.
    async fn ask(&mut self, lane: Lane, place: OwnedSemaphorePermit) -> Option<OwnedSemaphorePermit> {
        match self.fetch(lane).await {
            Ok(Some(message)) => {
                self.lanes.gave(lane);
                self.begin(message, place).await
            }
            Ok(None) => {
                self.lanes.found_empty(lane);
                Some(place)
            }
            Err(error) => {
                tracing::debug!(?lane, %error, "queue not asked");
                self.lanes.found_empty(lane);
                // The scan comes back to it; until then NATS is given time to come back itself.
                tokio::time::sleep(Backoff::CALL.jittered(1)).await;
                Some(place)
            }
        }
    }

    async fn fetch(&self, lane: Lane) -> Result<Option<Message>, async_nats::Error> {
        let Some(consumer) = self.consumers.get(&lane) else { return Ok(None) };
        let fetched = timeout(CALL_LIMIT, async {
            let mut batch = consumer.fetch().max_messages(1).messages().await?;
            batch.next().await.transpose()
        });
        fetched.await?
    }

    async fn begin(&mut self, message: Message, place: OwnedSemaphorePermit) -> Option<OwnedSemaphorePermit> {
        let id = match job_of(&message) {
            Ok(id) => id,
            Err(error) => {
                tracing::error!(subject = %message.subject, %error, "message is not a work item");
                if let Err(error) = message.ack_with(AckKind::Term).await {
                    tracing::debug!(%error, "message not terminated");
                }
                return Some(place);
            }
        };
        let node = self.node.clone();
        self.jobs.spawn(async move {
            let _place = place;
            deliver(node, id, message).await;
        });
        None
    }

    fn note_call(&mut self, subject: &Subject) {
        if let Some(lane) = lane_of(&self.node.bus.region, subject) {
            self.lanes.call(lane);
        }
    }
}

/// The lane that a wake-up call's subject names.
fn lane_of(region: &Region, subject: &Subject) -> Option<Lane> {
    let prefix = region.names().all_wake();
    let rest = subject.strip_prefix(prefix.strip_suffix('>')?)?;
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
    use orfeas_protocol::Channel;

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
