use proptest::prelude::*;

use super::*;
use crate::ids::Sha256Digest;
use crate::problem::Code;
use crate::view::Bounds;

fn record() -> JobRecord {
    let new = NewJob {
        id: JobId::new(Timestamp::from_unix_ms(1_000), [7; 10]),
        job_type: JobType::Generation3d,
        tenant: TenantId::anonymous(),
        region: Region::default(),
        channel: Channel::Stable,
        options: JobOptions::default(),
        input: InputImage {
            sha256: Sha256Digest::of("picture"),
            format: "png".to_owned(),
            width: 64,
            height: 64,
            bytes: 7,
        },
        request_id: None,
        traceparent: None,
    };
    JobRecord::new(new, Timestamp::from_unix_ms(1_000))
}

fn result() -> JobResult {
    JobResult {
        url: "/api/job/x/result".to_owned(),
        media_type: "model/gltf-binary".to_owned(),
        bytes: 1,
        sha256: Sha256Digest::of("mesh"),
        vertices: 4,
        faces: 4,
        watertight: true,
        bounds: Bounds { min: [0.0; 3], max: [1.0; 3] },
    }
}

#[derive(Debug, Clone)]
enum Step {
    Start,
    Advance(u8),
    Recover,
    ForeseeWait,
    ForeseeEnd,
    Requeue,
    Complete,
    Fail,
    RequestCancel,
    Cancelled,
}

impl Step {
    fn apply(&self, record: &mut JobRecord, now: Timestamp) -> Result<(), IllegalTransition> {
        match self {
            Step::Start => record.start("node-1".parse().unwrap(), now),
            Step::Advance(percent) => record.advance("shape", *percent),
            Step::Recover => {
                record.recover(Recovery { strategy: "empty_cache".into(), reason: "out_of_memory".into() })
            }
            Step::ForeseeWait => record.foresee_wait(3, Some(estimate(9.0, 1)), 0),
            Step::ForeseeEnd => record.foresee_end(estimate(9.0, 1).told),
            Step::Requeue => record.requeue(),
            Step::Complete => record.complete(result(), now),
            Step::Fail => record.fail(JobError::new(Code::Internal, "no"), now),
            Step::RequestCancel => record.request_cancel(now).map(drop),
            Step::Cancelled => record.cancelled(now),
        }
    }

    /// Where the step leads, if it is legal: the state machine, written down a second time and independently.
    fn leads_to(&self, from: JobStatus) -> Option<JobStatus> {
        use JobStatus::{Cancelled, Completed, Failed, Processing, Queued};
        match (self, from) {
            (Step::Start, Queued | Processing) => Some(Processing),
            (Step::Fail, Queued | Processing) => Some(Failed),
            (Step::RequestCancel, Queued) => Some(Cancelled),
            (Step::RequestCancel, Processing) => Some(Processing),
            (Step::ForeseeWait, Queued) => Some(Queued),
            (Step::Advance(_) | Step::Recover | Step::ForeseeEnd, Processing) => Some(Processing),
            (Step::Requeue, Processing) => Some(Queued),
            (Step::Complete, Processing) => Some(Completed),
            (Step::Cancelled, Processing) => Some(Cancelled),
            _ => None,
        }
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => Just(Step::Start),
        6 => any::<u8>().prop_map(Step::Advance),
        1 => Just(Step::Recover),
        1 => Just(Step::ForeseeWait),
        1 => Just(Step::ForeseeEnd),
        2 => Just(Step::Requeue),
        1 => Just(Step::Complete),
        1 => Just(Step::Fail),
        1 => Just(Step::RequestCancel),
        1 => Just(Step::Cancelled),
    ];
    prop::collection::vec(step, 0..30)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn only_legal_steps_change_the_record_and_progress_never_falls(steps in steps()) {
        let mut record = record();
        for (tick, step) in steps.iter().enumerate() {
            let before = record.clone();
            let outcome = step.apply(&mut record, Timestamp::from_unix_ms(2_000 + tick as u64));
            let expected = step.leads_to(before.job.status);
            let reached = outcome.ok().map(|()| record.job.status);
            prop_assert_eq!(reached, expected, "{:?} of a job that is {:?}", step, before.job.status);
            if expected.is_none() {
                prop_assert_eq!(&record, &before);
            }
            let job = &record.job;
            prop_assert!(job.progress >= before.job.progress);
            prop_assert_eq!(job.progress == 100, job.status == JobStatus::Completed);
            prop_assert_eq!(job.result.is_some(), job.status == JobStatus::Completed);
            prop_assert_eq!(job.error.is_some(), job.status == JobStatus::Failed);
            prop_assert_eq!(job.completed_at.is_some(), job.status.is_terminal());
            prop_assert!(job.started_at >= before.job.started_at);
        }
        let json = serde_json::to_string(&record).unwrap();
        prop_assert_eq!(serde_json::from_str::<JobRecord>(&json).unwrap(), record);
    }
}

