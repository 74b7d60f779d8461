//! What a node learns from jobs, and what it tells about the next.

use serde_json::{Value, json};

use crate::harness::{Caller, Node, Server, until};

/// Waits until the region has learned from `count` jobs.
async fn learned(caller: &Caller, count: usize) {
    let stream = caller.stream("KV_orfeas_history_local").await;
    until("outcomes are stored", async || {
        let messages = stream.get_info().await.ok()?.state.messages;
        (messages >= count as u64).then_some(())
    })
    .await;
}

/// Submits jobs that leave the quality open until one of them was predicted: the watch needs a moment.
async fn predicted(caller: &Caller) -> Value {
    until("a quality is predicted", async || {
        let id = caller.submit(json!({"model": "ok"})).await;
        let job = caller.job_ended(&id).await;
        assert_eq!(job["status"], "completed", "{job}");
        (job["model"]["quality_source"] == "history").then_some(job)
    })
    .await
}

#[tokio::test]
async fn a_second_similar_request_takes_the_average_of_what_was_asked_before_and_says_so() {
    let server = Server::start().await;
    let _node = Node::start(&server, "").await;
    let caller = Caller::of(&server).await;
    let first = caller.submit(json!({"model": "ok"})).await;
    let model = caller.job_ended(&first).await["model"].clone();
    assert_eq!((&model["quality"], &model["quality_source"]), (&json!(7), &json!("default")));
    for quality in [5, 9] {
        let id = caller.submit(json!({"model": "ok", "quality": quality})).await;
        let model = caller.job_ended(&id).await["model"].clone();
        assert_eq!((&model["quality"], &model["quality_source"]), (&json!(quality), &json!("request")));
    }
    learned(&caller, 3).await;
    assert_eq!(predicted(&caller).await["model"]["quality"], json!(7));
}

#[tokio::test]
async fn history_survives_a_restart_of_the_node() {
    let server = Server::start().await;
    let node = Node::start(&server, "").await;
    let caller = Caller::of(&server).await;
    let id = caller.submit(json!({"model": "ok", "quality": 5})).await;
    caller.job_ended(&id).await;
    learned(&caller, 1).await;
    node.kill();
    let _node = Node::start(&server, "").await;
    assert_eq!(predicted(&caller).await["model"]["quality"], json!(5));
}

#[tokio::test]
async fn jobs_of_a_kind_that_has_run_are_told_when_they_will_end_while_they_wait_and_while_they_run() {
    let server = Server::start().await;
    let node = Node::start(&server, "").await;
    let caller = Caller::of(&server).await;
    node.script.gate.send_replace(true);
    // The script says that each of them took 0.1 s in its shape stage.
    for _ in 0..3 {
        let id = caller.submit(json!({"model": "gated"})).await;
        caller.job_ended(&id).await;
    }
    learned(&caller, 3).await;
    node.script.gate.send_replace(false);
    let running = caller.submit(json!({"model": "gated"})).await;
    let seconds = |job: &Value, name: &str| job[name].as_f64();
    let is_told = |job: &Value| seconds(job, "eta_seconds").is_some();
    let job = caller
        .job_when(&running, "a running job is told", |job| job["stage"] == "shape" && is_told(job))
        .await;
    let (p50, p90) = (seconds(&job, "eta_seconds").unwrap(), seconds(&job, "eta_p90_seconds").unwrap());
    assert!((0.0..60.0).contains(&p50) && p50 <= p90, "{job}");

    let waiting = caller.submit(json!({"model": "gated"})).await;
    let behind = caller.submit(json!({"model": "gated"})).await;
    for (id, position) in [(&waiting, 0), (&behind, 1)] {
        let told = caller
            .job_when(id, "a waiting job is told", |job| job["queue_position"] == position && is_told(job));
        let told = told.await;
        assert_eq!(told["status"], "queued", "{told}");
    }
    node.script.gate.send_replace(true);
    let job = caller.job_ended(&behind).await;
    assert_eq!((&job["eta_seconds"], &job["queue_position"]), (&Value::Null, &Value::Null), "{job}");
    until("the estimates are compared with what came", async || {
        let text = node.metrics.exposition().unwrap();
        let compared = ["early", "queued"].map(|phase| {
            text.lines().any(|line| {
                line.starts_with("orfeas_eta_error_ratio_count")
                    && line.contains(phase)
                    && !line.ends_with(" 0")
            })
        });
        compared.iter().all(|compared| *compared).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_wait_for_a_cancelled_run_to_stop_is_measured_by_its_stage() {
    let server = Server::start().await;
    let node = Node::start(&server, "").await;
    let caller = Caller::of(&server).await;
    let id = caller.submit(json!({"model": "gated"})).await;
    caller.job_when(&id, "the job runs", |job| job["status"] == "processing").await;
    caller.cancel(&id).await;
    assert_eq!(caller.job_ended(&id).await["status"], "cancelled");
    let text = node.metrics.exposition().unwrap();
    let counted = text.lines().find(|line| line.starts_with("orfeas_cancel_latency_seconds_count"));
    assert_eq!(counted, Some("orfeas_cancel_latency_seconds_count{stage=\"shape\"} 1"));
}

#[tokio::test]
async fn a_predicted_quality_that_the_configured_budget_cannot_hold_is_lowered() {
    let server = Server::start().await;
    // The device itself would be large enough.
    let _node = Node::start(&server, "[memory]\nbudget = \"1GiB\"").await;
    let caller = Caller::of(&server).await;
    let asked = caller.submit(json!({"model": "ok", "quality": 9})).await;
    assert_eq!(caller.job_ended(&asked).await["status"], "completed");
    learned(&caller, 1).await;
    let job = until("a quality is predicted", async || {
        let job = caller.job_ended(&caller.submit(json!({"model": "tiered"})).await).await;
        assert_eq!(job["status"], "completed", "{job}");
        (job["model"]["quality_source"] == "history").then_some(job)
    })
    .await;
    assert_eq!(job["model"]["quality"], json!(7), "{job}");
}
