//! What a node does about failures of its runs, its models and itself.

use std::sync::atomic::Ordering;

use orfeas_node::pipeline::{Engine, PipelineError, Stage};
use orfeas_node::recovery::Fault;
use orfeas_protocol::preset::Preset;
use serde_json::{Value, json};

use crate::acts::Act;
use crate::harness::{Caller, Node, PATIENCE, Server, body, picture, until};

/// `strategy` of each recovery, in order; all have the same reason.
fn strategies(job: &Value, reason: &str) -> Vec<String> {
    let recoveries = job["recoveries"].as_array().unwrap();
    assert!(recoveries.iter().all(|recovery| recovery["reason"] == reason), "{job}");
    recoveries.iter().map(|recovery| recovery["strategy"].as_str().unwrap().to_owned()).collect()
}

async fn letters(caller: &Caller) -> u64 {
    caller.stream("ORFEAS_DEAD_LOCAL").await.cached_info().state.messages
}

async fn fault_of(node: &Node) -> Fault {
    let health = node.health();
    tokio::time::timeout(PATIENCE, health.failed()).await.expect("waited in vain for the fault")
}

#[tokio::test]
async fn out_of_memory_at_any_stage_takes_the_rungs_in_order_and_leaves_nothing_behind() {
    let server = Server::start().await;
    let node = Node::start(&server, "").await;
    let caller = Caller::of(&server).await;
    let acts = &node.script.acts;
    let baseline = node.script.memory();
    for stage in Stage::ALL.map(Stage::as_str) {
        acts.expect([Act::out_of_memory(stage), Act::out_of_memory(stage)]);
        let id = caller.submit(json!({"model": "acts", "quality": 9})).await;
        let job = caller.job_ended(&id).await;
        assert_eq!((&job["status"], &job["attempt"]), (&json!("completed"), &json!(1)), "{stage}: {job}");
        let taken = strategies(&job, "out_of_memory");
        assert_eq!(taken, ["empty_cache", "evict_idle", "halve_batch", "lower_preset"], "{stage}");
        let runs = acts.take_settings();
        let presets: Vec<_> = runs.iter().map(|run| run.preset).collect();
        assert_eq!(presets, [Preset::Quality, Preset::Quality, Preset::Balanced], "{stage}");
        assert!(runs[0].chunk_points_max.is_none() && runs[1].chunk_points_max.is_some(), "{stage}");
        assert_eq!(node.script.memory(), baseline, "{stage}");
    }
    assert!(acts.trims.load(Ordering::SeqCst) >= Stage::ALL.len(), "the cache was emptied each time");
    let metrics = node.metrics.exposition().unwrap();
    for (strategy, outcome) in
        [("empty_cache", "failed"), ("halve_batch", "failed"), ("lower_preset", "recovered")]
    {
        let sample = format!("orfeas_recoveries_total{{strategy=\"{strategy}\",outcome=\"{outcome}\"}} 8");
        assert!(metrics.contains(&sample), "{sample} is missing in\n{metrics}");
    }
}

#[tokio::test]
async fn an_exact_request_is_never_lowered_and_fails_with_the_reasons_code() {
    let server = Server::start().await;
    let node = Node::start(&server, "").await;
    let caller = Caller::of(&server).await;
    node.script.acts.expect([
        Act::out_of_memory("shape"),
        Act::out_of_memory("shape"),
        Act::out_of_memory("shape"),
    ]);
    let id = caller.submit(json!({"model": "acts", "quality": 9, "exact": true})).await;
    let job = caller.job_ended(&id).await;
    assert_eq!(job["error"]["code"], "gpu_memory_insufficient", "{job}");
    assert_eq!((&job["status"], &job["attempt"]), (&json!("failed"), &json!(1)), "{job}");
    assert_eq!(
        strategies(&job, "out_of_memory"),
        ["empty_cache", "evict_idle", "halve_batch", "halve_batch"]
    );
    let runs = node.script.acts.take_settings();
    assert!(runs.len() == 3 && runs.iter().all(|run| run.preset == Preset::Quality), "{runs:?}");
    assert_eq!(letters(&caller).await, 1, "an operator can have it tried again on a larger card");
}

