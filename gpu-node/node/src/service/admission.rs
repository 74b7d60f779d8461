//! What becomes of a job that the scheduler did not admit.

use std::time::Duration;

use orfeas_protocol::problem::Code;
use orfeas_protocol::view::JobError;

use super::inventory;
use super::job::{Attempt, Settlement};
use super::retry::Backoff;
use super::verdict::Verdict;
use crate::scheduler::AdmitError;
use crate::scheduler::queue::SubmitError;

/// The step of the back-off for which a job that does not fit here stays away: long enough for another node to take
/// it. Its jitter matters: nodes look for redelivered work at intervals of their own, and after an even wait the same
/// node would find it first each time.
const ELSEWHERE_STEP: u32 = 2;

/// What the caller of a job is told that has waited for too long.
pub(super) fn past_deadline() -> JobError {
    JobError::new(Code::DeadlineExceeded, "the job's deadline passed while it waited")
}

/// A settlement where the record stays as it is, else what becomes of the job.
pub(super) async fn not_admitted(attempt: &Attempt, error: AdmitError) -> Result<Settlement, Verdict> {
    match error {
        AdmitError::HandedBack | AdmitError::Refused(SubmitError::Draining) => {
            Ok(Settlement::Redeliver(Duration::ZERO))
        }
        AdmitError::Refused(SubmitError::Full | SubmitError::Duplicate) => {
            Ok(Settlement::Redeliver(Backoff::JOB.jittered(1)))
        }
        AdmitError::NoRoom => {
            tracing::info!(job = %attempt.id, "no room on this device; the job goes back into the queue");
            Ok(Settlement::Redeliver(Backoff::JOB.jittered(2)))
        }
        AdmitError::Expired => {
            Err(Verdict::Fail(past_deadline()))
        }
        AdmitError::NeverFits { needed_bytes, ceiling_bytes } => {
            let channel = attempt.stored.record.job.channel;
            match inventory::fits_elsewhere(&attempt.node, channel, needed_bytes).await {
                // Who is not heard of may be there; a heartbeat later we know.
                Ok(true) | Err(_) => Ok(Settlement::Redeliver(Backoff::JOB.jittered(ELSEWHERE_STEP))),
                Ok(false) => {
                    tracing::warn!(job = %attempt.id, needed_bytes, ceiling_bytes, "no node of the region is large enough");
                    let message = "the job needs more device memory than any node of the region has";
                    Err(Verdict::Fail(JobError::new(Code::GpuMemoryInsufficient, message)))
                }
            }
        }
    }
}
