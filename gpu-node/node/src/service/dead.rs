//! Jobs that were given up: the letters that keep them, and what an operator can do with one.
//!
//! ```text
//!   list, show ◀── letter in ORFEAS_DEAD_<REGION> ──▶ drop
//!                        │ retry
//!                        ▼
//!   old job failed? ─▶ picture checked, stored afresh ─▶ new record (retry_of: old) ─▶ work ─▶ letter removed
//! ```
//! A failed job stays failed: a retry is a new job that names the old one. Its id follows from the letter, so that a
//! retry that is cut off and begun again, or begun twice at once, makes one job.

use async_nats::jetstream::stream::{DirectGetErrorKind, Stream};
use orfeas_protocol::problem::Problem;
use orfeas_protocol::view::JobError;
use orfeas_protocol::{JobId, JobRecord, JobStatus, Region, Sha256Digest, Timestamp};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::bus::{Bus, BusError, Connection};
use super::entropy::now;
use super::picture::{PictureError, Pictures};
use super::queue::{EnqueueError, enqueue};
use super::records::{RecordError, Records};
use super::submission::store;

/// What the dead-letter stream keeps of a job that was given up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// When.
    pub given_up_at: Timestamp,
    /// Why.
    pub reason: JobError,
    /// How often it was started.
    pub attempts: u32,
    /// Its record, as it failed.
    pub job: JobRecord,
}

impl DeadLetter {
    /// The letter of a job that is about to fail.
    pub(crate) fn of(record: &JobRecord, reason: &JobError, given_up_at: Timestamp) -> Self {
        let mut job = record.clone();
        // Refused only for a job that has ended, whose letter says what it says.
        let _ = job.fail(reason.clone(), given_up_at);
        Self { given_up_at, reason: reason.clone(), attempts: record.job.attempt, job }
    }

    /// The id of the job that tries this one again: the same for each try of the same letter.
    fn retry_id(&self) -> JobId {
        let seed = format!("retry of {} given up at {}", self.job.job.id, self.given_up_at);
        let digest = Sha256Digest::of(seed);
        let mut random = [0; 10];
        for (byte, drawn) in random.iter_mut().zip(digest.as_bytes()) {
            *byte = *drawn;
        }
        JobId::new(self.given_up_at, random)
    }
}

/// A letter is not there, or cannot be carried out.
#[derive(Debug, Error)]
pub enum DeadError {
    /// There is no letter of that job.
    #[error("no letter of job {0}: it was not given up, or its letter was retried, dropped or has expired")]
    NotFound(JobId),
    /// The letter is not JSON of the right form.
    #[error("cannot read the letter of job {id}")]
    Unreadable {
        /// The job.
        id: JobId,
        /// Why.
        source: serde_json::Error,
    },
    /// The job went on after its letter was written.
    #[error("job {id} is {}, not failed: drop its letter", .status.as_str())]
    NotFailed {
        /// The job.
        id: JobId,
        /// Where it stands.
        status: JobStatus,
    },
    /// The picture is gone, or is refused by now.
    #[error("the picture of job {id} cannot be used: {reason}")]
    Picture {
        /// The job.
        id: JobId,
        /// Why.
        reason: String,
    },
    /// The queue has no room.
    #[error("the queue is full")]
    QueueFull,
    /// NATS does not answer.
    #[error("cannot {action}")]
    Unavailable {
        /// What was done.
        action: &'static str,
        /// Why.
        source: async_nats::Error,
    },
}

fn unavailable<E: Into<async_nats::Error>>(action: &'static str) -> impl Fn(E) -> DeadError {
    move |error| DeadError::Unavailable { action, source: error.into() }
}

/// The region's dead letters.
#[derive(Debug)]
pub struct DeadLetters {
    bus: Bus,
    records: Records,
    pictures: Pictures,
    letters: Stream,
}

impl DeadLetters {
    /// Opens what a node of the region has made.
    ///
    /// # Errors
    /// A stream or bucket is missing, or NATS does not answer.
    pub async fn open(connection: Connection, region: Region) -> Result<Self, BusError> {
        let letters = connection.stream(&region.names().dead_stream()).await?;
        let bus = Bus::open(connection, region).await?;
        let pictures = Pictures::new(bus.blocklist.clone(), bus.uploads.clone());
        Ok(Self { records: Records::new(&bus), pictures, letters, bus })
    }

    /// The newest letters, at most `limit`, the oldest first.
    ///
    /// # Errors
    /// NATS does not answer.
    pub async fn list(&self, limit: usize) -> Result<Vec<DeadLetter>, DeadError> {
        let subject = self.bus.region.names().all_dead();
        let mut letters = std::collections::VecDeque::new();
        let mut after = 0;
        loop {
            match self.letters.direct_get_next_for_subject(subject.as_str(), Some(after + 1)).await {
                Ok(message) => {
                    after = message.sequence;
                    // A letter of a later version of this program is none of ours to show.
                    if let Ok(letter) = serde_json::from_slice::<DeadLetter>(&message.payload) {
                        if letters.len() >= limit {
                            letters.pop_front();
                        }
                        letters.push_back(letter);
                    }
                }
                Err(error) if error.kind() == DirectGetErrorKind::NotFound => return Ok(letters.into()),
                Err(error) => return Err(unavailable("read the dead letters")(error)),
            }
        }
    }

