//! What callers ask about jobs: to make one and wait for it, to stop one, to see one.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use orfeas_protocol::JobId;
use orfeas_protocol::problem::{Code, Problem};
use orfeas_protocol::view::Job;

use crate::service::entropy::now;
use crate::service::node::NodeContext;
use crate::service::records::{ChangeError, RecordError, Stored};
use crate::service::submission::{Submission, internal, submit, unavailable};

/// A change that a caller waits for.
const CHANGE_LIMIT: Duration = Duration::from_secs(5);
/// Events can be lost with a connection; the record is looked up this often while a caller waits.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// Memory comes free when a job ends or an operator adds a node.
const RETRY_AFTER_REFUSED_SECONDS: u32 = 30;

/// Submits and waits for the end, for as long as the options say. A job that goes on is answered as it stands.
pub(super) async fn generate(node: &Arc<NodeContext>, submission: Submission) -> Result<Job, Problem> {
    let deadline = tokio::time::Instant::now() + submission.options.wait();
    let record = submit(node, submission).await?;
    let id = record.job.id;
    let subject = node.bus.region.names().events(id);
    let mut events = node.bus.client().subscribe(subject).await.ok();
    let mut job = record.job;
    loop {
        // The first look comes after the subscription, so no end goes unseen.
        match node.records.load(id).await {
            Ok(Some(stored)) => job = stored.record.job,
            Ok(None) => return Err(Problem::new(Code::NotFound, "the job has expired")),
            Err(error) => tracing::debug!(job = %id, %error, "record not read while a caller waits"),
        }
        if let Some(problem) = not_taken(&job) {
            return Err(problem);
        }
        if job.status.is_terminal() || tokio::time::Instant::now() >= deadline {
            return Ok(job);
        }
        let next_look = (tokio::time::Instant::now() + LOOK_INTERVAL).min(deadline);
        let _ = tokio::time::timeout_at(next_look, terminal_event(events.as_mut())).await;
    }
}

/// The problem for a caller who waits for a job that no node of the region could take.
fn not_taken(job: &Job) -> Option<Problem> {
    let error = job.error.as_ref()?;
    let is_refused = matches!(error.code, Code::GpuMemoryInsufficient | Code::QueueFull);
    is_refused.then(|| {
        Problem::new(error.code, error.message.as_str())
            .with("id", job.id.to_string())
            .retry_after(RETRY_AFTER_REFUSED_SECONDS)
    })
}

/// Waits for an event that tells of an end.
async fn terminal_event(events: Option<&mut async_nats::Subscriber>) {
    if let Some(events) = events {
        while let Some(event) = events.next().await {
            if serde_json::from_slice::<Job>(&event.payload).is_ok_and(|job| job.status.is_terminal()) {
                return;
            }
        }
    }
    std::future::pending().await
}

pub(super) async fn cancel(node: &NodeContext, id: JobId) -> Result<Job, Problem> {
    let mut stored = load(node, id).await?;
    let changed = node
        .records
        .change(&mut stored, CHANGE_LIMIT, |record| record.request_cancel(now()).map(|_| ()))
        .await;
    match changed {
        Ok(()) => Ok(stored.record.job),
        Err(ChangeError::Refused(refused)) => Err(Problem::new(Code::JobAlreadyEnded, refused.to_string())),
        Err(ChangeError::Record(error)) => Err(record_problem(&error)),
    }
}

pub(super) async fn load(node: &NodeContext, id: JobId) -> Result<Stored, Problem> {
    let stored = node.records.load(id).await.map_err(|error| record_problem(&error))?;
    stored.ok_or_else(|| Problem::new(Code::NotFound, "no such job"))
}

fn record_problem(error: &RecordError) -> Problem {
    match error {
        RecordError::Missing(_) => Problem::new(Code::NotFound, "no such job"),
        RecordError::Unreadable { .. } | RecordError::Exists(_) => internal("read a record", error),
        RecordError::Unavailable { .. } => unavailable("use a record", error),
    }
}
