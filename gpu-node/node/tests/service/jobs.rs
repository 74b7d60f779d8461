//! The life of a job on a node that is well.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{Caller, Node, Server, body, longest_but_one, picture, until};

#[tokio::test]
async fn a_job_ends_completed_with_its_file_in_the_store_and_its_message_gone() {
    let server = Server::start().await;
    let _node = Node::start(&server, "").await;
    let caller = Caller::of(&server).await;
    let reply = caller.ask("generate", Some(json!({"format": "glb"})), picture(1)).await;
    let job = body(&reply);
    assert_eq!(job["status"], "completed", "{job}");
    assert_eq!((&job["progress"], &job["attempt"]), (&json!(100), &json!(1)));
    assert_eq!(job["model"]["family"], "script");
    let file = caller.result(job["id"].as_str().unwrap()).await.unwrap();
    assert_eq!(file.len() as u64, job["result"]["bytes"].as_u64().unwrap());
    caller.queue_is_empty().await;
}

#[tokio::test]
async fn urgent_jobs_overtake_those_that_wait() {
    let server = Server::start().await;
    let node = Node::start(&server, "").await;
    let caller = Caller::of(&server).await;
    caller.submit(json!({"model": "gated", "seed": 1})).await;
    node.script.wait_for_runs(1).await;
    for (seed, priority) in [(2, 1), (3, 5), (4, 5), (5, 10)] {
        caller.submit(json!({"seed": seed, "priority": priority})).await;
    }
    caller.waiting(4).await;
    node.script.gate.send_replace(true);
    node.script.wait_for_runs(5).await;
    let began = node.script.began.lock().unwrap().clone();
    let position = |seed| began.iter().position(|began| *began == seed).unwrap();
    assert_eq!(position(1), 0);
    assert!(position(5) < position(4), "{began:?}");
    assert!(position(3) < position(2), "{began:?}");
}

#[tokio::test]
async fn a_cancelled_queued_job_never_starts() {
    let server = Server::start().await;
    let node = Node::start(&server, "").await;
    let caller = Caller::of(&server).await;
    let first = caller.submit(json!({"model": "gated", "seed": 1})).await;
    node.script.wait_for_runs(1).await;
    let waiting = caller.submit(json!({"seed": 2})).await;
    assert_eq!(caller.cancel(&waiting).await["status"], "cancelled");
    node.script.gate.send_replace(true);
    assert_eq!(caller.job_ended(&first).await["status"], "completed");
    caller.queue_is_empty().await;
    assert_eq!(*node.script.began.lock().unwrap(), [1]);
    assert_eq!(caller.job(&waiting).await["attempt"], 0);
}

#[tokio::test]
async fn a_cancelled_running_job_stops_at_its_next_step() {
    let server = Server::start().await;
    let node = Node::start(&server, "").await;
    let caller = Caller::of(&server).await;
    let mut times = Vec::new();
    for runs in 1..=3 {
        let id = caller.submit(json!({"model": "gated"})).await;
        node.script.wait_for_runs(runs).await;
        let asked = Instant::now();
        caller.cancel(&id).await;
        assert_eq!(caller.job_ended(&id).await["status"], "cancelled");
        // Only the end of the run gives its message back.
        caller.queue_is_empty().await;
        times.push(asked.elapsed());
        assert_eq!(caller.result(&id).await, None);
    }
    assert!(longest_but_one(&times) < Duration::from_secs(1), "{times:?}");
}

#[tokio::test]
async fn a_picture_without_a_subject_fails_at_once_and_is_not_tried_again() {
    let server = Server::start().await;
    let node = Node::start(&server, "").await;
    let caller = Caller::of(&server).await;
    let id = caller.submit(json!({"model": "no-subject"})).await;
    let job = caller.job_ended(&id).await;
    assert_eq!((&job["status"], &job["error"]["code"]), (&json!("failed"), &json!("no_subject")));
    caller.queue_is_empty().await;
    assert_eq!(node.script.runs(), 1);
    assert_eq!(caller.stream("ORFEAS_DEAD_LOCAL").await.cached_info().state.messages, 0);
}

#[tokio::test]
async fn a_job_that_fails_each_time_is_given_up_with_a_dead_letter() {
    let server = Server::start().await;
    let node = Node::start(&server, "[work]\nattempts_max = 2").await;
    let caller = Caller::of(&server).await;
    let id = caller.submit(json!({"model": "panics"})).await;
    let job = caller.job_ended(&id).await;
    assert_eq!((&job["status"], &job["attempt"]), (&json!("failed"), &json!(2)));
    assert!(!job["error"]["message"].as_str().unwrap().contains("scripted"), "{job}");
    assert_eq!(node.script.runs(), 2);
    caller.queue_is_empty().await;
    let dead = caller.stream("ORFEAS_DEAD_LOCAL").await;
    let letter = dead.get_last_raw_message_by_subject(&format!("orfeas.local.dead.{id}")).await.unwrap();
    let letter: serde_json::Value = serde_json::from_slice(&letter.payload).unwrap();
    assert_eq!((&letter["attempts"], &letter["reason"]["code"]), (&json!(2), &json!("internal")));
}

#[tokio::test]
async fn progress_shows_the_stage_and_metrics_count_the_end() {
    let server = Server::start().await;
    let node = Node::start(&server, "").await;
    let caller = Caller::of(&server).await;
    let id = caller.submit(json!({"model": "gated"})).await;
    let job = caller.job_when(&id, "the stage shows", |job| job["stage"] == "shape").await;
    assert_eq!(
        (&job["status"], &job["progress"], &job["node"]),
        (&json!("processing"), &json!(30), &json!("test"))
    );
    node.script.gate.send_replace(true);
    caller.job_ended(&id).await;
    until("the job is counted", async || {
        let text = node.metrics.exposition().unwrap();
        text.contains("orfeas_jobs_total{type=\"3d_generation\",status=\"completed\"} 1").then_some(())
    })
    .await;
}
