//! The ends of a job other than a result: cancelled, failed, given up, given back.

use std::time::Duration;

use async_nats::jetstream::message::PublishMessage;
use orfeas_protocol::problem::Code;
use orfeas_protocol::view::JobError;
use orfeas_protocol::{JobId, JobRecord, JobStatus};

use super::dead::DeadLetter;
use super::entropy::now;
use super::job::{Attempt, CHANGE_LIMIT, Refusal, Settlement};
use super::node::NodeContext;
use super::objects::ObjectError;
use super::records::{ChangeError, RecordError};
use super::retry::Backoff;

/// The caller does not want it any more.
pub(super) async fn cancel(attempt: &mut Attempt) -> Settlement {
    end(attempt, JobStatus::Cancelled, |record| {
        let ended = if record.job.status == JobStatus::Processing {
            record.cancelled(now())
        } else {
            record.request_cancel(now()).map(|_| ())
        };
        ended.map_err(|refused| Refusal::Ended(refused.status))
    })
    .await
}

/// Another run would end the same way.
pub(super) async fn fail(attempt: &mut Attempt, error: JobError) -> Settlement {
    end(attempt, JobStatus::Failed, |record| {
        record.fail(error.clone(), now()).map_err(|refused| Refusal::Ended(refused.status))
    })
    .await
}

/// No start is left. The dead letter goes first: a node that dies in between sends it once more under the
/// same message id, and a job is never failed without its letter.
pub(super) async fn give_up(attempt: &mut Attempt, error: JobError) -> Settlement {
    if let Err(unsent) = send_dead_letter(attempt, &error).await {
        tracing::warn!(job = %attempt.id, error = %unsent, "dead letter not stored");
        return Settlement::Redeliver(Backoff::JOB.jittered(1));
    }
    tracing::warn!(job = %attempt.id, code = error.code.as_str(), "job given up");
    match fail(attempt, error).await {
        Settlement::Ack => Settlement::Terminate,
        other => other,
    }
}

async fn send_dead_letter(attempt: &Attempt, reason: &JobError) -> Result<(), async_nats::Error> {
    let letter = DeadLetter::of(&attempt.stored.record, reason, now());
    let bus = &attempt.node.bus;
    let message = PublishMessage::build()
        .message_id(format!("dead-{}", attempt.id))
        .payload(serde_json::to_vec(&letter)?.into());
    bus.jetstream().send_publish(bus.region.names().dead(attempt.id), message).await?.await?;
    Ok(())
}

/// Back into the queue, for another node or for later.
pub(super) async fn give_back(attempt: &mut Attempt, wait: Duration) -> Settlement {
    if attempt.unwritten_start().is_some() && attempt.stored.record.job.status == JobStatus::Queued {
        // The record does not know that we had it.
        return Settlement::Redeliver(wait);
    }
    let owner = attempt.owner.clone();
    let records = attempt.node.records.clone();
    let changed = records.change(&mut attempt.stored, CHANGE_LIMIT, |record| {
        owner.check(record)?;
        match record.job.status {
            // The node stopped before it had started the job.
            JobStatus::Queued => Ok(()),
            _ => record.requeue().map_err(|refused| Refusal::Ended(refused.status)),
        }
    });
    match changed.await {
        Ok(()) => Settlement::Redeliver(wait),
        Err(error) => unended(attempt, error, Settlement::Redeliver(wait)),
    }
}

/// Removes a result that no record tells of: a start stored it, and before its record could say so the job was
/// cancelled, or the node died and a later start failed. What is not removed now goes by its age.
pub(super) async fn remove_result(node: &NodeContext, id: JobId) {
    match node.bus.results.remove(&id.to_string()).await {
        Ok(true) => tracing::info!(job = %id, "stored result of a job that did not complete removed"),
        Ok(false) | Err(ObjectError::Superseded) => {}
        Err(error) => tracing::debug!(job = %id, %error, "stored result not removed"),
    }
}

/// Moves the record to an end, as its owner, and counts it.
async fn end(
    attempt: &mut Attempt,
    status: JobStatus,
    change: impl Fn(&mut JobRecord) -> Result<(), Refusal>,
) -> Settlement {
    let owner = attempt.owner.clone();
    let records = attempt.node.records.clone();
    let foresight = &attempt.foresight;
    let changed = records.change(&mut attempt.stored, CHANGE_LIMIT, |record| {
        owner.check(record)?;
        if foresight.has_begun() {
            foresight.describe(&mut record.job.model);
        }
        change(record)
    });
    match changed.await {
        Ok(()) => {
            let job = &attempt.stored.record.job;
            let code = job.error.as_ref().map(|error| error.code);
            tracing::info!(job = %job.id, status = status.as_str(), code = code.map(Code::as_str), "job ended");
            attempt.node.metrics.job_ended(job.job_type, status);
            attempt.foresight.ended(&attempt.node, &attempt.stored.record, &[]);
            if attempt.may_have_been_run_before() {
                remove_result(&attempt.node, attempt.id).await;
            }
            Settlement::Ack
        }
        Err(error) => unended(attempt, error, Settlement::Redeliver(Backoff::JOB.jittered(1))),
    }
}

/// What becomes of the message when the record did not take the end.
pub(super) fn unended(attempt: &Attempt, error: ChangeError<Refusal>, otherwise: Settlement) -> Settlement {
    match error {
        ChangeError::Refused(Refusal::Ended(_)) | ChangeError::Record(RecordError::Missing(_)) => {
            Settlement::Ack
        }
        ChangeError::Refused(Refusal::TakenOver) => Settlement::Leave,
        ChangeError::Refused(Refusal::CancelRequested) => otherwise,
        ChangeError::Record(error) => {
            tracing::warn!(job = %attempt.id, %error, "the job's end is not recorded yet");
            otherwise
        }
    }
}
