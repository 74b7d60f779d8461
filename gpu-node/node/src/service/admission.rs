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

/// The step of the back-off for a job that does not fit here while the other nodes are not known.
const UNKNOWN_STEP: u32 = 2;
/// So often a job is passed on at once. If it still comes back, the nodes that are large enough have no place for it,
/// and each further round takes longer: deliveries without a start are counted.
const PROMPT_DELIVERIES: i64 = 3;

/// How long a job waits that is passed on after so many deliveries.
fn pass_on_after(deliveries: i64) -> Duration {
    match u32::try_from(deliveries.saturating_sub(PROMPT_DELIVERIES)) {
        Ok(rounds) if rounds > 0 => Backoff::JOB.jittered(rounds),
        _ => Duration::ZERO,
    }
}

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
        AdmitError::Expired => Err(Verdict::Fail(past_deadline())),
        AdmitError::NeverFits { needed_bytes, ceiling_bytes } => {
            let channel = attempt.stored.record.job.channel;
            match inventory::fits_elsewhere(&attempt.node, channel, needed_bytes).await {
                Ok(true) => Ok(Settlement::PassOn(pass_on_after(attempt.deliveries))),
                // Who is not heard of may be there; a heartbeat later we know.
                Err(_) => Ok(Settlement::Redeliver(Backoff::JOB.jittered(UNKNOWN_STEP))),
                Ok(false) => {
                    tracing::warn!(job = %attempt.id, needed_bytes, ceiling_bytes, "no node of the region is large enough");
                    let message = "the job needs more device memory than any node of the region has";
                    Err(Verdict::Fail(JobError::new(Code::GpuMemoryInsufficient, message)))
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_passed_on_at_once_at_first_and_more_slowly_when_it_keeps_coming_back() {
        for deliveries in 0..=PROMPT_DELIVERIES {
            assert_eq!(pass_on_after(deliveries), Duration::ZERO, "{deliveries}");
        }
        assert!(pass_on_after(PROMPT_DELIVERIES + 1) >= Duration::from_millis(500));
        assert!(pass_on_after(50) >= Duration::from_secs(30));
    }
}