#[test]
fn cancelling_a_queued_job_ends_it_and_a_running_one_is_asked() {
    let now = Timestamp::from_unix_ms(5_000);
    let mut queued = record();
    assert_eq!(queued.request_cancel(now), Ok(CancelOutcome::Cancelled));
    assert!(queued.start("n".parse().unwrap(), now).is_err());

    let mut running = record();
    running.start("n".parse().unwrap(), now).unwrap();
    assert_eq!(running.request_cancel(now), Ok(CancelOutcome::Requested));
    assert!(running.is_cancel_requested());
    running.cancelled(now).unwrap();
    assert_eq!(running.job.status, JobStatus::Cancelled);
}

#[test]
fn the_job_object_has_every_field_of_the_contract_and_no_other() {
    let json = serde_json::to_value(record().job).unwrap();
    let mut names: Vec<_> = json.as_object().unwrap().keys().map(String::as_str).collect();
    names.sort_unstable();
    let expected = "attempt channel completed_at created_at error eta_p90_seconds eta_seconds id input links model \
                    node priority progress queue_position recoveries region result stage started_at status type";
    assert_eq!(names.join(" "), expected);
}

#[test]
fn only_a_failed_job_is_retried_and_as_a_new_job_with_a_fresh_budget() {
    let later = Timestamp::from_unix_ms(9_000);
    let id = JobId::new(later, [8; 10]);
    let mut old = record();
    assert!(old.retried(id, later).is_err(), "it waits");
    old.start("node-1".parse().unwrap(), Timestamp::from_unix_ms(2_000)).unwrap();
    assert!(old.retried(id, later).is_err(), "it runs");
    old.fail(JobError::new(Code::Internal, "no"), Timestamp::from_unix_ms(3_000)).unwrap();
    let new = old.retried(id, later).unwrap();
    assert_eq!((new.job.id, new.retry_of), (id, Some(old.job.id)));
    assert_eq!((new.job.status, new.job.attempt, &new.job.error), (JobStatus::Queued, 0, &None));
    assert_eq!((&new.options, &new.job.input, new.job.created_at), (&old.options, &old.job.input, later));
    assert_eq!(old.job.status, JobStatus::Failed);
}

fn estimate(p50_seconds: f64, at: u64) -> WaitingEstimate {
    let told = Eta { p50_seconds, p90_seconds: 2.0 * p50_seconds };
    WaitingEstimate { at: Timestamp::from_unix_ms(at), told, raw: told, count: 1 }
}

#[test]
fn a_waiting_job_is_told_its_place_and_time_until_it_starts_or_ends() {
    let mut record = record();
    record.foresee_wait(4, None, 0).unwrap();
    assert_eq!((record.job.queue_position, record.job.eta_seconds), (Some(4), None));
    record.foresee_wait(3, Some(estimate(1.23456, 10)), 0).unwrap();
    assert_eq!((record.job.eta_seconds, record.job.eta_p90_seconds), (Some(1.235), Some(2.469)));
    assert!(record.foresee_end(estimate(1.0, 0).told).is_err(), "it waits");
    record.start("node-1".parse().unwrap(), Timestamp::from_unix_ms(2_000)).unwrap();
    assert!(record.foresee_wait(0, None, 0).is_err(), "it runs");
    record.foresee_end(Eta { p50_seconds: -1.0, p90_seconds: f64::NAN }).unwrap();
    assert_eq!((record.job.eta_seconds, record.job.eta_p90_seconds), (Some(0.0), Some(0.0)));
    record.cancelled(Timestamp::from_unix_ms(3_000)).unwrap();
    assert_eq!((record.job.eta_seconds, record.job.queue_position), (None, None));
}

#[test]
fn each_estimate_of_a_waiting_job_has_the_same_chance_to_be_kept() {
    let mut kept = [0; 4];
    // With four estimates told, 1/4 each: over all draws modulo 2, 3 and 4 that is exact.
    for draws in 0..24_u64 {
        let mut record = record();
        for told in 0..4 {
            let draw = [0, draws % 2, draws / 2 % 3, draws / 6 % 4][told];
            record.foresee_wait(0, Some(estimate(1.0, told as u64)), draw).unwrap();
        }
        let estimate = record.waiting_estimate.unwrap();
        assert_eq!(estimate.count, 4);
        kept[estimate.at.unix_ms() as usize] += 1;
    }
    assert_eq!(kept, [6; 4]);
}
