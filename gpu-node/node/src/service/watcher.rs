//! Follows the region's job records: stop signals for the jobs that are here, the open jobs for the sweeper,
//! and the index of all jobs. One ordered consumer per node, whatever the number of jobs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::jetstream::kv::{Entry, Operation};
use futures::StreamExt;
use orfeas_protocol::{JobId, JobRecord, JobStatus, NodeId, Timestamp};

use super::node::NodeContext;
use super::progress::Stop;
use super::records::Stored;
use super::retry::Backoff;

/// The jobs of the region that have not ended, as far as the watch has told. Clones stand for the same set.
#[derive(Debug, Clone, Default)]
pub(crate) struct OpenJobs {
    jobs: Arc<Mutex<HashMap<JobId, Open>>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Open {
    status: JobStatus,
    created_at: Timestamp,
}

impl OpenJobs {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    /// Those that have been queued for at least `age`.
    pub(crate) fn queued_for(&self, age: Duration, now: Timestamp) -> Vec<JobId> {
        let jobs = self.lock();
        let old = jobs
            .iter()
            .filter(|(_, open)| open.status == JobStatus::Queued && now.since(open.created_at) >= age);
        old.map(|(id, _)| *id).collect()
    }

    /// Those that were submitted at least `age` ago.
    pub(crate) fn older_than(&self, age: Duration, now: Timestamp) -> Vec<JobId> {
        let jobs = self.lock();
        jobs.iter().filter(|(_, open)| now.since(open.created_at) >= age).map(|(id, _)| *id).collect()
    }

    /// A record was written.
    fn note(&self, record: &JobRecord) {
        let job = &record.job;
        if job.status.is_terminal() {
            self.lock().remove(&job.id);
        } else {
            self.lock().insert(job.id, Open { status: job.status, created_at: job.created_at });
        }
    }

    /// A record is gone.
    pub(crate) fn forget(&self, id: JobId) {
        self.lock().remove(&id);
    }

    fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<JobId, Open>> {
        // No code that can panic runs under this lock.
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Watches until the future is dropped. A watch that breaks is begun again, from the present state.
pub(crate) async fn watch(node: Arc<NodeContext>, open: OpenJobs) {
    let mut failures = 0;
    loop {
        match node.bus.jobs.watch_with_history(">").await {
            Ok(mut entries) => {
                open.clear();
                node.index.begin();
                if is_empty(&node).await {
                    node.index.complete();
                }
                node.line.clear();
                node.seen.clear();
                while let Some(entry) = entries.next().await {
                    match entry {
                        Ok(entry) => {
                            failures = 0;
                            note(&node, &open, &entry);
                            if entry.delta == 0 {
                                node.index.complete();
                            }
                        }
                        Err(error) => {
                            tracing::warn!(%error, "job records not followed");
                            break;
                        }
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "job records cannot be followed"),
        }
        failures += 1;
        tokio::time::sleep(Backoff::BACKGROUND.jittered(failures)).await;
    }
}

/// Whether there are no records to be told of. One that comes in between is the first that the watch tells of.
async fn is_empty(node: &NodeContext) -> bool {
    node.bus.jobs.status().await.is_ok_and(|status| status.values() == 0)
}

fn note(node: &NodeContext, open: &OpenJobs, entry: &Entry) {
    let Ok(id) = entry.key.parse::<JobId>() else { return };
    if entry.operation != Operation::Put {
        open.forget(id);
        node.index.forget(id);
        node.line.forget(id);
        node.seen.take(id);
        return;
    }
    let Ok(stored) = Stored::of(entry) else { return };
    let record = &stored.record;
    open.note(record);
    node.index.note(record);
    node.line.note(record, &node.history, node.engine.default_family());
    let stop = reason_to_stop(record, &node.id);
    // Before the look at the active jobs: a job that becomes one in between finds no record here and reads it.
    node.seen.note(stored);
    if let Some(job) = node.active.get(id)
        && let Some(stop) = stop
    {
        job.stop.raise(stop);
    }
}

/// Why a job that is on this node should stop, seeing its record.
fn reason_to_stop(record: &JobRecord, here: &NodeId) -> Option<Stop> {
    let job = &record.job;
    let elsewhere = job.node.as_ref().is_some_and(|node| node != here);
    match job.status {
        status if status.is_terminal() => Some(Stop::Lost),
        // A record that another node died on is ours to take over; only one that changes hands is lost, and
        // the owner check finds that out at the next write.
        JobStatus::Processing if !elsewhere && record.is_cancel_requested() => Some(Stop::Cancelled),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::new_job;

    fn time(seconds: u64) -> Timestamp {
        Timestamp::from_unix_ms(seconds * 1_000)
    }

    fn node(name: &str) -> NodeId {
        name.parse().unwrap()
    }

    fn record() -> JobRecord {
        JobRecord::new(new_job(time(100)), time(100))
    }

    #[test]
    fn only_old_queued_jobs_are_suspects() {
        let open = OpenJobs::default();
        let mut job = record();
        open.note(&job);
        assert!(open.queued_for(Duration::from_secs(60), time(130)).is_empty(), "too young");
        assert_eq!(open.queued_for(Duration::from_secs(60), time(160)), [job.job.id]);
        job.start(node("a"), time(170)).unwrap();
        open.note(&job);
        assert!(open.queued_for(Duration::from_secs(60), time(999)).is_empty(), "it runs");
        assert_eq!(open.len(), 1);
        job.request_cancel(time(171)).unwrap();
        job.cancelled(time(172)).unwrap();
        open.note(&job);
        assert_eq!(open.len(), 0);
    }

    #[test]
    fn a_cancel_request_stops_the_job_here_and_an_end_stops_it_anywhere() {
        let mut job = record();
        assert_eq!(reason_to_stop(&job, &node("a")), None);
        job.start(node("a"), time(101)).unwrap();
        assert_eq!(reason_to_stop(&job, &node("a")), None);
        job.request_cancel(time(102)).unwrap();
        assert_eq!(reason_to_stop(&job, &node("a")), Some(Stop::Cancelled));
        assert_eq!(reason_to_stop(&job, &node("b")), None);
        job.cancelled(time(103)).unwrap();
        assert_eq!(reason_to_stop(&job, &node("b")), Some(Stop::Lost));
    }
}
