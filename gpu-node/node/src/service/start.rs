//! The write that starts a job: before its run, or behind its back.
//!
//! ```text
//!   delivered or started before ─▶ start written ─▶ run ─▶ result stored ─▶ end written
//!   first delivery ─▶ run ─┬─ over within START_AFTER ─▶ result stored ─▶ start and end, in one write
//!                          └─ else start written meanwhile ─▶ …
//! ```
//! A start is a write that the server flushes to its disk, and the device would stand idle for it. What fences a run
//! whose start is not written yet is the record's revision: the record must still say that nobody has started the job
//! (its [`Owner`] is nobody), and the compare-and-set lets one writer only turn it. A message that comes for the second
//! time may tell of a node that died in a run whose start it had not written, so its start is written first: one start
//! of a job at most goes uncounted.

use std::sync::Arc;
use std::time::Duration;

use orfeas_protocol::{JobId, JobRecord, JobStatus, NodeId, Timestamp};
use tokio::task::JoinHandle;

use super::entropy::now;
use super::job::{Attempt, CHANGE_LIMIT, Refusal};
use super::node::NodeContext;
use super::records::{ChangeError, RecordError, Stored};

/// A run that is over sooner writes its start with its end: nobody could see it in between. Longer runs show as
/// running this much late.
pub(super) const START_AFTER: Duration = Duration::from_millis(20);

/// How far the write of a job's start is.
#[derive(Debug)]
pub(super) enum Start {
    /// The record does not say yet that the job runs, or will in a moment.
    Unwritten {
        /// Since when it does.
        at: Timestamp,
    },
    /// On its way, on a task of its own: who waits for it may be cut off, the write may not.
    Writing { at: Timestamp, write: JoinHandle<(Stored, Result<(), ChangeError<Refusal>>)> },
    /// The record says so.
    Written,
}

/// Who may move a job: the start that its record names. Taken when this delivery read the record, and again
/// when it started the job; never from a record that was read later, because that may be another's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owner {
    node: Option<NodeId>,
    attempt: u32,
}

impl Owner {
    pub(super) fn of(record: &JobRecord) -> Self {
        Self { node: record.job.node.clone(), attempt: record.job.attempt }
    }

    /// Whether nobody has started the job before this start.
    pub(super) fn is_first_start(&self) -> bool {
        self.attempt <= 1
    }

    /// Whether the record tells of the very next start, by `node`.
    fn is_followed_by(&self, record: &JobRecord, node: &NodeId) -> bool {
        let job = &record.job;
        job.status == JobStatus::Processing
            && job.node.as_ref() == Some(node)
            && job.attempt == self.attempt.saturating_add(1)
    }

    /// Whether the record is still this owner's.
    pub(super) fn check(&self, record: &JobRecord) -> Result<(), Refusal> {
        if record.job.status.is_terminal() {
            Err(Refusal::Ended(record.job.status))
        } else if *self == Self::of(record) {
            Ok(())
        } else {
            Err(Refusal::TakenOver)
        }
    }
}

/// Whether a job may run before its start is written: nobody can have begun it.
pub(super) fn may_be_late(record: &JobRecord, deliveries: i64) -> bool {
    deliveries <= 1 && record.job.status == JobStatus::Queued && record.job.attempt == 0
}

impl Attempt {
    /// Since when the job runs, if its record does not say yet that it does.
    pub(super) fn unwritten_start(&self) -> Option<Timestamp> {
        match self.start {
            Start::Unwritten { at } => Some(at),
            Start::Writing { .. } | Start::Written => None,
        }
    }

    /// Whether the record says that the job runs here.
    pub(super) fn is_started(&self) -> bool {
        matches!(self.start, Start::Written)
    }

    /// The record says now that the job runs here.
    pub(super) fn note_started(&mut self) {
        self.owner = Owner::of(&self.stored.record);
        self.start = Start::Written;
        let job = &self.stored.record.job;
        if job.attempt == 1 {
            let waited = job.started_at.unwrap_or(job.created_at).since(job.created_at);
            self.node.metrics.queue_wait_seconds.observe(waited.as_secs_f64());
        }
    }

    /// Waits for a start that is on its way; one that has not been sent stays where it is.
    pub(super) async fn settle_start(&mut self) -> Result<(), ChangeError<Refusal>> {
        match self.start {
            Start::Writing { .. } => self.ensure_started().await,
            Start::Unwritten { .. } | Start::Written => Ok(()),
        }
    }

    /// Sees to it that the record says that the job runs here. The future may be dropped: the write goes on, and the
    /// next call waits for it.
    pub(super) async fn ensure_started(&mut self) -> Result<(), ChangeError<Refusal>> {
        if let Start::Unwritten { at } = self.start {
            let claim = Claim { owner: Some(self.owner.clone()), at };
            let write = tokio::spawn(claim.write(self.node.clone(), self.stored.clone()));
            self.start = Start::Writing { at, write };
        }
        let Start::Writing { at, write } = &mut self.start else { return Ok(()) };
        let (at, written) = (*at, write.await);
        self.start = Start::Unwritten { at };
        let (stored, changed) = written.map_err(|error| cut_off(self.id, error))?;
        self.stored = stored;
        changed?;
        self.note_started();
        Ok(())
    }
}