    /// The letter of a job.
    ///
    /// # Errors
    /// There is none, it is unreadable, or NATS does not answer.
    pub async fn get(&self, id: JobId) -> Result<DeadLetter, DeadError> {
        let subject = self.bus.region.names().dead(id);
        match self.letters.direct_get_last_for_subject(subject).await {
            Ok(message) => serde_json::from_slice(&message.payload)
                .map_err(|source| DeadError::Unreadable { id, source }),
            Err(error) if error.kind() == DirectGetErrorKind::NotFound => Err(DeadError::NotFound(id)),
            Err(error) => Err(unavailable("read the dead letter")(error)),
        }
    }

    /// Removes the letter of a job. The job stays failed.
    ///
    /// # Errors
    /// There is none, or NATS does not answer.
    pub async fn remove(&self, id: JobId) -> Result<(), DeadError> {
        let subject = self.bus.region.names().dead(id);
        let purged = self.letters.purge().filter(subject).await;
        let purged = purged.map_err(unavailable("remove the dead letter"))?;
        if purged.purged == 0 { Err(DeadError::NotFound(id)) } else { Ok(()) }
    }

    /// Queues the job once more, as a new job with all its starts before it; gives the new job's id.
    ///
    /// # Errors
    /// There is no letter, the job has not failed after all, one of its pictures is gone or refused, or NATS does not answer.
    pub async fn retry(&self, id: JobId) -> Result<JobId, DeadError> {
        let letter = self.get(id).await?;
        let failed = self.failed_record(&letter).await?;
        let views = failed.options.views().map(|(_, digest)| digest);
        for digest in std::iter::once(failed.job.input.sha256).chain(views) {
            self.renew_picture(id, digest).await?;
        }
        let retry = letter.retry_id();
        let record = failed
            .retried(retry, now())
            .map_err(|refused| DeadError::NotFailed { id, status: refused.status })?;
        // Of an earlier try that was cut off: its message may be there or not, its record decides what becomes of it.
        let record = match self.records.create(record).await {
            Ok(stored) => stored.record,
            Err(RecordError::Exists(_)) => {
                let there = self.records.load(retry).await.map_err(unavailable("read the new record"))?;
                let Some(there) = there else { return Err(DeadError::NotFound(id)) };
                there.record
            }
            Err(error) => return Err(unavailable("create the new record")(error)),
        };
        if record.job.status == JobStatus::Queued {
            enqueue(&self.bus, &record).await.map_err(|error| match error {
                // The record stays: the same retry takes it up again, and so do the nodes' sweepers.
                EnqueueError::Full => DeadError::QueueFull,
                EnqueueError::Unavailable(source) => {
                    DeadError::Unavailable { action: "queue the job", source }
                }
            })?;
        }
        match self.remove(id).await {
            Ok(()) | Err(DeadError::NotFound(_)) => Ok(retry),
            Err(error) => Err(error),
        }
    }

    /// The job's record as it stands, or else as the letter has it.
    async fn failed_record(&self, letter: &DeadLetter) -> Result<JobRecord, DeadError> {
        let id = letter.job.job.id;
        match self.records.load(id).await.map_err(unavailable("read the job's record"))? {
            Some(stored) if stored.record.job.status == JobStatus::Failed => Ok(stored.record),
            Some(stored) => Err(DeadError::NotFailed { id, status: stored.record.job.status }),
            None => Ok(letter.job.clone()),
        }
    }

    /// The same checks as at any other way in; then the picture is there for long enough to be queued with.
    async fn renew_picture(&self, id: JobId, digest: Sha256Digest) -> Result<(), DeadError> {
        let picture = self.pictures.fetch(digest).await.map_err(|error| match error {
            PictureError::Unavailable(source) => {
                DeadError::Unavailable { action: "fetch the picture", source }
            }
            refused => DeadError::Picture { id, reason: refused.to_string() },
        })?;
        let stored = store(&self.bus.uploads, &picture).await;
        stored.map_err(|problem: Problem| DeadError::Picture { id, reason: problem.detail })
    }
}

#[cfg(test)]
mod tests {
    use orfeas_protocol::problem::Code;

    use super::*;
    use crate::fixtures::new_job;

    fn letter(given_up_ms: u64) -> DeadLetter {
        let created_at = Timestamp::from_unix_ms(1_000);
        let reason = JobError::new(Code::Internal, "no");
        let record = JobRecord::new(new_job(created_at), created_at);
        DeadLetter::of(&record, &reason, Timestamp::from_unix_ms(given_up_ms))
    }

    #[test]
    fn a_letter_keeps_the_job_as_it_failed_and_survives_its_json() {
        let letter = letter(5_000);
        assert_eq!(letter.job.job.status, JobStatus::Failed);
        let json = serde_json::to_vec(&letter).unwrap();
        assert_eq!(serde_json::from_slice::<DeadLetter>(&json).unwrap(), letter);
    }

    #[test]
    fn a_letter_is_retried_under_one_id_and_another_letter_under_another() {
        assert_eq!(letter(5_000).retry_id(), letter(5_000).retry_id());
        assert_ne!(letter(5_000).retry_id(), letter(5_001).retry_id());
        assert_ne!(letter(5_000).retry_id(), letter(5_000).job.job.id);
    }
}
