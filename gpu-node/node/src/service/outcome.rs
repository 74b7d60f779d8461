//! A finished model: into the object store under the job's name, then into the record.
//!
//! Two starts of one job may come this far at the same time, when the first was cut off from NATS for longer
//! than the ack wait. The order of the four steps makes the file and the record agree whatever happens:
//!
//! 1. read the version of the name in the store,
//! 2. read the record: is this start still its owner?
//! 3. store the file if the name still has that version,
//! 4. complete the record if this start is still its owner.
//!
//! Suppose an older start stored after the owner did. Then it read the version (1) after the owner had
//! stored, so it checked the record (2) after the owner had started, and step 2 refused it.
//!
//! A job's first start needs no round trip for 1 and 2: before it there was nothing under the job's name, and
//! when its compare-and-set of the record succeeded, it was the owner. Should the name have another version by
//! now, step 3 refuses, and all four steps are taken.
//!
//! Nor does a run whose start is not written yet ([`super::start`]); step 4 writes it. Two such runs of one job may
//! come to step 3, and it lets one through. The other one is refused there, and writes its start before it takes the
//! four steps: either that is refused, because the first has completed the job, or the first is refused in step 4.

use std::time::Duration;

use bytes::Bytes;
use orfeas_protocol::view::{Bounds, JobResult, ModelChoice};
use orfeas_protocol::{JobStatus, Sha256Digest};
use tokio::time::Instant;

use super::ending::{remove_result, unended};
use super::entropy::now;
use super::job::{Attempt, CHANGE_LIMIT, Refusal, Settlement};
use super::objects::{ObjectError, Version};
use super::records::{ChangeError, RecordError};
use super::retry::Backoff;
use super::start::Claim;
use crate::pipeline::Generated;

/// A finished model waits this long for NATS to come back before the work is thrown away.
const STORE_LIMIT: Duration = Duration::from_secs(600);
/// The box of a mesh without vertices, which the pipeline does not let through.
const NO_BOUNDS: Bounds = Bounds { min: [0.0; 3], max: [0.0; 3] };

/// Why a finished model is not stored (yet).
enum StoreError {
    Object(ObjectError),
    Record(RecordError),
    Refused(Refusal),
}

/// Stores a result and completes the job.
pub(super) async fn store(attempt: &mut Attempt, generated: Generated) -> Settlement {
    for (stage, seconds) in &generated.stage_seconds {
        attempt.node.metrics.stage_ran(stage, *seconds);
    }
    let stages = generated.stage_seconds.clone();
    let (file, result, model) = describe(attempt, generated);
    let give_up_at = Instant::now() + STORE_LIMIT;
    let mut failures = 0;
    loop {
        let is_first_try = failures == 0 && attempt.owner.is_first_start();
        let known = is_first_try.then_some(Version::UNUSED);
        let error: async_nats::Error = match store_once(attempt, known, &file, &result, &model).await {
            Ok(()) => {
                attempt.foresight.ended(&attempt.node, &attempt.stored.record, &stages);
                return Settlement::Ack;
            }
            Err(StoreError::Refused(refusal)) => {
                tracing::info!(job = %attempt.id, ?refusal, "result dropped");
                if matches!(refusal, Refusal::Ended(JobStatus::Cancelled | JobStatus::Failed)) {
                    remove_result(&attempt.node, attempt.id).await;
                }
                let nothing_left = Settlement::Ack;
                return unended(attempt, ChangeError::Refused(refusal), nothing_left);
            }
            Err(StoreError::Record(RecordError::Missing(_))) => return Settlement::Ack,
            Err(StoreError::Object(error)) => error.into(),
            Err(StoreError::Record(error)) => error.into(),
        };
        failures += 1;
        let wait = Backoff::CALL.jittered(failures);
        if Instant::now() + wait > give_up_at {
            tracing::error!(job = %attempt.id, %error, "result not stored in time");
            return Settlement::Redeliver(Backoff::JOB.jittered(1));
        }
        tracing::warn!(job = %attempt.id, %error, "result not stored yet");
        tokio::time::sleep(wait).await;
    }
}