/// A start as it is to stand in the record.
#[derive(Debug)]
pub(super) struct Claim {
    /// Who must own the record; `None` = whoever does, its node is dead or has given the job back.
    pub(super) owner: Option<Owner>,
    /// Since when the job runs.
    pub(super) at: Timestamp,
}

impl Claim {
    /// Takes the record over. Gives the record as it stands afterwards.
    pub(super) async fn write(
        self,
        node: Arc<NodeContext>,
        mut stored: Stored,
    ) -> (Stored, Result<(), ChangeError<Refusal>>) {
        let changed = node.records.change(&mut stored, CHANGE_LIMIT, |record| self.apply(record, &node.id));
        let changed = changed.await;
        (stored, changed)
    }

    /// Changes a record.
    pub(super) fn apply(&self, record: &mut JobRecord, node: &NodeId) -> Result<(), Refusal> {
        if let Some(owner) = &self.owner {
            // The write before this one may have arrived although its acknowledgement did not.
            if owner.is_followed_by(record, node) && record.job.started_at == Some(self.at) {
                return Ok(());
            }
            owner.check(record)?;
        }
        if record.is_cancel_requested() && !record.job.status.is_terminal() {
            return Err(Refusal::CancelRequested);
        }
        record.start(node.clone(), self.at).map_err(|refused| Refusal::Ended(refused.status))?;
        // A start begins from the picture, on a version of its own.
        record.job.model.version = None;
        Ok(())
    }

    /// Of a job that starts now, whoever had it before.
    pub(super) fn over_anybody() -> Self {
        Self { owner: None, at: now() }
    }
}

fn cut_off(id: JobId, error: tokio::task::JoinError) -> ChangeError<Refusal> {
    RecordError::Unavailable { action: "start", id, source: error.into() }.into()
}

#[cfg(test)]
mod tests {
    use orfeas_protocol::Sha256Digest;
    use orfeas_protocol::view::{Bounds, JobResult};

    use super::*;
    use crate::fixtures::new_job;

    fn time(ms: u64) -> Timestamp {
        Timestamp::from_unix_ms(ms)
    }

    fn node(name: &str) -> NodeId {
        name.parse().unwrap()
    }

    fn queued() -> JobRecord {
        JobRecord::new(new_job(time(100)), time(100))
    }

    fn claim(record: &JobRecord) -> Claim {
        Claim { owner: Some(Owner::of(record)), at: time(200) }
    }

    #[test]
    fn only_a_job_that_nobody_can_have_begun_may_run_before_its_start_is_written() {
        let mut record = queued();
        assert!(may_be_late(&record, 1));
        assert!(!may_be_late(&record, 2), "its first node may have died in it");
        record.start(node("a"), time(150)).unwrap();
        assert!(!may_be_late(&record, 1), "it runs somewhere");
        record.requeue().unwrap();
        assert!(!may_be_late(&record, 1), "it has been started before");
    }

    #[test]
    fn of_two_runs_whose_starts_are_not_written_the_first_claim_shuts_the_other_out() {
        let read = queued();
        let (first, second) = (claim(&read), claim(&read));
        let mut record = read.clone();
        first.apply(&mut record, &node("a")).unwrap();
        assert_eq!((record.job.attempt, record.job.started_at), (1, Some(time(200))));
        assert_eq!(second.apply(&mut record.clone(), &node("b")), Err(Refusal::TakenOver));
        let lost_acknowledgement = first.apply(&mut record, &node("a"));
        assert_eq!((lost_acknowledgement, record.job.attempt), (Ok(()), 1), "its own write is known again");
        // Nor may the second end the job: what it read is nobody's any more.
        assert_eq!(Owner::of(&read).check(&record), Err(Refusal::TakenOver));
    }

    #[test]
    fn a_job_that_was_cancelled_or_completed_meanwhile_is_not_claimed() {
        let read = queued();
        let mut cancelled = read.clone();
        cancelled.request_cancel(time(150)).unwrap();
        let refused = claim(&read).apply(&mut cancelled, &node("a"));
        assert_eq!(refused, Err(Refusal::Ended(JobStatus::Cancelled)));
        let mut completed = read.clone();
        completed.start(node("b"), time(150)).unwrap();
        let result = JobResult {
            url: String::new(),
            media_type: String::new(),
            bytes: 1,
            sha256: Sha256Digest::of("x"),
            vertices: 3,
            faces: 1,
            watertight: false,
            bounds: Bounds { min: [0.0; 3], max: [0.0; 3] },
        };
        completed.complete(result, time(160)).unwrap();
        let refused = claim(&read).apply(&mut completed, &node("a"));
        assert_eq!(refused, Err(Refusal::Ended(JobStatus::Completed)));
    }

    #[test]
    fn a_place_that_was_told_meanwhile_changes_nothing_about_the_owner() {
        let read = queued();
        let mut told = read.clone();
        told.foresee_wait(3, None, 0).unwrap();
        claim(&read).apply(&mut told, &node("a")).unwrap();
        assert_eq!(told.job.status, JobStatus::Processing);
    }
}
