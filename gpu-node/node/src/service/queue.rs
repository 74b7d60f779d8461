//! Putting work into the queue, and reading why JetStream refused a message.

use std::error::Error as _;

use async_nats::jetstream::context::PublishError;
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::{self, ErrorCode};
use orfeas_protocol::JobRecord;
use orfeas_protocol::job::WorkItem;
use orfeas_protocol::subjects::HEADER_TRACEPARENT;
use thiserror::Error;

use super::bus::Bus;

/// A job was not put into the queue.
#[derive(Debug, Error)]
pub(crate) enum EnqueueError {
    #[error("the queue is full")]
    Full,
    #[error("cannot put the job into the queue")]
    Unavailable(#[source] async_nats::Error),
}

/// Puts a job into the queue. The message id makes a second call within two minutes harmless.
pub(crate) async fn enqueue(bus: &Bus, record: &JobRecord) -> Result<(), EnqueueError> {
    let job = &record.job;
    let payload = serde_json::to_vec(&WorkItem { id: job.id })
        .map_err(|error| EnqueueError::Unavailable(error.into()))?;
    let mut message = PublishMessage::build().message_id(job.id.to_string()).payload(payload.into());
    if let Some(traceparent) = &record.traceparent {
        message = message.header(HEADER_TRACEPARENT, traceparent.as_str());
    }
    let subject = bus.region.names().work(job.channel, job.priority);
    let acknowledged = match bus.jetstream().send_publish(subject, message).await {
        Ok(sent) => sent.await,
        Err(error) => Err(error),
    };
    match acknowledged {
        Ok(_) => Ok(()),
        Err(error) if refusal_of(&error) == Some(PublishRefusal::Full) => Err(EnqueueError::Full),
        Err(error) => Err(EnqueueError::Unavailable(error.into())),
    }
}

/// Why JetStream refused a message, where it makes a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PublishRefusal {
    /// The stream has met its bound.
    Full,
    /// The subject has moved on from the expected sequence.
    WrongSequence,
}

/// Reads the refusal out of an error.
pub(crate) fn refusal_of(error: &PublishError) -> Option<PublishRefusal> {
    let error = error.source()?.downcast_ref::<jetstream::Error>()?;
    match error.error_code() {
        ErrorCode::STREAM_WRONG_LAST_SEQUENCE | ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT => {
            Some(PublishRefusal::WrongSequence)
        }
        // One code for every failure of the store; only its text tells a met bound from a broken disk.
        ErrorCode::STREAM_STORE_FAILED if error.to_string().contains("maximum") => Some(PublishRefusal::Full),
        ErrorCode::INSUFFICIENT_RESOURCES | ErrorCode::STORAGE_RESOURCES_EXCEEDED => {
            Some(PublishRefusal::Full)
        }
        _ => None,
    }
}
