//! The canary channel, from the command line through the edge to a node that serves it.

use orfeas_tests::client::expect_json;
use orfeas_tests::pictures;
use orfeas_tests::stack::{Stack, StackOptions};
use reqwest::StatusCode;

#[tokio::test]
async fn a_rollout_sends_the_same_pictures_to_the_canary_each_time() {
    let options = StackOptions { node: &["--channels", "stable,canary"], ..StackOptions::default() };
    let stack = Stack::start_with(options).await;
    let client = stack.client();
    let channel = async |marker: u8| {
        let response = client.post_raw("/api/submit-job", "image/png", pictures::png(32, marker)).await;
        let header = response.headers()["x-orfeas-channel"].to_str().unwrap().to_owned();
        let job = expect_json(response, StatusCode::ACCEPTED).await;
        assert_eq!(job["channel"], header.as_str());
        (header, job["id"].as_str().unwrap().to_owned())
    };
    let (before, _) = channel(0).await;
    assert_eq!(before, "stable");

    stack.node_command(&["rollout", "set", "50"]);
    // Edges see a change within a second, and sooner: with the next request.
    let mut first = Vec::new();
    for marker in 0..16 {
        first.push(channel(marker).await.0);
    }
    assert!(first.contains(&"stable".to_owned()) && first.contains(&"canary".to_owned()), "{first:?}");

    stack.node_command(&["rollout", "set", "100"]);
    let (new, id) = channel(200).await;
    assert_eq!(new, "canary");
    for marker in 0..16 {
        assert_eq!(channel(marker).await.0, "canary", "raising the weight moves nobody back");
    }
    assert_eq!(client.job_ended(&id).await["status"], "completed");
}

#[tokio::test]
async fn a_stable_node_leaves_canary_jobs_alone() {
    let stack = Stack::start().await;
    let client = stack.client();
    stack.node_command(&["rollout", "set", "100"]);
    let canary = client.submit_png(pictures::png(32, 1), &[("priority", "10")]).await;
    assert_eq!(canary["channel"], "canary");
    stack.node_command(&["rollout", "set", "0"]);
    let stable = client.submit_png(pictures::png(32, 1), &[("priority", "1")]).await;
    assert_eq!(stable["channel"], "stable");
    client.job_ended(stable["id"].as_str().unwrap()).await;
    assert_eq!(client.job(canary["id"].as_str().unwrap()).await["status"], "queued");
}