/// The version of the job's name in the store, read before the record says that this start is its owner.
/// `None` if the job has completed with this very result: the acknowledgement of an earlier try was lost.
async fn look(attempt: &mut Attempt, result: &JobResult) -> Result<Option<Version>, StoreError> {
    match attempt.ensure_started().await {
        Ok(()) => {}
        Err(ChangeError::Refused(_)) if attempt.stored.record.job.result.as_ref() == Some(result) => {
            return Ok(None);
        }
        Err(ChangeError::Refused(refusal)) => return Err(StoreError::Refused(refusal)),
        Err(ChangeError::Record(error)) => return Err(StoreError::Record(error)),
    }
    let node = attempt.node.clone();
    let version = node.bus.results.version(&attempt.id.to_string()).await.map_err(StoreError::Object)?;
    let Some(fresh) = node.records.load(attempt.id).await.map_err(StoreError::Record)? else {
        return Err(StoreError::Record(RecordError::Missing(attempt.id)));
    };
    let job = &fresh.record.job;
    if job.status == JobStatus::Completed && job.result.as_ref() == Some(result) {
        return Ok(None);
    }
    attempt.owner.check(&fresh.record).map_err(StoreError::Refused)?;
    attempt.stored = fresh;
    Ok(Some(version))
}

async fn store_once(
    attempt: &mut Attempt,
    known: Option<Version>,
    file: &Bytes,
    result: &JobResult,
    model: &ModelChoice,
) -> Result<(), StoreError> {
    let version = match known {
        Some(version) => version,
        None => match look(attempt, result).await? {
            Some(version) => version,
            None => return Ok(()),
        },
    };
    let node = attempt.node.clone();
    let owner = attempt.owner.clone();
    let late_start = attempt.unwritten_start().map(|at| Claim { owner: None, at });
    node.bus.results.put_unseen(&attempt.id.to_string(), file, &version).await.map_err(StoreError::Object)?;
    let completed = node.records.change(&mut attempt.stored, CHANGE_LIMIT, |record| {
        owner.check(record)?;
        if let Some(start) = &late_start {
            start.apply(record, &node.id)?;
        }
        record.job.model = model.clone();
        record.complete(result.clone(), now()).map_err(|_| Refusal::TakenOver)
    });
    match completed.await {
        Ok(()) if late_start.is_some() => attempt.note_started(),
        Ok(()) => {}
        Err(ChangeError::Refused(_)) if attempt.stored.record.job.result.as_ref() == Some(result) => {}
        Err(ChangeError::Refused(refusal)) => return Err(StoreError::Refused(refusal)),
        Err(ChangeError::Record(error)) => return Err(StoreError::Record(error)),
    }
    let job = &attempt.stored.record.job;
    tracing::info!(job = %job.id, attempt = job.attempt, bytes = result.bytes, "job completed");
    node.metrics.job_ended(job.job_type, JobStatus::Completed);
    Ok(())
}

fn describe(attempt: &Attempt, generated: Generated) -> (Bytes, JobResult, ModelChoice) {
    let file = Bytes::from(generated.file);
    let job = &attempt.stored.record.job;
    let report = generated.report;
    let result = JobResult {
        url: job.links.result.clone(),
        media_type: generated.media_type.to_owned(),
        bytes: file.len() as u64,
        sha256: Sha256Digest::of(&file),
        vertices: report.vertices as u64,
        faces: report.faces as u64,
        watertight: report.watertight,
        bounds: report.bounds.map_or(NO_BOUNDS, |bounds| Bounds { min: bounds.min, max: bounds.max }),
    };
    let chosen = attempt.foresight.settings();
    let model = ModelChoice {
        quality: generated.model.quality.or(Some(chosen.quality)),
        quality_source: Some(chosen.quality_source.as_str().to_owned()),
        ..generated.model
    };
    (file, result, model)
}
