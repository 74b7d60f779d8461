//! Takes a job in: options, picture, channel, record, work. The order is the promise: an acknowledged job has
//! its picture, its record and its message on disk.
//!
//! ```text
//!   options ─▶ pictures: checks, block list ─▶ channel ─▶ store pictures ─▶ create record ─▶ publish work
//! ```

use std::sync::Arc;

use async_nats::jetstream::kv::Operation;
use bytes::Bytes;
use orfeas_protocol::job::NewJob;
use orfeas_protocol::options::{JobOptions, RequestOptions};
use orfeas_protocol::picture::{is_made_from, metadata};
use orfeas_protocol::problem::{Code, Problem};
use orfeas_protocol::rollout::{Rollout, RolloutKey};
use orfeas_protocol::{Channel, JobRecord, RequestId, Sha256Digest, TenantId};

use super::entropy::{job_id, now};
use super::line::foresee_new;
use super::node::NodeContext;
use super::objects::{ObjectError, ObjectInfo, Objects};
use super::picture::{CheckedPicture, PictureError};
use super::queue::{EnqueueError, enqueue};

/// What a caller is told to wait when the queue or the store is full: about a few jobs' time.
const RETRY_AFTER_FULL_SECONDS: u32 = 10;
/// What a caller is told to wait when NATS is away: most interruptions are a restart.
const RETRY_AFTER_UNAVAILABLE_SECONDS: u32 = 2;

/// A request for a job.
#[derive(Debug, Clone, Default)]
pub(crate) struct Submission {
    pub(crate) options: RequestOptions,
    /// The picture; empty if the options name a stored one.
    pub(crate) image: Bytes,
    pub(crate) request_id: Option<RequestId>,
    pub(crate) traceparent: Option<String>,
}

/// Takes a job in.
///
/// # Errors
/// The problem to show to the caller.
pub(crate) async fn submit(node: &Arc<NodeContext>, submission: Submission) -> Result<JobRecord, Problem> {
    let picture = picture(node, &submission).await?;
    let channel = channel(node, &picture.input.sha256).await?;
    store(&node.bus.uploads, &picture).await?;
    keep_views(node, &submission.options.job).await?;
    let id = job_id().map_err(|error| internal("draw a job id", &error))?;
    let new = NewJob {
        id,
        job_type: submission.options.job_type,
        tenant: TenantId::anonymous(),
        region: node.bus.region.clone(),
        channel,
        options: submission.options.job,
        input: picture.input,
        request_id: submission.request_id,
        traceparent: submission.traceparent,
    };
    let mut record = JobRecord::new(new, now());
    foresee_new(node, &mut record);
    let stored = node.records.create(record).await;
    let stored = stored.map_err(|error| {
        node.line.forget(id);
        unavailable("create the record", &error)
    })?;
    if let Err(error) = enqueue(&node.bus, &stored.record).await {
        // Not acknowledged, so not promised. If this fails too, the sweeper finds the job, and it runs.
        if let Err(error) = node.records.retract(&stored).await {
            tracing::warn!(job = %id, %error, "record of a refused job not retracted");
        }
        return Err(match error {
            EnqueueError::Full => Problem::new(Code::QueueFull, "the queue of the region is full")
                .retry_after(RETRY_AFTER_FULL_SECONDS),
            EnqueueError::Unavailable(error) => unavailable("publish the work", error.as_ref()),
        });
    }
    node.metrics.job_accepted(channel);
    Ok(stored.record)
}

async fn picture(node: &NodeContext, submission: &Submission) -> Result<CheckedPicture, Problem> {
    let checked = match (submission.image.is_empty(), submission.options.image_sha256) {
        (false, None) => node.pictures.check(submission.image.clone()).await,
        (true, Some(digest)) => node.pictures.fetch(digest).await,
        (true, None) => {
            let detail = "no picture: neither in the payload nor as `image_sha256` in the options";
            return Err(Problem::new(Code::InvalidRequest, detail));
        }
        (false, Some(_)) => {
            let detail = "two pictures: one in the payload and one as `image_sha256` in the options";
            return Err(Problem::new(Code::InvalidRequest, detail));
        }
    };
    checked.map_err(|error| refusal(node, &error))
}

/// Pictures of the subject's other sides are stored already, and named in the options: they pass the same checks now,
/// one after the other, and stay for long enough.
async fn keep_views(node: &NodeContext, options: &JobOptions) -> Result<(), Problem> {
    for (side, digest) in options.views() {
        let view = node.pictures.fetch(digest).await;
        let view = view.map_err(|error| refusal(node, &error).with("side", side.as_str()))?;
        store(&node.bus.uploads, &view).await?;
    }
    Ok(())
}

fn refusal(node: &NodeContext, error: &PictureError) -> Problem {
    let problem = error.problem();
    if problem.status < 500 {
        node.metrics.upload_rejected(problem.code);
        problem
    } else {
        unavailable("check the picture", error)
    }
}

/// The channel of a picture. No rollout state means no canary; no answer means no job.
async fn channel(node: &NodeContext, digest: &Sha256Digest) -> Result<Channel, Problem> {
    let entry = node.bus.rollout.entry(Rollout::KEY).await;
    let entry = entry.map_err(|error| unavailable("read the rollout", &error))?;
    let rollout = match entry.filter(|entry| entry.operation == Operation::Put) {
        Some(entry) => {
            serde_json::from_slice(&entry.value).map_err(|error| internal("read the rollout", &error))?
        }
        None => Rollout::default(),
    };
    Ok(rollout.channel(RolloutKey::Content(digest)))
}

/// Stores a picture without its metadata, unless it is there already so and will be for long enough.
pub(crate) async fn store(uploads: &Objects, picture: &CheckedPicture) -> Result<(), Problem> {
    let name = picture.input.sha256.to_string();
    let failed = |error: ObjectError| match error {
        ObjectError::Full => Problem::new(Code::QueueFull, "the store of pictures is full")
            .retry_after(RETRY_AFTER_FULL_SECONDS),
        error => unavailable("store the picture", &error),
    };
    let version = uploads.version(&name).await.map_err(failed)?;
    let refresh_after = uploads.refresh_after();
    let is_fresh = |stored_at| now().since(stored_at) < refresh_after;
    // What others have put there may have its metadata still.
    let is_ours = |found: &ObjectInfo| is_made_from(&picture.input.sha256, &found.metadata);
    if version.info().is_some_and(|found| is_ours(found) && found.mtime.is_some_and(is_fresh)) {
        return Ok(());
    }
    match uploads.put_known(&name, &picture.bytes, metadata(&picture.input), &version).await {
        // Somebody else has stored the same bytes.
        Ok(()) | Err(ObjectError::Superseded) => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

/// NATS does not answer.
pub(crate) fn unavailable(action: &str, error: &(dyn std::error::Error + 'static)) -> Problem {
    tracing::warn!(action, error, "request refused: nats");
    Problem::new(Code::UpstreamUnavailable, "the message bus cannot be reached")
        .retry_after(RETRY_AFTER_UNAVAILABLE_SECONDS)
}

/// A defect on our side.
pub(crate) fn internal(action: &str, error: &(dyn std::error::Error + 'static)) -> Problem {
    tracing::error!(action, error, "request failed");
    Problem::new(Code::Internal, "something went wrong on our side")
}
