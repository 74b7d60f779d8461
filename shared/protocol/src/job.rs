//! The job record and its state machine.
//!
//! ```text
//!            ┌──────── requeue ────────┐
//!            ▼                         │
//!  ──▶ Queued ──── start ────▶ Processing ──┬─▶ Completed
//!        │                    (start again  ├─▶ Failed
//!        │                     after a node ├─▶ Cancelled
//!        │                     has died)    │
//!        └─ request_cancel ─▶ Cancelled     │
//!        └─ fail ───────────▶ Failed ◀──────┘
//! ```
//! A terminal state is final, whoever asks. The record is stored under the job's id and moved only by
//! compare-and-set on its revision, so two writers cannot both win.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::ids::{JobId, NodeId, Region, RequestId, TenantId};
use crate::options::{JobOptions, JobType};
use crate::rollout::Channel;
use crate::timestamp::Timestamp;
use crate::view::{InputImage, Job, JobError, JobResult, Links, ModelChoice, Recovery};

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobStatus {
    /// Waits for a node.
    Queued,
    /// A node works on it.
    Processing,
    /// The result is stored.
    Completed,
    /// Given up, with a reason.
    Failed,
    /// Ended at the caller's wish.
    Cancelled,
}

impl JobStatus {
    /// Every status.
    pub const ALL: [JobStatus; 5] =
        [Self::Queued, Self::Processing, Self::Completed, Self::Failed, Self::Cancelled];

    /// Whether nothing more will happen.
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }

    /// The name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Processing => "processing",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// A step that the job's state does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a job that is {} cannot {action}", .status.as_str())]
pub struct IllegalTransition {
    /// Where the job stands.
    pub status: JobStatus,
    /// What was asked of it.
    pub action: &'static str,
}

/// What a cancel request did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelOutcome {
    /// The job was queued and is cancelled now.
    Cancelled,
    /// The job runs; its node will stop it at the next step.
    Requested,
}

/// What is known of a job at its submission.
#[derive(Debug, Clone)]
pub struct NewJob {
    /// Its id.
    pub id: JobId,
    /// What it makes.
    pub job_type: JobType,
    /// Who asks.
    pub tenant: TenantId,
    /// Where it runs.
    pub region: Region,
    /// Its release channel.
    pub channel: Channel,
    /// What is asked.
    pub options: JobOptions,
    /// The picture.
    pub input: InputImage,
    /// The request that brought it.
    pub request_id: Option<RequestId>,
    /// W3C trace context of that request.
    pub traceparent: Option<String>,
}

/// What a caller is told of a job's end, in seconds from now.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Eta {
    /// As likely later as sooner.
    pub p50_seconds: f64,
    /// Nine in ten jobs have ended by then.
    pub p90_seconds: f64,
}

/// An estimate that a waiting job's caller was told, to be compared with what came.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct WaitingEstimate {
    /// When it was told.
    pub at: Timestamp,
    /// As it was told.
    pub told: Eta,
    /// As it was before the correction by recent errors.
    pub raw: Eta,
    /// How many the caller was told by then.
    pub count: u32,
}

/// The stored record: the job object, and what only edges and nodes need to know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobRecord {
    /// The job object.
    #[serde(flatten)]
    pub job: Job,
    /// Who submitted it.
    pub tenant: TenantId,
    /// What was asked.
    pub options: JobOptions,
    /// When a cancel was asked of the running job.
    #[serde(default)]
    pub cancel_requested_at: Option<Timestamp>,
    /// The request that brought it.
    #[serde(default)]
    pub request_id: Option<RequestId>,
    /// W3C trace context of that request.
    #[serde(default)]
    pub traceparent: Option<String>,
    /// The job that was given up and that this one tries again. A failed job stays failed: an operator's retry is a
    /// new job with a budget of starts of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_of: Option<JobId>,
    /// One of the estimates that were told while it waited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_estimate: Option<WaitingEstimate>,
}

