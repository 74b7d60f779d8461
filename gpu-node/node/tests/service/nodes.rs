//! What operators tell nodes.

use serde_json::{Value, json};

use crate::harness::{Caller, Node, Server, body, until};

async fn tell(caller: &Caller, verb: &str, command: Value) -> Value {
    body(&caller.ask(&format!("nodes.{verb}"), None, command.to_string().into_bytes()).await)
}

/// Waits until the region's figures say how a node stands.
async fn shows(caller: &Caller, node: &str, state: &str) {
    until("the figures tell the state", async || {
        let gpu = body(&caller.ask("gpu", None, Vec::new()).await);
        let nodes = gpu["nodes"].as_array()?;
        let found = nodes.iter().find(|found| found["node"] == node)?;
        (found["state"] == state).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_paused_node_finishes_what_runs_and_starts_nothing_until_it_is_resumed() {
    let server = Server::start().await;
    let node = Node::start(&server, "").await;
    let caller = Caller::of(&server).await;
    let running = caller.submit(json!({"model": "gated", "seed": 1})).await;
    node.script.wait_for_runs(1).await;
    let waiting = caller.submit(json!({"seed": 2})).await;
    caller.waiting(1).await;
    let paused = tell(&caller, "pause", json!({})).await;
    let stands = (&paused["state"], &paused["changed"], &paused["jobs_running"], &paused["jobs_waiting"]);
    assert_eq!(stands, (&json!("paused"), &json!(true), &json!(1), &json!(1)), "{paused}");
    assert!(node.readiness().obstacle().is_some_and(|obstacle| obstacle.contains("paused")));
    shows(&caller, "test", "paused").await;
    let late = caller.submit(json!({"seed": 3})).await;
    node.script.gate.send_replace(true);
    assert_eq!(caller.job_ended(&running).await["status"], "completed");
    // What it had waits on it, what came later waits in the queue.
    for id in [&waiting, &late] {
        assert_eq!(caller.job(id).await["status"], "queued");
    }
    caller.held(5, 1).await;
    assert_eq!(node.script.runs(), 1);
    assert_eq!(tell(&caller, "resume", json!({"node": "test"})).await["state"], "ready");
    for id in [&waiting, &late] {
        let job = caller.job_ended(id).await;
        assert_eq!((&job["status"], &job["attempt"]), (&json!("completed"), &json!(1)), "{job}");
    }
    assert_eq!(node.readiness().obstacle(), None);
    shows(&caller, "test", "ready").await;
}

#[tokio::test]
async fn a_drained_node_hands_back_what_waits_and_another_takes_it() {
    let server = Server::start().await;
    let node = Node::start(&server, "").await;
    let caller = Caller::of(&server).await;
    let running = caller.submit(json!({"model": "gated", "seed": 1})).await;
    node.script.wait_for_runs(1).await;
    let waiting = [caller.submit(json!({"seed": 2})).await, caller.submit(json!({"seed": 3})).await];
    caller.waiting(2).await;
    let drained = tell(&caller, "drain", json!({"node": "test"})).await;
    assert_eq!(
        (&drained["state"], &drained["jobs_handed_back"]),
        (&json!("draining"), &json!(2)),
        "{drained}"
    );
    // The first node's gate is still shut: whatever ends now has run on the second.
    let other = Node::start(&server, "node_id = \"other\"").await;
    for id in &waiting {
        let job = caller.job_ended(id).await;
        assert_eq!((&job["status"], &job["node"]), (&json!("completed"), &json!("other")), "{job}");
    }
    node.script.gate.send_replace(true);
    assert_eq!(caller.job_ended(&running).await["node"], "test");
    until("nothing runs there", async || {
        (tell(&caller, "drain", json!({"node": "test"})).await["state"] == "drained").then_some(())
    })
    .await;
    assert_eq!((node.script.runs(), other.script.runs()), (1, 2));
    // Resumed, it takes jobs again.
    assert_eq!(tell(&caller, "pause", json!({"node": "other"})).await["state"], "paused");
    assert_eq!(tell(&caller, "resume", json!({"node": "test"})).await["changed"], true);
    let id = caller.submit(json!({"seed": 4})).await;
    assert_eq!(caller.job_ended(&id).await["node"], "test");
}

#[tokio::test]
async fn a_command_that_makes_no_sense_is_a_problem_and_one_for_another_node_is_nothing() {
    let server = Server::start().await;
    let node = Node::start(&server, "").await;
    let caller = Caller::of(&server).await;
    let elsewhere = json!({"node": "another"}).to_string();
    caller.client.publish("orfeas.local.nodes.pause", elsewhere.into()).await.unwrap();
    let refused = tell(&caller, "pause", json!({"family": "ok"})).await;
    assert_eq!(
        (&refused["code"], &refused["node"]),
        (&json!("invalid_request"), &json!("test")),
        "{refused}"
    );
    assert_eq!(node.readiness().obstacle(), None);
}
