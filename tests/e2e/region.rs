//! What the edge asks of the region's nodes: figures of the devices, models, and lists of jobs.

use async_nats::HeaderMap;
use orfeas_tests::client::{expect_json, expect_problem};
use orfeas_tests::stack::{Stack, StackOptions};
use orfeas_tests::{pictures, wait};
use reqwest::StatusCode;
use serde_json::{Value, json};

const FIGURES: [&str; 7] = [
    "total_vram_mb",
    "free_vram_mb",
    "allocated_mb",
    "reserved_mb",
    "utilization_percent",
    "peak_memory_mb",
    "jobs_queued",
];

/// A second node of the stack's region.
fn second_node(stack: &Stack) -> orfeas_tests::stack::Node {
    stack.another_node(&["--node-id", "second"])
}

#[tokio::test]
async fn gpu_metrics_are_those_of_each_node_and_their_sum() {
    let stack =
        Stack::start_with(StackOptions { node: &["--node-id", "first"], ..StackOptions::default() }).await;
    let client = stack.client();
    let _second = second_node(&stack);
    let metrics = wait::until("both nodes have reported", wait::PATIENCE, || async {
        let metrics = expect_json(client.get("/api/gpu-metrics").await, StatusCode::OK).await;
        (metrics["nodes"].as_array().unwrap().len() == 2).then_some(metrics)
    })
    .await;
    let nodes = metrics["nodes"].as_array().unwrap();
    assert_eq!((nodes[0]["node"].as_str(), nodes[1]["node"].as_str()), (Some("first"), Some("second")));
    for node in nodes {
        for figure in FIGURES {
            assert!(node[figure].is_number(), "{figure} of {node}");
        }
        assert!(node["total_vram_mb"].as_u64() > node["allocated_mb"].as_u64(), "{node}");
        assert!(node["device"].is_string() && node["jobs_running"].is_number(), "{node}");
        assert!(node["models_loaded"].is_array(), "{node}");
    }
    for figure in ["total_vram_mb", "free_vram_mb", "allocated_mb", "reserved_mb", "peak_memory_mb"] {
        let sum: u64 = nodes.iter().map(|node| node[figure].as_u64().unwrap()).sum();
        assert_eq!(metrics[figure], sum, "{figure}");
    }

    // The same over NATS.
    let bus = stack.bus.connect().await;
    let reply = bus.request("orfeas.local.gpu", "".into()).await.unwrap();
    let reply: Value = serde_json::from_slice(&reply.payload).unwrap();
    assert_eq!(reply["nodes"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn models_name_families_versions_nodes_and_the_channels_weights() {
    let stack =
        Stack::start_with(StackOptions { node: &["--node-id", "first"], ..StackOptions::default() }).await;
    let client = stack.client();
    stack.node_command(&["rollout", "set", "25"]);
    let (models, silhouette) = wait::until("the node has reported", wait::PATIENCE, || async {
        let models = expect_json(client.get("/api/models").await, StatusCode::OK).await;
        let families = models["families"].as_array().unwrap();
        let silhouette = families.iter().find(|family| family["family"] == "silhouette")?.clone();
        Some((models, silhouette))
    })
    .await;
    assert_eq!(silhouette["versions"][0]["nodes"][0], "first", "{models}");
    assert!(silhouette["versions"][0]["version"].is_string(), "{models}");
    assert_eq!(models["channels"][0], json!({"channel": "stable", "weight_percent": 75.0}), "{models}");
    assert_eq!(models["channels"][1], json!({"channel": "canary", "weight_percent": 25.0}), "{models}");
}

#[tokio::test]
async fn without_a_node_its_answers_are_refused_with_a_time_to_come_back() {
    let mut stack = Stack::start().await;
    stack.kill_node();
    let client = stack.client();
    for path in ["/api/gpu-metrics", "/api/models", "/api/jobs"] {
        let response = wait::until("the server knows that the node is gone", wait::PATIENCE, || async {
            let response = client.get(path).await;
            (response.status() == 503).then_some(response)
        })
        .await;
        assert!(response.headers().contains_key("retry-after"), "{path}");
        expect_problem(response, 503, "upstream_unavailable").await;
    }
}

#[tokio::test]
async fn jobs_are_listed_newest_first_in_pages_and_by_status() {
    let stack = Stack::start().await;
    let client = stack.client();
    let mut ids = Vec::new();
    for marker in 0..5 {
        let job = client.submit_png(pictures::png(32, marker), &[("quality", "5")]).await;
        ids.push(job["id"].as_str().unwrap().to_owned());
    }
    for id in &ids {
        client.job_ended(id).await;
    }
    ids.reverse();
    let listed = |page: &Value| -> Vec<String> {
        let jobs = page["jobs"].as_array().unwrap();
        jobs.iter().map(|job| job["id"].as_str().unwrap().to_owned()).collect()
    };
    let page = async |query: &str| {
        expect_json(client.get(&format!("/api/jobs?{query}")).await, StatusCode::OK).await
    };
    let all = wait::until("the node has seen all jobs", wait::PATIENCE, || async {
        let all = page("status=completed").await;
        (listed(&all).len() == 5).then_some(all)
    })
    .await;
    assert_eq!(listed(&all), ids);
    assert_eq!(all["next_cursor"], Value::Null);
    assert_eq!(all["jobs"][0], client.job(&ids[0]).await, "the job object of the contract");

    let first = page("limit=2").await;
    assert_eq!(listed(&first), ids[..2]);
    let second = page(&format!("limit=2&cursor={}", first["next_cursor"].as_str().unwrap())).await;
    assert_eq!(listed(&second), ids[2..4]);
    let last = page(&format!("limit=2&cursor={}", second["next_cursor"].as_str().unwrap())).await;
    assert_eq!((listed(&last), &last["next_cursor"]), (ids[4..].to_vec(), &Value::Null));
    assert!(listed(&page("status=failed").await).is_empty());
    expect_problem(client.get("/api/jobs?limit=0").await, 400, "invalid_option").await;
    expect_problem(client.get("/api/jobs?tenant=other").await, 400, "invalid_option").await;
}

#[tokio::test]
async fn a_node_that_starts_lists_the_jobs_from_before() {
    let mut stack = Stack::start().await;
    let client = stack.client();
    let job = client.submit_png(pictures::png(32, 1), &[]).await;
    client.job_ended(job["id"].as_str().unwrap()).await;
    stack.kill_node();
    stack.start_node();
    let listed = wait::until("the node knows the job", wait::PATIENCE, || async {
        let page: Value = client.get("/api/jobs").await.error_for_status().ok()?.json().await.ok()?;
        Some(page["jobs"].as_array()?.clone())
    })
    .await;
    assert_eq!(listed.len(), 1, "complete, or refused, but never a part");
    assert_eq!(listed[0]["id"], job["id"]);
}

#[tokio::test]
async fn errors_of_the_micro_service_are_counted_in_its_statistics() {
    let stack = Stack::start().await;
    let client = stack.bus.connect().await;
    let unknown = json!({"id": "01900000-0000-7000-8000-000000000000"}).to_string();
    for _ in 0..3 {
        let mut headers = HeaderMap::new();
        headers.insert("X-Request-Id", "r-7");
        let subject = "orfeas.local.status";
        let reply = client.request_with_headers(subject, headers, unknown.clone().into()).await.unwrap();
        let headers = reply.headers.unwrap();
        assert_eq!(headers.get("Nats-Service-Error-Code").unwrap().as_str(), "404");
        assert_eq!(headers.get("X-Request-Id").unwrap().as_str(), "r-7");
        let problem: Value = serde_json::from_slice(&reply.payload).unwrap();
        assert_eq!(
            (problem["code"].as_str(), problem["request_id"].as_str()),
            (Some("not_found"), Some("r-7"))
        );
    }
    client.request("orfeas.local.models", "".into()).await.unwrap();
    // A request is counted after its answer has gone out.
    let (status, models) = wait::until("all requests are counted", wait::PATIENCE, || async {
        let stats = client.request("$SRV.STATS.orfeas", "".into()).await.ok()?;
        let stats: Value = serde_json::from_slice(&stats.payload).unwrap();
        let endpoints = stats["endpoints"].as_array().unwrap();
        let of = |name: &str| endpoints.iter().find(|endpoint| endpoint["name"] == name).unwrap().clone();
        let (status, models) = (of("status"), of("models"));
        (status["num_requests"] == 3 && models["num_requests"] == 1).then_some((status, models))
    })
    .await;
    assert_eq!((&status["num_errors"], &models["num_errors"]), (&json!(3), &json!(0)));
}
