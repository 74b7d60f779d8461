//! What the node's scheduler shows to callers and to other nodes.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{Caller, Node, Server, body, longest_but_one, picture, until};

#[tokio::test]
async fn a_node_that_has_nothing_to_do_gets_half_of_what_waits_elsewhere() {
    let server = Server::start().await;
    let busy = Node::start(&server, "").await;
    let caller = Caller::of(&server).await;
    let first = caller.submit(json!({"model": "gated", "seed": 1})).await;
    busy.script.wait_for_runs(1).await;
    let mut waiting = Vec::new();
    for seed in 2..8 {
        waiting.push(caller.submit(json!({ "seed": seed })).await);
    }
    caller.waiting(6).await;
    let idle = Node::start(&server, "node_id = \"idle\"").await;
    // The first node is held up by its gated job: whatever ends now has ended on the second.
    idle.script.wait_for_runs(3).await;
    assert_eq!(busy.script.runs(), 1);
    busy.script.gate.send_replace(true);
    for id in waiting.iter().chain([&first]) {
        let job = caller.job_ended(id).await;
        assert_eq!((&job["status"], &job["attempt"]), (&json!("completed"), &json!(1)), "{job}");
    }
    assert_eq!(busy.script.runs() + idle.script.runs(), 7, "none ran twice");
    caller.queue_is_empty().await;
}

#[tokio::test]
async fn a_job_that_no_node_can_hold_fails_and_who_waits_for_it_is_told_at_once() {
    let server = Server::start().await;
    let node = Node::start(&server, "[memory]\nbudget = \"1GiB\"").await;
    let caller = Caller::of(&server).await;
    let refused = caller.ask("generate", Some(json!({"model": "huge"})), picture(0)).await;
    let problem = body(&refused);
    assert_eq!(
        (&problem["code"], &problem["status"]),
        (&json!("gpu_memory_insufficient"), &json!(503)),
        "{problem}"
    );
    assert!(problem["retry_after_seconds"].as_u64().is_some());
    assert_eq!(node.script.runs(), 0);
    caller.queue_is_empty().await;
}

#[tokio::test]
async fn a_job_that_is_too_large_for_one_node_runs_on_another() {
    let server = Server::start().await;
    let small = Node::start(&server, "[memory]\nbudget = \"1GiB\"").await;
    let large = Node::start(&server, "node_id = \"large\"").await;
    let caller = Caller::of(&server).await;
    until("both nodes are known", async || {
        let nodes = caller.jetstream.get_key_value("orfeas_nodes_local").await.ok()?;
        (nodes.get("large").await.ok()??.len() > 1).then_some(())
    })
    .await;
    // Whichever node meets a job first: a hand-over takes no back-off.
    let mut times = Vec::new();
    for _ in 0..5 {
        let submitted = Instant::now();
        let id = caller.submit(json!({"model": "huge"})).await;
        let job = caller.job_ended(&id).await;
        assert_eq!((&job["status"], &job["node"]), (&json!("completed"), &json!("large")), "{job}");
        times.push(submitted.elapsed());
    }
    assert!(longest_but_one(&times) < Duration::from_secs(3), "{times:?}");
    assert_eq!((small.script.runs(), large.script.runs()), (0, 5));
}

/// A job that runs until the gate opens. One that a slow machine begins too late for its deadline is followed by another.
async fn running_in_time(caller: &Caller) -> String {
    until("a job runs before its deadline", async || {
        let id = caller.submit(json!({"model": "gated"})).await;
        let job = caller.job_when(&id, "the job runs or has failed", |job| job["status"] != "queued").await;
        (job["status"] == "processing").then_some(id)
    })
    .await
}

#[tokio::test]
async fn a_job_that_waits_beyond_its_deadline_fails_and_one_that_runs_goes_on() {
    let server = Server::start().await;
    let node = Node::start(&server, "[work]\njob_deadline = \"1s\"").await;
    let caller = Caller::of(&server).await;
    let running = running_in_time(&caller).await;
    let waiting = caller.submit(json!({"seed": 2})).await;
    let job = caller.job_ended(&waiting).await;
    assert_eq!((&job["status"], &job["attempt"]), (&json!("failed"), &json!(0)), "{job}");
    assert_eq!(
        (&job["error"]["code"], &job["error"]["retryable"]),
        (&json!("deadline_exceeded"), &json!(true))
    );
    node.script.gate.send_replace(true);
    assert_eq!(caller.job_ended(&running).await["status"], "completed");
    caller.queue_is_empty().await;
    assert_eq!(node.script.runs(), 1);
}

#[tokio::test]
async fn a_job_that_no_node_has_taken_by_its_deadline_fails_too() {
    let server = Server::start().await;
    let node = Node::start(&server, "[work]\njob_deadline = \"1s\"\nlook_ahead = 1").await;
    let caller = Caller::of(&server).await;
    let running = running_in_time(&caller).await;
    let waiting = caller.submit(json!({"seed": 2})).await;
    assert_eq!(caller.job_ended(&waiting).await["error"]["code"], "deadline_exceeded");
    caller.held(5, 1).await;
    node.script.gate.send_replace(true);
    assert_eq!(caller.job_ended(&running).await["status"], "completed");
    caller.queue_is_empty().await;
    assert_eq!(node.script.runs(), 1);
}
