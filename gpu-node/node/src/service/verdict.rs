//! What becomes of a job after a run, as a plain decision.

use std::time::Duration;

use orfeas_protocol::problem::Code;
use orfeas_protocol::view::JobError;

use super::progress::Stop;
use super::retry::Backoff;
use crate::pipeline::{Generated, PipelineError};
use crate::recovery::FailureClass;

/// What becomes of a job.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// Its result is stored.
    Store(Box<Generated>),
    /// It is cancelled, as its caller wished.
    Cancel,
    /// It goes back into the queue, for another node.
    GiveBack,
    /// It goes back into the queue, for later.
    Retry { error: JobError, wait: Duration },
    /// It fails: another run would end the same way.
    Fail(JobError),
    /// It fails after its last try; the dead-letter stream keeps it.
    GiveUp(JobError),
    /// Somebody else has ended it, or has it.
    Forget,
}

/// How the last try of a run ended.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: PipelineError,
    pub(crate) class: FailureClass,
    /// The request forbids what lowers the quality.
    exact: bool,
}

impl Failure {
    pub(crate) fn new(error: PipelineError, exact: bool) -> Self {
        Self { class: FailureClass::of(&error), error, exact }
    }
}

/// Decides after a run. `attempt` counts the starts so far, this one included.
pub(crate) fn judge(
    outcome: Result<Generated, Failure>,
    stop: Option<Stop>,
    attempt: u32,
    attempts_max: u32,
) -> Verdict {
    match (outcome, stop) {
        (_, Some(Stop::Lost)) => Verdict::Forget,
        (_, Some(Stop::Cancelled)) => Verdict::Cancel,
        (Ok(generated), _) => Verdict::Store(Box::new(generated)),
        (Err(Failure { error: PipelineError::Cancelled, .. }), Some(Stop::Draining)) => Verdict::GiveBack,
        (Err(failure), _) => after_run(&failure, attempt, attempts_max),
    }
}

/// Decides after a run that the recovery ladder could not save.
fn after_run(failure: &Failure, attempt: u32, attempts_max: u32) -> Verdict {
    let error = job_error(&failure.error);
    match failure.class {
        // Nothing is wrong with the job as far as we know; its starts are counted in case there is.
        FailureClass::DeviceLost if attempt < attempts_max => Verdict::GiveBack,
        FailureClass::BadInput | FailureClass::WeightsMissing => Verdict::Fail(error),
        // What would have helped was a lower quality, and the caller does not want that anywhere.
        FailureClass::OutOfMemory if failure.exact => Verdict::GiveUp(error),
        class if !class.may_succeed_elsewhere() => Verdict::GiveUp(error),
        _ => after_failure(error, attempt, attempts_max),
    }
}

/// Decides after a failure that a node has seen.
pub(crate) fn after_failure(error: JobError, attempt: u32, attempts_max: u32) -> Verdict {
    if !error.retryable {
        Verdict::Fail(error)
    } else if attempt < attempts_max {
        Verdict::Retry { error, wait: Backoff::JOB.jittered(attempt) }
    } else {
        Verdict::GiveUp(error)
    }
}

/// Decides before a run whether there is to be one: a job that has used up its starts took its nodes down.
pub(crate) fn before_start(attempts_so_far: u32, attempts_max: u32) -> Option<JobError> {
    (attempts_so_far >= attempts_max).then(|| {
        let message = format!("the job was given up after {attempts_so_far} starts without an end");
        JobError::new(Code::Internal, message)
    })
}

/// What callers are told. Texts from libraries stay in the log.
fn job_error(error: &PipelineError) -> JobError {
    let code = error.code();
    let message = match error {
        PipelineError::NoSubject | PipelineError::NotSupported(_) | PipelineError::WeightsMissing(_) => {
            error.to_string()
        }
        _ => code.title().to_owned(),
    };
    JobError::new(code, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: u32 = 5;

    fn failed(error: PipelineError, stop: Option<Stop>, attempt: u32) -> Verdict {
        judge(Err(Failure::new(error, false)), stop, attempt, MAX)
    }

    #[test]
    fn a_bad_picture_fails_at_once() {
        let verdict = failed(PipelineError::NoSubject, None, 1);
        assert!(matches!(verdict, Verdict::Fail(error) if error.code == Code::NoSubject));
    }

    #[test]
    fn a_defect_is_tried_again_until_the_last_start_and_then_given_up() {
        let panicked = || PipelineError::Panicked { stage: "shape", message: "secret".to_owned() };
        for attempt in 1..MAX {
            assert!(matches!(failed(panicked(), None, attempt), Verdict::Retry { .. }), "{attempt}");
        }
        match failed(panicked(), None, MAX) {
            Verdict::GiveUp(error) => assert!(!error.message.contains("secret"), "{}", error.message),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_reason_of_the_stop_decides_what_a_stopped_job_becomes() {
        assert!(matches!(failed(PipelineError::Cancelled, Some(Stop::Cancelled), 1), Verdict::Cancel));
        assert!(matches!(failed(PipelineError::Cancelled, Some(Stop::Draining), 1), Verdict::GiveBack));
        assert!(matches!(failed(PipelineError::Cancelled, Some(Stop::Lost), 1), Verdict::Forget));
        assert!(matches!(failed(PipelineError::Cancelled, None, 1), Verdict::Retry { .. }), "nobody asked");
    }

    #[test]
    fn a_job_that_has_used_up_its_starts_is_not_started_again() {
        assert!(before_start(MAX - 1, MAX).is_none());
        assert_eq!(before_start(MAX, MAX).map(|error| error.code), Some(Code::Internal));
    }

    #[test]
    fn a_job_of_a_node_that_has_to_go_is_given_back_until_its_last_start() {
        let lost = || PipelineError::DeviceLost("illegal memory access".to_owned());
        assert!(matches!(failed(lost(), None, 1), Verdict::GiveBack));
        assert!(matches!(failed(PipelineError::Stopped, None, 1), Verdict::GiveBack));
        assert!(matches!(failed(lost(), None, MAX), Verdict::GiveUp(_)), "it may be the job that does it");
    }

    #[test]
    fn a_run_over_its_time_is_not_started_again() {
        let late = PipelineError::TimedOut { limit: Duration::from_secs(600) };
        let verdict = failed(late, None, 1);
        assert!(matches!(verdict, Verdict::GiveUp(error) if error.code == Code::DeadlineExceeded));
    }

    #[test]
    fn too_little_memory_is_tried_elsewhere_unless_the_request_is_exact() {
        let full = || PipelineError::OutOfMemory("x".to_owned());
        assert!(matches!(failed(full(), None, 1), Verdict::Retry { .. }));
        match judge(Err(Failure::new(full(), true)), None, 1, MAX) {
            Verdict::GiveUp(error) => assert_eq!(error.code, Code::GpuMemoryInsufficient),
            other => panic!("{other:?}"),
        }
    }
}
