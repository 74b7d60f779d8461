//! Job records in the KV bucket: loaded, and moved by compare-and-set only.
//!
//! ```text
//!   change(record) ─▶ update at the revision that was read ─▶ publish the job object on its events subject
//!        ▲                         │ somebody was faster
//!        └───────── read again ◀───┘
//! ```
//! A change that the new state no longer allows is refused by the state machine, never forced. A write whose
//! acknowledgement was lost shows up as "somebody was faster": callers recognise their own work then.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_nats::jetstream::kv::{self, CreateErrorKind, Entry, Operation, UpdateErrorKind};
use bytes::Bytes;
use orfeas_protocol::{JobId, JobRecord, JobStatus, Region, Timestamp};
use thiserror::Error;
use tokio::time::{Instant, timeout};

use super::bus::{Bus, CALL_LIMIT};
use super::entropy::now;
use super::retry::Backoff;

/// A record cannot be read or written.
#[derive(Debug, Error)]
pub(crate) enum RecordError {
    #[error("there is no record of job {0}")]
    Missing(JobId),
    #[error("a job with id {0} exists already")]
    Exists(JobId),
    #[error("cannot read the record of job {id}")]
    Unreadable {
        id: JobId,
        #[source]
        source: serde_json::Error,
    },
    #[error("cannot {action} the record of job {id}")]
    Unavailable {
        action: &'static str,
        id: JobId,
        #[source]
        source: async_nats::Error,
    },
}

/// Why a record was not changed.
#[derive(Debug)]
pub(crate) enum ChangeError<E> {
    /// The change itself says no to the record as it stands.
    Refused(E),
    Record(RecordError),
}

impl<E> From<RecordError> for ChangeError<E> {
    fn from(error: RecordError) -> Self {
        Self::Record(error)
    }
}

/// A record as it was last seen.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) record: JobRecord,
    /// When it was written, as the server says; the bucket's retention counts from here.
    pub(crate) written_at: Timestamp,
    revision: u64,
}

impl Stored {
    /// Of an entry of the bucket that holds a value.
    pub(crate) fn of(entry: &Entry) -> Result<Self, serde_json::Error> {
        let record = serde_json::from_slice(&entry.value)?;
        let written_ms = entry.created.unix_timestamp_nanos() / 1_000_000;
        let written_at = Timestamp::from_unix_ms(u64::try_from(written_ms).unwrap_or(0));
        Ok(Self { record, written_at, revision: entry.revision })
    }
}

/// Records that are kept at most; a read is all that the others cost.
const SEEN_MAX: usize = 20_000;

/// The records of jobs that wait, as the watch has told of them last: a node that takes such a job need not read its
/// record. Whoever changes one by its revision finds out if it is not the last any more. Clones stand for the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct SeenRecords {
    jobs: Arc<Mutex<HashMap<JobId, Stored>>>,
}

impl SeenRecords {
    /// The watch has told of a record.
    pub(crate) fn note(&self, stored: Stored) {
        let id = stored.record.job.id;
        let mut jobs = self.lock();
        let is_wanted = stored.record.job.status == JobStatus::Queued
            && (jobs.len() < SEEN_MAX || jobs.contains_key(&id));
        if is_wanted {
            jobs.insert(id, stored);
        } else {
            jobs.remove(&id);
        }
    }

    /// Gives a record away.
    pub(crate) fn take(&self, id: JobId) -> Option<Stored> {
        self.lock().remove(&id)
    }

