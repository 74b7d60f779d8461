//! One delivery of one job, from the message to its settlement.
//!
//! ```text
//!   load record ─▶ ended? ack ─▶ starts used up? give up
//!        ▼
//!   ┌ fetch and check the picture, once the turn is near              ┐
//!   └ wait in the scheduler's queue; CAS Processing (or later: `start`) ┘  both at once; a stop signal ends either
//!        ▼
//!   generate (`generation`: tries, recovery, progress) ─▶ verdict ─▶ store result, CAS end ─▶ settle the message
//! ```
//! The message is settled last, so whatever is killed, the job is delivered again and the record tells the
//! next node where it stands. A start takes the record over (its `attempt` is the fencing token): only the
//! owner may store a result or end the job.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::{AckKind, Message};
use bytes::Bytes;
use orfeas_protocol::problem::Code;
use orfeas_protocol::view::JobError;
use orfeas_protocol::{JobId, JobStatus};
use tokio::sync::{Notify, watch};
use tokio::time::{MissedTickBehavior, interval};

use super::active::{ActiveGuard, ActiveJob};
use super::admission::not_admitted;
use super::entropy::now;
use super::foresight::Foresight;
use super::node::{NodeContext, drained};
use super::picture::{CheckedPicture, PictureError};
use super::progress::{Stop, StopSignal};
use super::records::{ChangeError, RecordError, Stored};
use super::retry::Backoff;
use super::start::{Claim, Owner, Start, may_be_late};
use super::verdict::{Verdict, after_failure, before_start};
use super::worker::lane_in;
use super::{ending, outcome};
use crate::scheduler::{Admission, AdmitError, Candidate};

/// A change of state in the middle of a job: beyond this the queue has given the job away anyway.
pub(super) const CHANGE_LIMIT: Duration = Duration::from_secs(60);
/// Deliveries that led to no start, such as of a node that dies while it reads the picture, end here.
const IDLE_DELIVERIES_MAX: i64 = 50;

/// What becomes of the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Settlement {
    /// The job has ended.
    Ack,
    /// The job has been given up.
    Terminate,
    /// Another delivery, now or later.
    Redeliver(Duration),
    /// Another delivery, now or later, to another node that is known to be able.
    PassOn(Duration),
    /// The message is another node's by now, or nobody can be reached: its ack wait decides.
    Leave,
}

/// Why the record did not take a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The job has ended.
    Ended(JobStatus),
    /// Another start has taken the job over.
    TakenOver,
    /// The caller wants it to stop.
    CancelRequested,
}

/// How a run ended before the pipeline had anything to say.
pub(super) enum Interruption {
    Stopped(Stop),
    NotAdmitted(AdmitError),
    Picture(PictureError),
    Refused(Refusal),
    Record(RecordError),
}

impl From<ChangeError<Refusal>> for Interruption {
    fn from(error: ChangeError<Refusal>) -> Self {
        match error {
            ChangeError::Refused(refusal) => Self::Refused(refusal),
            ChangeError::Record(error) => Self::Record(error),
        }
    }
}

/// A job on this node.
pub(super) struct Attempt {
    pub(super) node: Arc<NodeContext>,
    pub(super) id: JobId,
    pub(super) stored: Stored,
    pub(super) owner: Owner,
    pub(super) start: Start,
    pub(super) active: ActiveGuard,
    pub(super) foresight: Foresight,
    pub(super) deliveries: i64,
}

/// Takes a message to its settlement.
pub(super) async fn deliver(node: Arc<NodeContext>, id: JobId, message: Message) {
    let deliveries = message.info().map_or(1, |info| info.delivered);
    let Some(active) = node.active.admit(id, message) else {
        tracing::info!(job = %id, "delivered again while it is running here");
        return;
    };
    let job = active.clone();
    let ack_wait = node.work.ack_wait;
    let settlement = tokio::select! {
        settlement = run(node.clone(), id, active, deliveries) => settlement,
        never = keep_alive(&job, ack_wait) => match never {},
    };
    let message = job.message();
    match (settlement, lane_in(&message.subject, &node.bus.region.names().all_work())) {
        (Settlement::PassOn(_), Some(lane)) => {
            // Or this node would be the first to ask again.
            node.yielded.to_others(lane);
            settle(&message, id, settlement).await;
            let subject = node.bus.region.names().wake(lane.channel, lane.priority);
            if let Err(error) = node.bus.client().publish(subject, Bytes::new()).await {
                tracing::debug!(job = %id, %error, "other nodes not called");
            }
        }
        _ => settle(&message, id, settlement).await,
    }
}

/// Tells the queue that the job is being worked on. Three times per ack wait, so that one may get lost.
async fn keep_alive(job: &ActiveJob, ack_wait: Duration) -> Infallible {
    let mut ticks = interval(ack_wait / 3);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        if let Err(error) = job.message().ack_with(AckKind::Progress).await {
            tracing::debug!(%error, "in-progress acknowledgement not sent");
        }
    }
}

