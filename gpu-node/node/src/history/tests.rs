use orfeas_protocol::preset::Preset;
use orfeas_protocol::{Channel, JobId, JobStatus};

use super::*;

/// A job that went well: 2.2 seconds in all its stages.
pub(super) fn outcome() -> Outcome {
    let seconds = [
        ("decode", 0.1),
        ("background", 0.4),
        ("shape", 1.0),
        ("surface", 0.1),
        ("cleanup", 0.1),
        ("simplify", 0.2),
        ("texture", 0.2),
        ("export", 0.1),
    ];
    Outcome {
        job: JobId::new(Timestamp::from_unix_ms(1_000), [7; 10]),
        tenant: "a".parse().unwrap(),
        node: "n".parse().unwrap(),
        channel: Channel::Stable,
        priority: 5,
        family: "silhouette".to_owned(),
        version: "1".to_owned(),
        preset: Preset::Balanced,
        quality_requested: Some(7),
        quality: 7,
        texture: true,
        traits: ImageTraits {
            size: SizeClass::Medium,
            aspect: 1.0,
            has_alpha: Some(false),
            format: "jpeg".to_owned(),
        },
        stages: seconds.map(|(stage, seconds)| (stage.to_owned(), seconds)).to_vec(),
        run_seconds: 2.2,
        queue_wait_seconds: 0.1,
        result_bytes: Some(1_000_000),
        recoveries: 0,
        attempts: 1,
        status: JobStatus::Completed,
        created_at: Timestamp::from_unix_ms(1_000),
        ended_at: Timestamp::from_unix_ms(4_000),
        estimates: Vec::new(),
    }
}

fn waiting(history: &History, ahead: &[JobAhead], servers: usize) -> f64 {
    history.waiting(&outcome().kind(), ahead, servers).unwrap().told.p50_seconds
}

#[test]
fn a_waiting_job_is_told_the_time_of_those_ahead_and_its_own() {
    let history = History::default();
    assert_eq!(history.waiting(&outcome().kind(), &[], 1), None);
    for _ in 0..5 {
        history.learn(&outcome());
    }
    let ahead = |position| JobAhead { kind: outcome().kind().into(), position, seen_seconds_ago: 0.0 };
    let close =
        |seconds: f64, expected: f64| assert!((seconds - expected).abs() < 1e-3, "{seconds} {expected}");
    close(waiting(&history, &[], 1), 2.2);
    close(waiting(&history, &[ahead(None), ahead(None)], 1), 3.0 * 2.2);
    let exporting = Position { stage: crate::pipeline::Stage::Export, within: 0.0, stage_seconds: None };
    close(waiting(&history, &[ahead(Some(exporting))], 1), 2.3);
    close(waiting(&history, &[ahead(Some(exporting))], 2), 2.2);
    let later = JobAhead { seen_seconds_ago: 0.04, ..ahead(Some(exporting)) };
    close(waiting(&history, &[later], 1), 2.26);
    let unknown = RunKind { family: "new".to_owned(), ..outcome().kind() };
    let unknown = JobAhead { kind: unknown.into(), ..ahead(None) };
    close(waiting(&history, &[unknown], 1), 4.4);
}

#[test]
fn recovered_failed_and_cancelled_jobs_teach_no_times() {
    let history = History::default();
    history.learn(&Outcome { recoveries: 1, ..outcome() });
    history.learn(&Outcome { status: JobStatus::Failed, ..outcome() });
    history.learn(&Outcome { status: JobStatus::Cancelled, ..outcome() });
    assert_eq!(history.waiting(&outcome().kind(), &[], 1), None);
    assert_eq!(history.weights(&outcome().kind()), StageWeights::default());
}

#[test]
fn weights_are_the_measured_parts_of_the_time() {
    let history = History::default();
    history.learn(&outcome());
    let weights = history.weights(&outcome().kind());
    assert!((weights.share(crate::pipeline::Stage::Shape) - 1.0 / 2.2).abs() < 1e-4);
}

#[test]
fn an_outcome_of_a_later_version_is_still_read() {
    let mut json = serde_json::to_value(outcome()).unwrap();
    json["something_new"] = serde_json::json!(1);
    json.as_object_mut().unwrap().remove("estimates");
    assert_eq!(serde_json::from_value::<Outcome>(json).unwrap(), outcome());
}