impl JobRecord {
    /// A queued job.
    pub fn new(new: NewJob, now: Timestamp) -> Self {
        let model = ModelChoice {
            family: new.options.model.clone(),
            seed: new.options.seed,
            steps: new.options.steps,
            guidance_scale: new.options.guidance_scale,
            quality: new.options.quality,
            quality_source: new.options.quality.map(|_| "request".to_owned()),
            version: None,
        };
        let job = Job {
            id: new.id,
            job_type: new.job_type,
            status: JobStatus::Queued,
            progress: 0,
            stage: None,
            priority: new.options.priority,
            created_at: now,
            started_at: None,
            completed_at: None,
            eta_seconds: None,
            eta_p90_seconds: None,
            queue_position: None,
            attempt: 0,
            region: new.region,
            node: None,
            channel: new.channel,
            model,
            input: new.input,
            recoveries: Vec::new(),
            error: None,
            result: None,
            links: Links::of(new.id),
        };
        Self {
            job,
            tenant: new.tenant,
            options: new.options,
            cancel_requested_at: None,
            request_id: new.request_id,
            traceparent: new.traceparent,
            retry_of: None,
            waiting_estimate: None,
        }
    }

    /// A new queued job that tries a failed one again, with the same picture, options, tenant and channel.
    ///
    /// # Errors
    /// This job has not failed.
    pub fn retried(&self, id: JobId, now: Timestamp) -> Result<Self, IllegalTransition> {
        let job = &self.job;
        if job.status != JobStatus::Failed {
            return Err(IllegalTransition { status: job.status, action: "be tried again" });
        }
        let new = NewJob {
            id,
            job_type: job.job_type,
            tenant: self.tenant.clone(),
            region: job.region.clone(),
            channel: job.channel,
            options: self.options.clone(),
            input: job.input.clone(),
            request_id: self.request_id.clone(),
            traceparent: self.traceparent.clone(),
        };
        Ok(Self { retry_of: Some(job.id), ..Self::new(new, now) })
    }

    /// A node begins, or begins again after the node before it died.
    ///
    /// # Errors
    /// The job has ended.
    pub fn start(&mut self, node: NodeId, now: Timestamp) -> Result<(), IllegalTransition> {
        self.expect_open("start")?;
        let job = &mut self.job;
        job.status = JobStatus::Processing;
        job.node = Some(node);
        job.attempt = job.attempt.saturating_add(1);
        job.started_at.get_or_insert(now);
        job.queue_position = None;
        Ok(())
    }

    /// Notes how far the job is. A lower figure, as after a second start, leaves the old one standing; the
    /// last percent belongs to [`Self::complete`].
    ///
    /// # Errors
    /// The job does not run.
    pub fn advance(&mut self, stage: &str, percent: u8) -> Result<(), IllegalTransition> {
        self.expect_processing("advance")?;
        self.job.stage = Some(stage.to_owned());
        self.job.progress = self.job.progress.max(percent.min(99));
        Ok(())
    }

    /// Tells the caller of a running job when it will end.
    ///
    /// # Errors
    /// The job does not run.
    pub fn foresee_end(&mut self, eta: Eta) -> Result<(), IllegalTransition> {
        self.expect_processing("be foreseen to end")?;
        self.tell(eta);
        Ok(())
    }

    /// Tells the caller of a waiting job how many go before it and, if that is known, when it will end. Of the
    /// estimates that are told one is kept for comparison: the n-th with a chance of one in n, as `draw` decides.
    ///
    /// # Errors
    /// The job does not wait.
    pub fn foresee_wait(
        &mut self,
        position: u64,
        estimate: Option<WaitingEstimate>,
        draw: u64,
    ) -> Result<(), IllegalTransition> {
        if self.job.status != JobStatus::Queued {
            return Err(IllegalTransition { status: self.job.status, action: "be told its place" });
        }
        self.job.queue_position = Some(position);
        let Some(estimate) = estimate else { return Ok(()) };
        self.tell(estimate.told);
        let count = self.waiting_estimate.map_or(0, |kept| kept.count).saturating_add(1);
        let kept = match self.waiting_estimate {
            Some(kept) if !draw.is_multiple_of(u64::from(count)) => kept,
            _ => estimate,
        };
        self.waiting_estimate = Some(WaitingEstimate { count, ..kept });
        Ok(())
    }

