//! Housekeeping of the region: jobs that lost their message, jobs whose deadline has passed, what waiting jobs need
//! ([`super::renewal`]), and the queue's depth.
//!
//! An edge that dies between "record stored" and "work published" leaves a job that waits for nobody. Every
//! node looks for such jobs: records queued for a minute or longer, if the queue holds fewer messages than
//! there are open jobs. Then it reads which jobs the queue does hold, and publishes what is missing. The
//! message id is the job's, so that several nodes that sweep at once publish one message.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::stream::{DirectGetErrorKind, Stream};
use futures::TryStreamExt;
use orfeas_protocol::job::WorkItem;
use orfeas_protocol::options::Priority;
use orfeas_protocol::{JobId, JobStatus};
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at};

use super::admission::past_deadline;
use super::entropy::now;
use super::node::NodeContext;
use super::queue::enqueue;
use super::records::ChangeError;
use super::renewal::{Renewals, renew};
use super::watcher::OpenJobs;
use crate::metrics::PriorityLabels;

/// The gauge is read by scrapers that come each 15 s or so.
const DEPTH_INTERVAL: Duration = Duration::from_secs(5);
/// How often lost messages are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);
/// How often the pictures and records of waiting jobs are looked at.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(10);
/// By then the watch has told of the records that were there at the start.
const FIRST_SWEEP_AFTER: Duration = Duration::from_secs(5);
/// How often jobs are looked for whose deadline has passed.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(2);
/// A job that waits on a node is ended by that node, in time; this is for those that no node has taken.
const EXPIRY_GRACE: Duration = Duration::from_secs(1);
/// Jobs that one look ends; each is two round trips.
const EXPIRIES_MAX: usize = 200;
/// One write; the next look comes anyway.
const WRITE_LIMIT: Duration = Duration::from_secs(2);
/// A submission that takes longer has failed.
const LOST_AFTER: Duration = Duration::from_secs(60);

/// Works until the future is dropped.
pub(crate) async fn housekeeping(node: Arc<NodeContext>, open: OpenJobs) {
    let mut depth = interval(DEPTH_INTERVAL);
    let mut sweep = interval_at(Instant::now() + FIRST_SWEEP_AFTER, SWEEP_INTERVAL);
    let mut renewal = interval_at(Instant::now() + FIRST_SWEEP_AFTER, RENEWAL_INTERVAL);
    let mut expiry = interval_at(Instant::now() + EXPIRY_INTERVAL, EXPIRY_INTERVAL);
    let mut renewals = Renewals::default();
    expiry.set_missed_tick_behavior(MissedTickBehavior::Delay);
    renewal.set_missed_tick_behavior(MissedTickBehavior::Delay);
    depth.set_missed_tick_behavior(MissedTickBehavior::Delay);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let done = tokio::select! {
            _ = depth.tick() => measure_depth(&node).await,
            _ = expiry.tick() => end_expired(&node, &open).await,
            _ = sweep.tick() => sweep_lost(&node, &open).await,
            _ = renewal.tick() => renew(&node, &open, &mut renewals).await,
        };
        if let Err(error) = done {
            tracing::debug!(%error, "housekeeping put off");
        }
    }
}

async fn measure_depth(node: &NodeContext) -> Result<(), async_nats::Error> {
    let names = node.bus.region.names();
    let subjects = node.bus.work.info_with_subjects(names.all_work()).await?;
    let mut depths = [0i64; 11];
    let counts: Vec<(String, usize)> = subjects.try_collect().await?;
    for (subject, count) in counts {
        let level = subject.rsplit('.').next().and_then(|level| level.parse::<usize>().ok());
        if let Some(depth) = level.and_then(|level| depths.get_mut(level)) {
            *depth += i64::try_from(count).unwrap_or(i64::MAX);
        }
    }
    for priority in Priority::descending().map(Priority::get) {
        let depth = depths.get(usize::from(priority)).copied().unwrap_or_default();
        node.metrics.queue_depth.get_or_create(&PriorityLabels { priority }).set(depth);
    }
    Ok(())
}

/// Ends the jobs that have waited beyond their deadline. Their messages are acknowledged when a node meets them.
async fn end_expired(node: &NodeContext, open: &OpenJobs) -> Result<(), async_nats::Error> {
    let Some(limit) = node.work.job_deadline else { return Ok(()) };
    let late = open.queued_for(limit.saturating_add(EXPIRY_GRACE), now());
    for id in late.into_iter().take(EXPIRIES_MAX) {
        let Some(mut stored) = node.records.load(id).await? else {
            open.forget(id);
            continue;
        };
        let ended = node.records.change(&mut stored, WRITE_LIMIT, |record| match record.job.status {
            JobStatus::Queued => record.fail(past_deadline(), now()).map_err(|_| ()),
            _ => Err(()),
        });
        match ended.await {
            Ok(()) => {
                tracing::info!(job = %id, "job ended: its deadline passed while it waited");
                node.metrics.job_ended(stored.record.job.job_type, JobStatus::Failed);
            }
            // It was started, or ended, in the meantime.
            Err(ChangeError::Refused(())) => {}
            Err(ChangeError::Record(error)) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Publishes the messages of jobs that have lost theirs.
async fn sweep_lost(node: &NodeContext, open: &OpenJobs) -> Result<(), async_nats::Error> {
    let suspects = open.queued_for(LOST_AFTER, now());
    if suspects.is_empty() {
        return Ok(());
    }
    let info = node.bus.work.get_info().await?;
    if info.state.messages >= open.len() as u64 {
        return Ok(());
    }
    let waiting = jobs_in(&node.bus.work, &node.bus.region.names().all_work()).await?;
    for id in suspects.into_iter().filter(|id| !waiting.contains(id)) {
        match node.records.load(id).await? {
            None => open.forget(id),
            // It may have been started, or given back, since the watch told us of it.
            Some(stored) if stored.record.job.status == JobStatus::Queued => {
                tracing::warn!(job = %id, "queued job has no message; publishing it again");
                enqueue(&node.bus, &stored.record).await?;
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// The jobs that the queue holds messages of; as many as the queue's bound at most.
async fn jobs_in(queue: &Stream, subject: &str) -> Result<HashSet<JobId>, async_nats::Error> {
    let mut jobs = HashSet::new();
    let mut after = 0;
    loop {
        let message = match queue.direct_get_next_for_subject(subject, Some(after + 1)).await {
            Ok(message) => message,
            Err(error) if error.kind() == DirectGetErrorKind::NotFound => return Ok(jobs),
            Err(error) => return Err(error.into()),
        };
        after = message.sequence;
        if let Ok(item) = serde_json::from_slice::<WorkItem>(&message.payload) {
            jobs.insert(item.id);
        }
    }
}
