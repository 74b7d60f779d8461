//! The metrics of both admin ports after real traffic: their names and labels are the contract's.

use orfeas_tests::client::expect_problem;
use orfeas_tests::exposition::Exposition;
use orfeas_tests::stack::{Stack, StackOptions};
use orfeas_tests::{pictures, wait};

/// Every sample of a name has exactly these labels.
fn check(exposition: &Exposition, name: &str, labels: &[&str]) {
    let mut found = 0;
    for sample in exposition.of(name) {
        let names: Vec<_> = sample.labels.keys().map(String::as_str).filter(|label| *label != "le").collect();
        assert_eq!(names, labels, "{sample:?}");
        found += 1;
    }
    assert!(found > 0, "{name} is missing");
}

#[tokio::test]
async fn both_admin_ports_tell_what_the_contract_names() {
    let stack =
        Stack::start_with(StackOptions { node: &["--channels", "stable,canary"], ..StackOptions::default() })
            .await;
    let client = stack.client();
    let job = client.submit_png(pictures::png(64, 1), &[("quality", "5"), ("priority", "8")]).await;
    client.job_ended(job["id"].as_str().unwrap()).await;
    let request =
        client.request(reqwest::Method::POST, "/api/submit-job").header("x-orfeas-channel", "canary");
    let request = request.header("content-type", "image/png").body(pictures::png(64, 2));
    let canary: serde_json::Value = request.send().await.unwrap().json().await.unwrap();
    client.job_ended(canary["id"].as_str().unwrap()).await;
    let refused = client.post_raw("/api/uploads", "image/png", "no picture").await;
    expect_problem(refused, 415, "invalid_image_format").await;
    let over_nats = stack.bus.connect().await;
    over_nats.request("orfeas.local.models", "".into()).await.unwrap();

    let submissions = [("endpoint", "/api/submit-job"), ("method", "POST")];
    let edge = Exposition::once_it_tells(
        &stack.edge.admin,
        &[
            ("requests_total", &submissions, 2.0),
            ("orfeas_uploads_rejected_total", &[("code", "invalid_image_format")], 1.0),
            // Looking at a job is no request of its channel.
            ("orfeas_canary_requests_total", &[("channel", "canary")], 1.0),
            ("orfeas_canary_requests_total", &[("channel", "stable")], 1.0),
        ],
    )
    .await;
    for suffix in ["_bucket", "_sum", "_count"] {
        check(&edge, &format!("request_duration_seconds{suffix}"), &["endpoint", "status"]);
    }
    check(&edge, "requests_total", &["endpoint", "method"]);
    check(&edge, "orfeas_uploads_rejected_total", &["code"]);
    check(&edge, "orfeas_canary_requests_total", &["channel"]);
    check(&edge, "orfeas_wasm_instances", &[]);
    check(&edge, "orfeas_nats_reconnects_total", &[]);
    assert!(edge.value("orfeas_wasm_instances", &[]) >= 1.0);
    let statuses = edge.of("request_duration_seconds_count").map(|sample| &sample.labels["status"]);
    assert!(statuses.into_iter().all(|status| status.parse::<u16>().is_ok()));
    let limits: Vec<f64> = edge
        .of("request_duration_seconds_bucket")
        .filter(|sample| sample.labels["endpoint"] == "/api/submit-job" && sample.labels["status"] == "202")
        .map(|sample| sample.labels["le"].parse().unwrap())
        .collect();
    assert!(limits.is_sorted() && limits.contains(&0.1) && limits.contains(&600.0), "{limits:?}");

    let admin = &stack.node.as_ref().unwrap().admin;
    let node = Exposition::once_it_tells(
        admin,
        &[
            ("orfeas_jobs_total", &[("type", "3d_generation"), ("status", "completed")], 2.0),
            ("orfeas_job_stage_duration_seconds_count", &[("stage", "shape")], 2.0),
            ("requests_total", &[("endpoint", "models")], 1.0),
        ],
    )
    .await;
    check(&node, "orfeas_jobs_total", &["status", "type"]);
    check(&node, "orfeas_job_stage_duration_seconds_count", &["stage"]);
    check(&node, "orfeas_queue_wait_seconds_count", &[]);
    check(&node, "orfeas_nats_reconnects_total", &[]);
    check(&node, "request_duration_seconds_count", &["endpoint", "status"]);
    check(&node, "requests_total", &["endpoint", "method"]);
    let node = wait::until("the queue has been measured", wait::PATIENCE, || async {
        let node = Exposition::scrape(admin).await;
        (node.of("orfeas_queue_depth").count() == 10).then_some(node)
    })
    .await;
    check(&node, "orfeas_queue_depth", &["priority"]);
}

#[tokio::test]
async fn connections_in_place_of_lost_ones_are_counted_at_the_edge() {
    let mut stack = Stack::start().await;
    let client = stack.client();
    assert_eq!(client.get("/readyz").await.status(), 200);
    assert_eq!(Exposition::scrape(&stack.edge.admin).await.value("orfeas_nats_reconnects_total", &[]), 0.0);
    stack.bus.kill();
    expect_problem(client.get("/readyz").await, 503, "upstream_unavailable").await;
    stack.bus.restart().await;
    wait::until("a lost connection was replaced", wait::PATIENCE, || async {
        client.get("/readyz").await;
        let edge = Exposition::scrape(&stack.edge.admin).await;
        (edge.value("orfeas_nats_reconnects_total", &[]) >= 1.0).then_some(())
    })
    .await;
}
