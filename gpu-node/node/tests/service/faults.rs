//! What is left when a node or the server dies.

use std::time::Duration;

use orfeas_protocol::{JobId, JobRecord, Sha256Digest, Timestamp};
use serde_json::json;

use crate::harness::{Caller, Node, Server, body, until};

const IMPATIENT: &str = "[work]\nack_wait = \"1s\"";

/// A caller, and its job that was running on a node when that was killed.
async fn job_of_a_dead_node(server: &Server) -> (Caller, String) {
    let node = Node::start(server, IMPATIENT).await;
    let caller = Caller::of(server).await;
    let id = caller.submit(json!({"model": "gated"})).await;
    caller.job_when(&id, "the job runs", |job| job["status"] == "processing").await;
    node.kill();
    (caller, id)
}

#[tokio::test]
async fn a_job_whose_node_dies_is_started_again_by_the_next_with_one_result() {
    let server = Server::start().await;
    let (caller, id) = job_of_a_dead_node(&server).await;
    let node = Node::start(&server, IMPATIENT).await;
    node.script.gate.send_replace(true);
    let job = caller.job_ended(&id).await;
    assert_eq!((&job["status"], &job["attempt"]), (&json!("completed"), &json!(2)), "{job}");
    caller.queue_is_empty().await;
    assert_eq!(node.script.runs(), 1);
    assert!(caller.result(&id).await.is_some());
}

#[tokio::test]
async fn a_job_that_another_version_takes_over_is_made_by_that_version_alone_and_says_so() {
    let server = Server::start().await;
    let node = Node::start_with_models(&server, IMPATIENT, "old").await;
    let caller = Caller::of(&server).await;
    let id = caller.submit(json!({"model": "gated"})).await;
    let job = caller.job_when(&id, "the version shows", |job| !job["model"]["version"].is_null()).await;
    assert_eq!(job["model"]["version"], "old", "{job}");
    node.kill();
    let node = Node::start_with_models(&server, IMPATIENT, "new").await;
    let begun = caller.job_when(&id, "it runs again", |job| job["model"]["version"] == "new").await;
    assert_eq!((&begun["status"], &begun["attempt"]), (&json!("processing"), &json!(2)), "{begun}");
    node.script.gate.send_replace(true);
    let job = caller.job_ended(&id).await;
    assert_eq!((&job["status"], &job["model"]["version"]), (&json!("completed"), &json!("new")), "{job}");
    let file = caller.result(&id).await.unwrap();
    assert!(file.starts_with(b"glTFnew"), "{:?}", &file[..8]);
    assert_eq!(job["result"]["sha256"], Sha256Digest::of(&file).to_string());
}

#[tokio::test]
async fn a_result_that_a_dead_node_has_stored_is_removed_if_the_job_is_cancelled_then() {
    let server = Server::start().await;
    let (caller, id) = job_of_a_dead_node(&server).await;
    // As if it had come one step further.
    let results = caller.jetstream.get_object_store("orfeas_results_local").await.unwrap();
    results.put(id.as_str(), &mut b"glTF".as_slice()).await.unwrap();
    assert!(caller.result(&id).await.is_some());
    let _node = Node::start(&server, IMPATIENT).await;
    caller.cancel(&id).await;
    let job = caller.job_ended(&id).await;
    assert_eq!(job["status"], "cancelled", "{job}");
    caller.queue_is_empty().await;
    assert_eq!(caller.result(&id).await, None);
}

#[tokio::test]
async fn a_job_that_takes_its_nodes_down_is_given_up() {
    let server = Server::start().await;
    let settings = format!("{IMPATIENT}\nattempts_max = 2");
    let caller = {
        let node = Node::start(&server, &settings).await;
        let caller = Caller::of(&server).await;
        let id = caller.submit(json!({"model": "gated"})).await;
        caller.job_when(&id, "the job runs", |job| job["attempt"] == 1).await;
        node.kill();
        let node = Node::start(&server, &settings).await;
        caller.job_when(&id, "the job runs again", |job| job["attempt"] == 2).await;
        node.kill();
        (caller, id)
    };
    let (caller, id) = caller;
    let last = Node::start(&server, &settings).await;
    let job = caller.job_ended(&id).await;
    assert_eq!((&job["status"], &job["attempt"]), (&json!("failed"), &json!(2)));
    assert_eq!(last.script.runs(), 0, "it was not started a third time");
    caller.queue_is_empty().await;
    assert_eq!(caller.stream("ORFEAS_DEAD_LOCAL").await.cached_info().state.messages, 1);
}