async fn run(node: Arc<NodeContext>, id: JobId, active: ActiveGuard, deliveries: i64) -> Settlement {
    // What the watch has told is as good as what a read would tell: the job is among the active ones by now, so that
    // a change which the watch has not told yet stops it here.
    let seen = node.seen.take(id).filter(|_| deliveries <= 1);
    let loaded = match seen {
        Some(stored) => Ok(Some(stored)),
        None => node.records.load(id).await,
    };
    match loaded {
        Ok(Some(stored)) => {
            let owner = Owner::of(&stored.record);
            let foresight = Foresight::of(&node, &stored.record);
            let start = Start::Unwritten { at: now() };
            Attempt { node, id, stored, owner, start, foresight, active, deliveries }.run().await
        }
        // Expired, or retracted by who wrote it: either way nobody waits for it.
        Ok(None) => Settlement::Ack,
        Err(error) => {
            tracing::warn!(job = %id, %error, "record not read");
            match error {
                RecordError::Unreadable { .. } => Settlement::Terminate,
                _ => Settlement::Redeliver(Backoff::JOB.jittered(1)),
            }
        }
    }
}

impl Attempt {
    async fn run(mut self) -> Settlement {
        let job = &self.stored.record.job;
        if job.status.is_terminal() {
            if job.status != JobStatus::Completed && self.may_have_been_run_before() {
                ending::remove_result(&self.node, self.id).await;
            }
            return Settlement::Ack;
        }
        let idle_deliveries = self.deliveries.saturating_sub(i64::from(job.attempt));
        if let Some(error) = before_start(job.attempt, self.node.work.attempts_max) {
            return ending::give_up(&mut self, error).await;
        }
        if idle_deliveries > IDLE_DELIVERIES_MAX {
            let error = JobError::new(Code::Internal, "the job could not be started");
            return ending::give_up(&mut self, error).await;
        }
        match self.prepare().await {
            Ok((picture, admission)) => self.generate(picture, admission).await,
            Err(interruption) => self.interrupted(interruption).await,
        }
    }

    /// Brings the picture here and the job to the device, both at once. Either one's failure ends the other's
    /// wait, but not a compare-and-set that is under way: afterwards we know whether the job was started.
    async fn prepare(&mut self) -> Result<(CheckedPicture, Admission), Interruption> {
        let node = self.node.clone();
        let digest = self.stored.record.job.input.sha256;
        let options = self.stored.record.options.clone();
        let signal = self.active.stop.clone();
        let stopped = || stopped(&signal, node.draining.clone());
        let ticket = node.scheduler.queue(self.candidate()).map_err(Interruption::NotAdmitted)?;
        let mut near = ticket.near();
        let (halt, admitted, refused) = (Notify::new(), Notify::new(), Notify::new());
        let picture = async {
            // A picture is up to 50 MB: only the next few jobs have theirs here.
            let is_near = async {
                tokio::select! {
                    // The scheduler is gone only with the node.
                    _ = near.wait_for(|near| *near) => {}
                    () = admitted.notified() => {}
                }
            };
            let fetched = async {
                is_near.await;
                node.pictures.fetch_all(digest, &options).await
            };
            let picture = tokio::select! {
                biased;
                stop = stopped() => Err(Some(Interruption::Stopped(stop))),
                () = refused.notified() => Err(None),
                fetched = fetched => fetched.map_err(|error| Some(Interruption::Picture(error))),
            };
            if picture.is_err() {
                halt.notify_one();
            }
            picture
        };
        let is_late = may_be_late(&self.stored.record, self.deliveries);
        let (start, stored) = (&mut self.start, &mut self.stored);
        let started = async {
            let admission = tokio::select! {
                biased;
                stop = stopped() => Err(Interruption::Stopped(stop)),
                () = halt.notified() => Err(Interruption::Stopped(Stop::Draining)),
                admission = ticket.admitted() => admission.map_err(Interruption::NotAdmitted),
            };
            let admission = admission.inspect_err(|_| refused.notify_one())?;
            admitted.notify_one();
            *start = Start::Unwritten { at: now() };
            if !is_late {
                let (written, changed) = Claim::over_anybody().write(node.clone(), stored.clone()).await;
                *stored = written;
                changed.map_err(Interruption::from)?;
            }
            Ok(admission)
        };
        let (picture, started) = tokio::join!(picture, started);
        if started.is_ok() && !is_late {
            self.note_started();
        }
        match (picture, started) {
            (Ok(picture), Ok(admission)) => Ok((picture, admission)),
            (Err(Some(interruption)), _) | (_, Err(interruption)) => Err(interruption),
            // Only a refused job's picture is not wanted.
            (Err(None), Ok(_)) => Err(Interruption::Stopped(Stop::Draining)),
        }
    }

