//! Who may call, and how much: keys of the command line at an edge that demands them.

use orfeas_tests::client::{Client, expect_json, expect_problem};
use orfeas_tests::stack::{Stack, StackOptions};
use orfeas_tests::{pictures, wait};
use reqwest::{Response, StatusCode};
use serde_json::Value;

async fn stack() -> Stack {
    Stack::start_with(StackOptions { edge: &["--variable", "auth=required"], ..StackOptions::default() })
        .await
}

/// A client with a new key.
fn client(stack: &Stack, args: &[&str]) -> Client {
    let key = stack.node_command(&[&["keys", "add"], args].concat());
    stack.client().with_key(key.trim())
}

async fn submit(client: &Client, marker: u8) -> Response {
    client.post_form("/api/submit-job", "a.png", "image/png", pictures::png(48, marker), &[]).await
}

async fn id_of(response: Response) -> String {
    expect_json(response, StatusCode::ACCEPTED).await["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_request_needs_a_key_that_is_known_and_has_the_scope() {
    let stack = stack().await;
    let nobody = stack.client();
    let response = submit(&nobody, 1).await;
    assert_eq!(response.headers()["www-authenticate"], "Bearer");
    expect_problem(response, 401, "unauthorized").await;
    for path in
        ["/api/jobs", "/api/gpu-metrics", "/api/models", "/api/job/01900000-0000-7000-8000-000000000000"]
    {
        expect_problem(nobody.get(path).await, 401, "unauthorized").await;
        expect_problem(nobody.with_key("guess").get(path).await, 401, "unauthorized").await;
    }
    assert_eq!(nobody.get("/livez").await.status(), 200);

    let reader = client(&stack, &["--tenant", "acme", "--scopes", "read"]);
    expect_problem(submit(&reader, 1).await, 403, "forbidden").await;
    let writer = client(&stack, &["--tenant", "acme", "--scopes", "submit"]);
    let id = id_of(submit(&writer, 1).await).await;
    expect_problem(writer.get(&format!("/api/job/{id}")).await, 403, "forbidden").await;
    assert_eq!(reader.job_ended(&id).await["status"], "completed");
}

#[tokio::test]
async fn tenants_do_not_see_each_others_jobs() {
    let stack = stack().await;
    let ours = client(&stack, &["--tenant", "ours"]);
    let theirs = client(&stack, &["--tenant", "theirs"]);
    let admin = client(&stack, &["--tenant", "operator", "--scopes", "admin"]);
    let id = id_of(submit(&ours, 1).await).await;
    ours.job_ended(&id).await;
    for path in ["", "/result", "/events"] {
        expect_problem(theirs.get(&format!("/api/job/{id}{path}")).await, 404, "not_found").await;
    }
    expect_problem(theirs.delete(&format!("/api/job/{id}")).await, 403, "forbidden").await;
    assert_eq!(admin.job(&id).await["id"], id.as_str());

    let listed = async |client: &Client| -> usize {
        let page: Value = client.get("/api/jobs").await.error_for_status().unwrap().json().await.unwrap();
        page["jobs"].as_array().unwrap().len()
    };
    wait::until("the job is listed", wait::PATIENCE, || async { (listed(&ours).await == 1).then_some(()) })
        .await;
    assert_eq!(listed(&theirs).await, 0);
    // Only an administrator says where a job goes.
    let request = |client: &Client| {
        let request = client.request(reqwest::Method::POST, "/api/submit-job");
        request.header("x-orfeas-channel", "canary").header("content-type", "image/png")
    };
    let refused = request(&ours).body(pictures::png(48, 2)).send().await.unwrap();
    expect_problem(refused, 403, "forbidden").await;
    let taken = request(&admin).body(pictures::png(48, 2)).send().await.unwrap();
    assert_eq!(taken.headers()["x-orfeas-channel"], "canary");
}

#[tokio::test]
async fn a_revoked_key_is_not_known_any_more() {
    let stack = stack().await;
    let key = stack.node_command(&["keys", "add", "--tenant", "acme", "--note", "the old one"]);
    let key = key.trim();
    let client = stack.client().with_key(key);
    assert_eq!(client.get("/api/models").await.status(), 200);
    let list = stack.node_command(&["keys", "list"]);
    assert!(list.contains("acme") && list.contains("submit,read") && list.contains("the old one"), "{list}");
    assert!(!list.contains(key), "the key itself is nowhere");
    let id = list.split_whitespace().next().unwrap();
    stack.node_command(&["keys", "revoke", id]);
    expect_problem(client.get("/api/models").await, 401, "unauthorized").await;
    assert_eq!(stack.node_command(&["keys", "list"]), "");
}

#[tokio::test]
async fn a_tenant_has_as_many_open_jobs_as_its_limit_even_at_once() {
    let mut stack = stack().await;
    let limited = client(&stack, &["--tenant", "small", "--jobs", "2"]);
    let free = client(&stack, &["--tenant", "large"]);
    stack.kill_node();
    // All at once: the bound holds against requests that race.
    let answers = futures::future::join_all((0..8).map(|marker| submit(&limited, marker))).await;
    let (accepted, refused): (Vec<_>, Vec<_>) =
        answers.into_iter().partition(|answer| answer.status() == StatusCode::ACCEPTED);
    assert_eq!((accepted.len(), refused.len()), (2, 6));
    for response in refused {
        assert!(response.headers().contains_key("retry-after"));
        let problem = expect_problem(response, 429, "too_many_jobs").await;
        assert_eq!(problem["limit"], 2);
    }
    for marker in 10..13 {
        id_of(submit(&free, marker).await).await;
    }
    // A job that ends makes room.
    let mut ids = Vec::new();
    for response in accepted {
        ids.push(id_of(response).await);
    }
    expect_json(limited.delete(&format!("/api/job/{}", ids[0])).await, StatusCode::OK).await;
    ids.push(id_of(submit(&limited, 20).await).await);
    expect_problem(submit(&limited, 21).await, 429, "too_many_jobs").await;
    stack.start_node();
    for id in &ids[1..] {
        limited.job_ended(id).await;
    }
    id_of(submit(&limited, 22).await).await;
}

#[tokio::test]
async fn a_tenant_over_its_rate_is_told_when_to_come_back() {
    let stack = stack().await;
    let limited = client(&stack, &["--tenant", "slow", "--per-minute", "3"]);
    for marker in 0..3 {
        id_of(submit(&limited, marker).await).await;
    }
    for path in ["/api/submit-job", "/api/uploads"] {
        let response = limited.post_raw(path, "image/png", pictures::png(48, 9)).await;
        let seconds: u64 = response.headers()["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((1..=20).contains(&seconds), "{seconds}");
        expect_problem(response, 429, "rate_limited").await;
    }
    assert_eq!(limited.get("/api/jobs").await.status(), 200, "reading is not limited");
}