    /// Milliseconds are finer than any estimate.
    fn tell(&mut self, eta: Eta) {
        let told = |seconds: f64| {
            let seconds = if seconds.is_finite() { seconds.max(0.0) } else { 0.0 };
            Some((seconds * 1_000.0).round() / 1_000.0)
        };
        self.job.eta_seconds = told(eta.p50_seconds);
        self.job.eta_p90_seconds = told(eta.p90_seconds.max(eta.p50_seconds));
    }

    /// Notes a rung of the recovery ladder.
    ///
    /// # Errors
    /// The job does not run.
    pub fn recover(&mut self, recovery: Recovery) -> Result<(), IllegalTransition> {
        self.expect_processing("recover")?;
        self.job.recoveries.push(recovery);
        Ok(())
    }

    /// Gives the job back to the queue, as a node that drains does.
    ///
    /// # Errors
    /// The job does not run.
    pub fn requeue(&mut self) -> Result<(), IllegalTransition> {
        self.expect_processing("be queued again")?;
        self.job.status = JobStatus::Queued;
        self.job.node = None;
        self.clear_estimates();
        Ok(())
    }

    /// The result is stored.
    ///
    /// # Errors
    /// The job does not run.
    pub fn complete(&mut self, result: JobResult, now: Timestamp) -> Result<(), IllegalTransition> {
        self.expect_processing("complete")?;
        self.job.progress = 100;
        self.job.result = Some(result);
        self.end(JobStatus::Completed, now);
        Ok(())
    }

    /// The job is given up.
    ///
    /// # Errors
    /// The job has ended.
    pub fn fail(&mut self, error: JobError, now: Timestamp) -> Result<(), IllegalTransition> {
        self.expect_open("fail")?;
        self.job.error = Some(error);
        self.end(JobStatus::Failed, now);
        Ok(())
    }

    /// A caller wants the job to stop: at once if it is queued, at its next step if it runs. Asking again
    /// changes nothing.
    ///
    /// # Errors
    /// The job has ended.
    pub fn request_cancel(&mut self, now: Timestamp) -> Result<CancelOutcome, IllegalTransition> {
        self.expect_open("be cancelled")?;
        if self.job.status == JobStatus::Queued {
            self.end(JobStatus::Cancelled, now);
            return Ok(CancelOutcome::Cancelled);
        }
        self.cancel_requested_at.get_or_insert(now);
        Ok(CancelOutcome::Requested)
    }

    /// The node has stopped the job.
    ///
    /// # Errors
    /// The job does not run.
    pub fn cancelled(&mut self, now: Timestamp) -> Result<(), IllegalTransition> {
        self.expect_processing("be cancelled")?;
        self.end(JobStatus::Cancelled, now);
        Ok(())
    }

    /// Whether the running job is to stop.
    pub fn is_cancel_requested(&self) -> bool {
        self.cancel_requested_at.is_some()
    }

    fn end(&mut self, status: JobStatus, now: Timestamp) {
        self.job.status = status;
        // The contract orders the three times, whatever the clocks of the machines say.
        let earliest = self.job.started_at.unwrap_or(self.job.created_at);
        self.job.completed_at = Some(now.max(earliest));
        self.clear_estimates();
    }

    fn clear_estimates(&mut self) {
        self.job.eta_seconds = None;
        self.job.eta_p90_seconds = None;
        self.job.queue_position = None;
    }

    fn expect_open(&self, action: &'static str) -> Result<(), IllegalTransition> {
        let status = self.job.status;
        if status.is_terminal() { Err(IllegalTransition { status, action }) } else { Ok(()) }
    }

    fn expect_processing(&self, action: &'static str) -> Result<(), IllegalTransition> {
        let status = self.job.status;
        if status == JobStatus::Processing { Ok(()) } else { Err(IllegalTransition { status, action }) }
    }
}

/// The message in the work queue: where to find the record. Everything else stands in the record, so that a
/// redelivered message can never contradict it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkItem {
    /// The job.
    pub id: JobId,
}

#[cfg(test)]
mod tests;