#[tokio::test]
async fn a_long_job_is_not_given_to_anybody_else() {
    let server = Server::start().await;
    let node = Node::start(&server, IMPATIENT).await;
    let caller = Caller::of(&server).await;
    let id = caller.submit(json!({"model": "gated"})).await;
    node.script.wait_for_runs(1).await;
    // Three signs of life per ack wait: so many span three ack waits, without any of which the job would be given away.
    caller.signs_of_life(9).await;
    node.script.gate.send_replace(true);
    assert_eq!(caller.job_ended(&id).await["attempt"], 1);
    assert_eq!(node.script.runs(), 1);
}

#[tokio::test]
async fn a_result_is_stored_although_the_server_died_while_it_was_made() {
    let mut server = Server::start().await;
    let node = Node::start(&server, IMPATIENT).await;
    let caller = Caller::of(&server).await;
    let id = caller.submit(json!({"model": "gated"})).await;
    caller.job_when(&id, "the job runs", |job| job["stage"] == "shape").await;
    server.crash_and_restart().await;
    node.script.gate.send_replace(true);
    let caller = Caller::of(&server).await;
    let job = until("the job completes", async || {
        let request = async_nats::Request::new()
            .payload(json!({ "id": id }).to_string().into())
            .timeout(Some(Duration::from_secs(1)));
        let reply = caller.client.send_request("orfeas.local.status", request).await.ok()?;
        (body(&reply)["status"] == "completed").then(|| body(&reply))
    })
    .await;
    assert_eq!(job["attempt"], 1, "{job}");
    assert!(caller.result(&id).await.is_some());
    caller.queue_is_empty().await;
}

#[tokio::test]
async fn a_node_that_stops_puts_back_what_it_cannot_finish() {
    let server = Server::start().await;
    let settings = "[work]\ndrain_limit = \"200ms\"\nack_wait = \"5m\"";
    let mut node = Node::start(&server, settings).await;
    let caller = Caller::of(&server).await;
    let running = caller.submit(json!({"model": "gated", "seed": 1})).await;
    node.script.wait_for_runs(1).await;
    let waiting = caller.submit(json!({"seed": 2})).await;
    node.drain().await;
    let next = Node::start(&server, settings).await;
    next.script.gate.send_replace(true);
    // No ack wait has to pass: both were given back.
    for id in [&running, &waiting] {
        assert_eq!(caller.job_ended(id).await["status"], "completed");
    }
    assert_eq!(caller.job(&waiting).await["attempt"], 1);
    assert_eq!(caller.job(&running).await["attempt"], 2);
}

#[tokio::test]
async fn a_job_that_is_running_may_end_while_the_node_stops() {
    let server = Server::start().await;
    let mut node = Node::start(&server, "").await;
    let caller = Caller::of(&server).await;
    let id = caller.submit(json!({"model": "gated"})).await;
    node.script.wait_for_runs(1).await;
    let (script, readiness) = (node.script.clone(), node.readiness());
    let opened = async {
        until("the node stops", async || readiness.obstacle().map(drop)).await;
        script.gate.send_replace(true);
    };
    tokio::join!(node.drain(), opened);
    let store = caller.jetstream.get_key_value("orfeas_jobs_local").await.unwrap();
    let record: JobRecord = serde_json::from_slice(&store.get(&id).await.unwrap().unwrap()).unwrap();
    assert_eq!(record.job.status.as_str(), "completed");
}

#[tokio::test]
async fn a_queued_job_without_a_message_is_found_and_run() {
    let server = Server::start().await;
    let node = Node::start(&server, "").await;
    let caller = Caller::of(&server).await;
    caller.submit(json!({"model": "gated"})).await;
    node.script.wait_for_runs(1).await;
    let waiting = caller.submit(json!({})).await;
    // As an edge leaves it that dies between the record and the message, long ago.
    let store = caller.jetstream.get_key_value("orfeas_jobs_local").await.unwrap();
    let mut record: JobRecord = serde_json::from_slice(&store.get(&waiting).await.unwrap().unwrap()).unwrap();
    record.job.created_at = Timestamp::from_unix_ms(1_700_000_000_000);
    record.job.id = JobId::new(record.job.created_at, [1; 10]);
    let id = record.job.id.to_string();
    store.create(&id, serde_json::to_vec(&record).unwrap().into()).await.unwrap();
    node.script.gate.send_replace(true);
    assert_eq!(caller.job_ended(&id).await["status"], "completed");
    assert_eq!(node.script.runs(), 3);
}