#[tokio::test]
async fn a_run_over_its_time_is_run_again_one_preset_lower() {
    let server = Server::start().await;
    let node = Node::start(&server, "[work]\njob_limit = \"300ms\"").await;
    let caller = Caller::of(&server).await;
    node.script.acts.expect([Act::Endless]);
    let id = caller.submit(json!({"model": "acts"})).await;
    let job = caller.job_ended(&id).await;
    assert_eq!(job["status"], "completed", "{job}");
    assert_eq!(strategies(&job, "time_out"), ["lower_preset"]);
    let presets: Vec<_> = node.script.acts.take_settings().iter().map(|run| run.preset).collect();
    assert_eq!(presets, [Preset::Balanced, Preset::Fast]);
}

#[tokio::test]
async fn a_run_over_its_time_that_cannot_be_lowered_fails_and_is_not_started_again() {
    let server = Server::start().await;
    let node = Node::start(&server, "[work]\njob_limit = \"300ms\"").await;
    let caller = Caller::of(&server).await;
    for options in [json!({"model": "acts", "exact": true}), json!({"model": "acts", "quality": 5})] {
        node.script.acts.expect([Act::Endless]);
        let job = caller.job_ended(&caller.submit(options).await).await;
        assert_eq!(job["error"]["code"], "deadline_exceeded", "{job}");
        assert_eq!((&job["attempt"], &job["recoveries"]), (&json!(1), &json!([])), "{job}");
        assert_eq!(node.script.acts.take_settings().len(), 1);
    }
    assert_eq!(letters(&caller).await, 2);
}

#[tokio::test]
async fn a_cancel_request_wins_over_recovery() {
    let server = Server::start().await;
    let node = Node::start(&server, "").await;
    let caller = Caller::of(&server).await;
    node.script.acts.expect([Act::out_of_memory("shape"), Act::Endless]);
    let id = caller.submit(json!({"model": "acts"})).await;
    caller.job_when(&id, "it recovers", |job| !job["recoveries"].as_array().unwrap().is_empty()).await;
    caller.cancel(&id).await;
    assert_eq!(caller.job_ended(&id).await["status"], "cancelled");
    caller.queue_is_empty().await;
}

/// A node that has to be replaced because of a job's run: its job, and one that waits behind it.
async fn fails_over(settings: &str, act: Act, fault: Fault) {
    let server = Server::start().await;
    // No ack wait has to pass: both jobs are given back.
    let settings = format!("[work]\nack_wait = \"5m\"\n{settings}");
    let mut node = Node::start(&server, &settings).await;
    let caller = Caller::of(&server).await;
    // Held up by the first job, so that the node has both others when the fault comes.
    let first = caller.submit(json!({"model": "gated"})).await;
    node.script.wait_for_runs(1).await;
    node.script.acts.expect([act]);
    let running = caller.submit(json!({"model": "acts", "seed": 1, "priority": 9})).await;
    let waiting = caller.submit(json!({"seed": 2})).await;
    caller.waiting(2).await;
    node.script.gate.send_replace(true);
    assert_eq!(fault_of(&node).await, fault);
    assert_eq!(node.readiness().obstacle(), Some(fault.obstacle()));
    // The program's next steps: drain, and exit with the fault's code.
    node.drain().await;
    assert_eq!(node.script.runs(), 2, "nothing was begun on it any more");
    let next = Node::start(&server, &settings).await;
    for (id, attempts) in [(&first, 1), (&running, 2), (&waiting, 1)] {
        let job = caller.job_ended(id).await;
        assert_eq!((&job["status"], &job["attempt"]), (&json!("completed"), &json!(attempts)), "{job}");
    }
    assert_eq!(next.script.runs(), 2);
    caller.queue_is_empty().await;
    assert_eq!(letters(&caller).await, 0);
}

#[tokio::test]
async fn a_node_with_a_lost_device_gives_its_jobs_to_the_next() {
    let error = PipelineError::DeviceLost("an illegal memory access was encountered".to_owned());
    fails_over("", Act::Fails { stage: "shape", error }, Fault::DeviceLost).await;
}

#[tokio::test]
async fn a_node_whose_inference_thread_is_stuck_gives_its_jobs_to_the_next() {
    fails_over("stall_limit = \"400ms\"", Act::Hangs, Fault::InferenceStuck).await;
}