    /// Whether a start before this delivery may have come as far as a result.
    pub(super) fn may_have_been_run_before(&self) -> bool {
        self.deliveries > 1 || self.stored.record.job.attempt > 1
    }

    fn candidate(&self) -> Candidate {
        let record = &self.stored.record;
        let job = &record.job;
        Candidate {
            id: self.id,
            tenant: record.tenant.clone(),
            priority: job.priority,
            family: record.options.model.clone(),
            settings: self.foresight.settings().clone(),
            picture_side: job.input.width.max(job.input.height),
            created_at: job.created_at,
            deadline: self.node.work.job_deadline.map(|limit| job.created_at.plus(limit)),
        }
    }

    pub(super) async fn interrupted(mut self, interruption: Interruption) -> Settlement {
        let attempt = self.stored.record.job.attempt.max(1);
        let attempts_max = self.node.work.attempts_max;
        let verdict = match interruption {
            Interruption::Stopped(Stop::Draining) if self.stored.record.job.status == JobStatus::Queued => {
                return Settlement::Redeliver(Duration::ZERO);
            }
            Interruption::Stopped(Stop::Draining) => Verdict::GiveBack,
            Interruption::NotAdmitted(error) => match not_admitted(&self, error).await {
                Ok(settlement) => return settlement,
                Err(verdict) => verdict,
            },
            Interruption::Stopped(Stop::Cancelled) | Interruption::Refused(Refusal::CancelRequested) => {
                Verdict::Cancel
            }
            Interruption::Refused(Refusal::Ended(_)) => return Settlement::Ack,
            Interruption::Stopped(Stop::Lost) => return self.lost().await,
            Interruption::Refused(Refusal::TakenOver) => return Settlement::Leave,
            Interruption::Record(RecordError::Missing(_)) => return Settlement::Ack,
            Interruption::Record(error) => {
                tracing::warn!(job = %self.id, %error, "job not started");
                return Settlement::Redeliver(Backoff::JOB.jittered(attempt));
            }
            Interruption::Picture(error) => {
                tracing::warn!(job = %self.id, %error, "picture not used");
                after_failure(picture_error(&error), attempt, attempts_max)
            }
        };
        self.carry_out(verdict).await
    }

    pub(super) async fn carry_out(mut self, verdict: Verdict) -> Settlement {
        match verdict {
            Verdict::Store(generated) => outcome::store(&mut self, *generated).await,
            Verdict::Cancel => ending::cancel(&mut self).await,
            Verdict::GiveBack => ending::give_back(&mut self, Duration::ZERO).await,
            Verdict::Retry { error, wait } => {
                let seconds = wait.as_secs_f32();
                tracing::info!(job = %self.id, code = error.code.as_str(), seconds, "job waits for another try");
                ending::give_back(&mut self, wait).await
            }
            Verdict::Fail(error) => ending::fail(&mut self, error).await,
            Verdict::GiveUp(error) => ending::give_up(&mut self, error).await,
            Verdict::Forget => self.lost().await,
        }
    }

    /// The record went on without us: if it has ended, the message is done with; else it is another node's.
    async fn lost(&mut self) -> Settlement {
        match self.node.records.load(self.id).await {
            Ok(Some(stored)) if !stored.record.job.status.is_terminal() => Settlement::Leave,
            Ok(_) => Settlement::Ack,
            Err(_) => Settlement::Leave,
        }
    }
}

/// A reason to stop before the pipeline runs.
async fn stopped(signal: &StopSignal, mut draining: watch::Receiver<bool>) -> Stop {
    tokio::select! {
        stop = signal.wait() => stop,
        () = drained(&mut draining) => Stop::Draining,
    }
}

fn picture_error(error: &PictureError) -> JobError {
    let code = match error.code() {
        // The upload was there when the job was accepted: its retention was too short for the queue.
        Code::NotFound => Code::InvalidRequest,
        code => code,
    };
    let message = if code.http_status() < 500 { error.to_string() } else { code.title().to_owned() };
    JobError::new(code, message)
}

/// Tells the queue, and makes sure that it heard, unless the record says that nothing is left to do: then another
/// delivery would only be acknowledged too. If it cannot be reached, the job is delivered once more.
async fn settle(message: &Message, id: JobId, settlement: Settlement) {
    const TRIES: u32 = 3;
    for failures in 1..=TRIES {
        let told = match settlement {
            Settlement::Leave => return,
            Settlement::Ack => message.ack().await,
            Settlement::Terminate => message.double_ack_with(AckKind::Term).await,
            Settlement::Redeliver(wait) | Settlement::PassOn(wait) => {
                message.double_ack_with(AckKind::Nak((!wait.is_zero()).then_some(wait))).await
            }
        };
        let Err(error) = told else { return };
        tracing::debug!(job = %id, ?settlement, %error, "message not settled yet");
        tokio::time::sleep(Backoff::CALL.jittered(failures)).await;
    }
    tracing::warn!(job = %id, ?settlement, "message not settled; it will be delivered again");
}
