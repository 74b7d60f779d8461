//! How the program ends when only another process can go on, and what its supervisor's next one makes of the job.

use std::fs;

use serde_json::json;

use crate::harness::{Caller, Program, Server};

/// Nothing but a job that was given back is run again within a test.
const ARGUMENTS: [&str; 2] = ["--ack-wait", "5m"];
/// For the program that gets stuck alone: a thread that a busy machine leaves waiting would count as stuck too.
const IMPATIENT: [&str; 4] = ["--ack-wait", "5m", "--stall-limit", "300ms"];

async fn check(fault: &str, exit_code: i32, arguments: &[&str]) {
    let server = Server::start().await;
    let models = tempfile::tempdir().unwrap();
    let mut first = Program::serve(&server, models.path(), arguments);
    let caller = Caller::of(&server).await;
    caller.node_serves().await;
    fs::create_dir(models.path().join("noop")).unwrap();
    fs::write(models.path().join("noop/fault"), fault).unwrap();
    let id = caller.submit(json!({"model": "noop"})).await;
    assert_eq!(first.ended().await, Some(exit_code));
    let _second = Program::serve(&server, models.path(), &ARGUMENTS);
    caller.node_serves().await;
    let job = caller.job_ended(&id).await;
    assert_eq!((&job["status"], &job["attempt"]), (&json!("completed"), &json!(2)), "{job}");
    caller.queue_is_empty().await;
}

#[tokio::test]
async fn a_lost_device_ends_the_program_with_81_and_the_next_one_does_the_job() {
    check("device_lost", 81, &ARGUMENTS).await;
}

#[tokio::test]
async fn an_ended_inference_thread_ends_the_program_with_82_and_the_next_one_does_the_job() {
    check("inference_stopped", 82, &ARGUMENTS).await;
}

#[tokio::test]
async fn a_stuck_inference_thread_ends_the_program_with_83_and_the_next_one_does_the_job() {
    check("inference_stuck", 83, &IMPATIENT).await;
}