#[tokio::test]
async fn a_long_run_that_shows_signs_of_life_is_not_stuck() {
    let server = Server::start().await;
    let node = Node::start(&server, "[work]\nstall_limit = \"200ms\"\nack_wait = \"1s\"").await;
    let caller = Caller::of(&server).await;
    let id = caller.submit(json!({"model": "gated"})).await;
    node.script.wait_for_runs(1).await;
    // A second and more: several times the limit.
    caller.signs_of_life(4).await;
    assert_eq!(node.health().fault(), None);
    node.script.gate.send_replace(true);
    assert_eq!(caller.job_ended(&id).await["status"], "completed");
}

#[tokio::test]
async fn a_node_whose_inference_thread_has_ended_takes_no_more_work() {
    let server = Server::start().await;
    let mut node = Node::start(&server, "").await;
    let caller = Caller::of(&server).await;
    node.script.acts.ended.send_replace(true);
    assert_eq!(fault_of(&node).await, Fault::InferenceStopped);
    // A picture in the store, and a job that comes by another node's endpoint: this one's are closing.
    let next = Node::start(&server, "").await;
    node.drain().await;
    let id = caller.submit(json!({})).await;
    assert_eq!(caller.job_ended(&id).await["attempt"], 1, "no start was wasted");
    assert_eq!((node.script.runs(), next.script.runs()), (0, 1));
}

#[tokio::test]
async fn the_job_that_takes_devices_down_is_given_up_after_its_starts() {
    let server = Server::start().await;
    let settings = "[work]\nattempts_max = 2";
    let lost = || {
        let error = PipelineError::DeviceLost("device-side assert triggered".to_owned());
        Act::Fails { stage: "shape", error }
    };
    let caller = Caller::of(&server).await;
    let mut first = Node::start(&server, settings).await;
    first.script.acts.expect([lost()]);
    let id = caller.submit(json!({"model": "acts"})).await;
    fault_of(&first).await;
    first.drain().await;
    let second = Node::start(&server, settings).await;
    second.script.acts.expect([lost()]);
    fault_of(&second).await;
    let job = caller.job_ended(&id).await;
    assert_eq!((&job["status"], &job["attempt"]), (&json!("failed"), &json!(2)), "{job}");
    assert_eq!(letters(&caller).await, 1);
}

#[tokio::test]
async fn missing_weights_are_fetched_from_the_source_and_the_job_goes_on() {
    let server = Server::start().await;
    let root = tempfile::tempdir().unwrap();
    let (source, models) = (root.path().join("source"), root.path().join("models"));
    std::fs::create_dir_all(source.join("acts")).unwrap();
    std::fs::write(source.join("acts/model.safetensors"), [7; 100]).unwrap();
    let settings = format!("models_folder = {models:?}\nmodels_source = {source:?}");
    let node = Node::start(&server, &settings).await;
    let caller = Caller::of(&server).await;
    let missing = Act::Fails { stage: "shape", error: PipelineError::WeightsMissing("acts".to_owned()) };
    node.script.acts.expect([missing]);
    let job = caller.job_ended(&caller.submit(json!({"model": "acts"})).await).await;
    assert_eq!(job["status"], "completed", "{job}");
    assert_eq!(strategies(&job, "weights_missing"), ["fetch_weights", "reload_model"]);
    assert_eq!(std::fs::read(models.join("acts/model.safetensors")).unwrap(), [7; 100]);
}

#[tokio::test]
async fn a_busy_engine_is_asked_again_after_a_while() {
    let server = Server::start().await;
    let node = Node::start(&server, "").await;
    let caller = Caller::of(&server).await;
    node.script.acts.expect([Act::Fails { stage: "decode", error: PipelineError::Busy }]);
    let job = caller.job_ended(&caller.submit(json!({"model": "acts"})).await).await;
    assert_eq!((&job["status"], &job["attempt"]), (&json!("completed"), &json!(1)), "{job}");
    assert_eq!(strategies(&job, "connection"), ["back_off"]);
}

#[tokio::test]
async fn what_cannot_help_is_not_tried() {
    let server = Server::start().await;
    let node = Node::start(&server, "[work]\nattempts_max = 1").await;
    let caller = Caller::of(&server).await;
    for error in [PipelineError::NoSubject, PipelineError::Tensor("shapes cannot be multiplied".to_owned())] {
        node.script.acts.expect([Act::Fails { stage: "shape", error }]);
        let job = caller.job_ended(&caller.submit(json!({"model": "acts"})).await).await;
        assert_eq!((&job["status"], &job["recoveries"]), (&json!("failed"), &json!([])), "{job}");
        assert_eq!(node.script.acts.take_settings().len(), 1);
    }
}