    /// The watch begins again.
    pub(crate) fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<JobId, Stored>> {
        // No code that can panic runs under this lock.
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The region's job records.
#[derive(Debug, Clone)]
pub(crate) struct Records {
    jobs: kv::Store,
    client: async_nats::Client,
    region: Region,
}

impl Records {
    pub(crate) fn new(bus: &Bus) -> Self {
        Self { jobs: bus.jobs.clone(), client: bus.client().clone(), region: bus.region.clone() }
    }

    /// Reads a record; `None` if there is none, or none any more.
    pub(crate) async fn load(&self, id: JobId) -> Result<Option<Stored>, RecordError> {
        let unavailable = |source| RecordError::Unavailable { action: "read", id, source };
        let entry = timeout(CALL_LIMIT, self.jobs.entry(id.to_string()))
            .await
            .map_err(|elapsed| unavailable(elapsed.into()))?
            .map_err(|error| unavailable(error.into()))?;
        match entry {
            Some(entry) if entry.operation == Operation::Put => {
                Stored::of(&entry).map(Some).map_err(|source| RecordError::Unreadable { id, source })
            }
            _ => Ok(None),
        }
    }

    /// Stores a new record.
    pub(crate) async fn create(&self, record: JobRecord) -> Result<Stored, RecordError> {
        let id = record.job.id;
        let created = self.jobs.create(id.to_string(), encode(&record)?).await;
        let revision = created.map_err(|error| match error.kind() {
            CreateErrorKind::AlreadyExists => RecordError::Exists(id),
            _ => RecordError::Unavailable { action: "create", id, source: error.into() },
        })?;
        self.publish(&record).await;
        Ok(Stored { record, written_at: now(), revision })
    }

    /// How long the bucket keeps a record after its last change; zero = for ever.
    pub(crate) fn kept_for(&self) -> Duration {
        self.jobs.stream.cached_info().config.max_age
    }

    /// Takes a record back that nobody has been told of.
    pub(crate) async fn retract(&self, stored: &Stored) -> Result<(), RecordError> {
        let id = stored.record.job.id;
        let purged = self.jobs.purge_expect_revision(id.to_string(), Some(stored.revision)).await;
        purged.map_err(|error| RecordError::Unavailable { action: "retract", id, source: error.into() })
    }

    /// Applies a change, again and again on newer revisions if others write too, for at most `limit`.
    /// Afterwards `stored` is what stands in the bucket, whether the change was made or refused.
    pub(crate) async fn change<E>(
        &self,
        stored: &mut Stored,
        limit: Duration,
        change: impl Fn(&mut JobRecord) -> Result<(), E>,
    ) -> Result<(), ChangeError<E>> {
        let id = stored.record.job.id;
        let give_up_at = Instant::now() + limit;
        let mut failures = 0;
        loop {
            let error = match self.try_change(stored, &change).await {
                Err(ChangeError::Record(error @ RecordError::Unavailable { .. })) => error,
                decided => return decided,
            };
            failures += 1;
            let wait = Backoff::CALL.jittered(failures);
            if Instant::now() + wait > give_up_at {
                return Err(error.into());
            }
            tracing::debug!(job = %id, %error, "record not changed yet");
            tokio::time::sleep(wait).await;
            // The change may have been made although its acknowledgement was lost.
            if let Ok(Some(fresh)) = self.load(id).await {
                *stored = fresh;
            }
        }
    }

    async fn try_change<E>(
        &self,
        stored: &mut Stored,
        change: &impl Fn(&mut JobRecord) -> Result<(), E>,
    ) -> Result<(), ChangeError<E>> {
        let id = stored.record.job.id;
        let unavailable = |source| RecordError::Unavailable { action: "change", id, source };
        loop {
            let mut record = stored.record.clone();
            change(&mut record).map_err(ChangeError::Refused)?;
            let update = self.jobs.update(id.to_string(), encode(&record)?, stored.revision);
            let updated = timeout(CALL_LIMIT, update).await.map_err(|elapsed| unavailable(elapsed.into()))?;
            match updated {
                Ok(revision) => {
                    self.publish(&record).await;
                    *stored = Stored { record, written_at: now(), revision };
                    return Ok(());
                }
                Err(error) if error.kind() == UpdateErrorKind::WrongLastRevision => {
                    *stored = self.load(id).await?.ok_or(RecordError::Missing(id))?;
                }
                Err(error) => return Err(unavailable(error.into()).into()),
            }
        }
    }

    /// Tells whoever listens. Events are a courtesy: the record is the truth.
    async fn publish(&self, record: &JobRecord) {
        let subject = self.region.names().events(record.job.id);
        let Ok(job) = serde_json::to_vec(&record.job) else { return };
        if let Ok(Err(error)) = timeout(CALL_LIMIT, self.client.publish(subject, job.into())).await {
            tracing::debug!(job = %record.job.id, %error, "event not published");
        }
    }
}

fn encode(record: &JobRecord) -> Result<Bytes, RecordError> {
    let id = record.job.id;
    let bytes = serde_json::to_vec(record).map_err(|error| RecordError::Unavailable {
        action: "encode",
        id,
        source: error.into(),
    })?;
    Ok(bytes.into())
}