#[tokio::test]
async fn the_pictures_and_the_record_of_a_waiting_job_are_stored_afresh_in_time() {
    let server = Server::start().await;
    let node = Node::start(&server, "[retention]\nuploads = \"10m\"\nrecords = \"10m\"").await;
    let caller = Caller::of(&server).await;
    // One runs, so that the others wait for the device.
    caller.submit(json!({"model": "gated"})).await;
    node.script.wait_for_runs(1).await;
    let digests = [0, 1].map(|marker| orfeas_protocol::Sha256Digest::of(picture(marker)).to_string());
    let [_, left] = &digests;
    let uploads = caller.jetstream.get_object_store("orfeas_uploads_local").await.unwrap();
    uploads.put(left.as_str(), &mut picture(1).as_slice()).await.unwrap();
    let waiting = caller.submit(json!({"seed": 2, "left_sha256": left})).await;
    // The pictures as they are after more than half of their time: the store's own clock cannot be turned.
    let store = caller.jetstream.get_stream("OBJ_orfeas_uploads_local").await.unwrap();
    // Both at once: a node that has seen the job looks at it again when half of the time has passed.
    let subjects = digests.map(|digest| {
        let encoded = base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE, digest);
        format!("$O.orfeas_uploads_local.M.{encoded}")
    });
    for subject in &subjects {
        let described = store.get_last_raw_message_by_subject(subject).await.unwrap();
        let mut info: Value = serde_json::from_slice(&described.payload).unwrap();
        info["mtime"] = json!("2026-01-01T00:00:00Z");
        info["metadata"] = json!({"checked": "yes"});
        caller.jetstream.publish(subject.clone(), info.to_string().into()).await.unwrap().await.unwrap();
    }
    for subject in &subjects {
        let renewed = until("the picture is renewed", async || {
            let described = store.get_last_raw_message_by_subject(subject).await.ok()?;
            let info: Value = serde_json::from_slice(&described.payload).ok()?;
            (info["mtime"] != "2026-01-01T00:00:00Z").then_some(info)
        })
        .await;
        assert_eq!(renewed["metadata"]["checked"], "yes", "{renewed}");
    }
    node.script.gate.send_replace(true);
    assert_eq!(caller.job_ended(&waiting).await["status"], "completed");
}

#[tokio::test]
async fn a_view_that_is_not_stored_or_is_flagged_refuses_its_job() {
    let server = Server::start().await;
    let _node = Node::start(&server, "").await;
    let caller = Caller::of(&server).await;
    let digest = orfeas_protocol::Sha256Digest::of(picture(1)).to_string();
    let options = json!({"back_sha256": digest});
    let refused = body(&caller.ask("submit", Some(options.clone()), picture(0)).await);
    assert_eq!((&refused["code"], &refused["side"]), (&json!("not_found"), &json!("back")));
    let uploads = caller.jetstream.get_object_store("orfeas_uploads_local").await.unwrap();
    uploads.put(digest.as_str(), &mut picture(1).as_slice()).await.unwrap();
    let blocklist = caller.jetstream.get_key_value("orfeas_blocklist").await.unwrap();
    blocklist.put(format!("sha256.{digest}"), "test".into()).await.unwrap();
    let refused = body(&caller.ask("submit", Some(options.clone()), picture(0)).await);
    assert_eq!(refused["code"], "file_flagged", "{refused}");
    blocklist.delete(format!("sha256.{digest}")).await.unwrap();
    let taken = body(&caller.ask("submit", Some(options), picture(0)).await);
    assert_eq!(taken["status"], "queued", "{taken}");
}

#[tokio::test]
async fn the_server_that_tests_and_demos_run_on_has_no_findings_and_its_port_tells() {
    let server = Server::start().await;
    let _node = Node::start(&server, "").await;
    let found = server.durability_findings("").await;
    assert!(found.len() == 1 && found[0].contains("cannot be seen"), "{found:?}");
    let monitored = Server::start_monitored().await;
    let _node = Node::start(&monitored, "").await;
    let found = monitored.durability_findings(&monitored.monitor()).await;
    assert!(found.is_empty(), "{found:?}");
}
