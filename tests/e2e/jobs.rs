//! The life of a job over HTTP.

use orfeas_tests::client::{expect_json, expect_problem};
use orfeas_tests::pictures;
use orfeas_tests::stack::{Stack, StackOptions};
use reqwest::{Method, StatusCode};

#[tokio::test]
async fn a_submitted_picture_becomes_a_model() {
    let stack = Stack::start().await;
    let client = stack.client();
    let image = pictures::jpeg(256, 92, 4);
    let options = [("quality", "5"), ("target_faces", "4000"), ("seed", "7")];
    let response =
        client.post_form("/api/submit-job", "ball.jpg", "image/jpeg", image.clone(), &options).await;
    let location = response.headers()["location"].to_str().unwrap().to_owned();
    assert_eq!(response.headers()["x-orfeas-channel"], "stable");
    let job = expect_json(response, StatusCode::ACCEPTED).await;
    let id = job["id"].as_str().unwrap();
    assert_eq!(location, format!("/api/job/{id}"));
    assert_eq!((job["status"].as_str(), job["attempt"].as_u64()), (Some("queued"), Some(0)));
    assert_eq!(job["input"]["bytes"], image.len());

    let job = client.job_ended(id).await;
    assert_eq!(job["status"], "completed", "{job}");
    assert_eq!(job["progress"], 100);
    assert_eq!(job["model"]["seed"], 7);
    let result = &job["result"];
    assert_eq!(result["watertight"], true);
    assert!(result["faces"].as_u64().unwrap() <= 4_000, "{result}");
    assert!(job["started_at"].as_str() >= job["created_at"].as_str());
    assert!(job["completed_at"].as_str() >= job["started_at"].as_str());

    let response = client.get(result["url"].as_str().unwrap()).await;
    assert_eq!(response.headers()["content-type"], "model/gltf-binary");
    assert_eq!(response.headers()["content-length"], result["bytes"].to_string().as_str());
    assert_eq!(&response.bytes().await.unwrap()[..4], b"glTF");
}

#[tokio::test]
async fn generate_answers_with_the_model_itself() {
    let stack = Stack::start().await;
    let client = stack.client();
    let response = client.post_raw("/api/generate-3d?quality=5", "image/png", pictures::png(128, 1)).await;
    assert_eq!(response.status(), StatusCode::OK, "{}", response.text().await.unwrap());
    assert_eq!(response.headers()["content-type"], "model/gltf-binary");
    let id = response.headers()["x-job-id"].to_str().unwrap().to_owned();
    assert_eq!(response.headers()["x-model"].to_str().unwrap().split('@').next(), Some("silhouette"));
    assert!(response.headers()["content-disposition"].to_str().unwrap().contains(".glb"));
    assert_eq!(&response.bytes().await.unwrap()[..4], b"glTF");
    assert_eq!(client.job(&id).await["status"], "completed");

    let request = client.request(Method::POST, "/api/generate-3d?quality=5&format=stl");
    let request = request.header("accept", "application/json").header("content-type", "image/png");
    let job = expect_json(request.body(pictures::png(128, 2)).send().await.unwrap(), StatusCode::OK).await;
    assert_eq!(job["result"]["media_type"], "model/stl");
}

#[tokio::test]
async fn generate_hands_the_job_over_when_the_wait_runs_out() {
    let mut stack = Stack::start().await;
    stack.kill_node();
    let client = stack.client();
    let response =
        client.post_raw("/api/generate-3d?wait_seconds=1", "image/png", pictures::png(64, 1)).await;
    let location = response.headers()["location"].to_str().unwrap().to_owned();
    let job = expect_json(response, StatusCode::ACCEPTED).await;
    assert_eq!(location, format!("/api/job/{}", job["id"].as_str().unwrap()));

    let early = client.get(&format!("{location}/result")).await;
    expect_problem(early, 409, "job_not_finished").await;
    stack.start_node();
    assert_eq!(client.job_ended(job["id"].as_str().unwrap()).await["status"], "completed");
}

#[tokio::test]
async fn results_come_in_ranges_and_only_when_they_are_new() {
    let stack = Stack::start().await;
    let client = stack.client();
    let job = client.submit_png(pictures::png(96, 1), &[("quality", "5")]).await;
    let path = format!("/api/job/{}/result", job["id"].as_str().unwrap());
    client.job_ended(job["id"].as_str().unwrap()).await;
    let whole = client.get(&path).await;
    let etag = whole.headers()["etag"].clone();
    let whole = whole.bytes().await.unwrap();

    let ask = async |name: &str, value: &str| {
        client.request(Method::GET, &path).header(name, value).send().await.unwrap()
    };
    let middle = ask("range", "bytes=10-29").await;
    assert_eq!(middle.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(middle.headers()["content-range"], format!("bytes 10-29/{}", whole.len()).as_str());
    assert_eq!(middle.bytes().await.unwrap(), whole[10..30]);
    let tail = ask("range", "bytes=-5").await;
    assert_eq!(tail.bytes().await.unwrap(), whole[whole.len() - 5..]);
    let outside = ask("range", &format!("bytes={}-", whole.len())).await;
    assert_eq!(outside.status(), StatusCode::RANGE_NOT_SATISFIABLE);
    let unchanged = ask("if-none-match", etag.to_str().unwrap()).await;
    assert_eq!(unchanged.status(), StatusCode::NOT_MODIFIED);
    assert!(unchanged.bytes().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_cancelled_job_in_the_queue_never_starts() {
    let mut stack = Stack::start().await;
    stack.kill_node();
    let client = stack.client();
    let job = client.submit_png(pictures::png(64, 1), &[]).await;
    let path = format!("/api/job/{}", job["id"].as_str().unwrap());
    let cancelled = expect_json(client.delete(&path).await, StatusCode::OK).await;
    assert_eq!(cancelled["status"], "cancelled");
    expect_problem(client.delete(&path).await, 409, "job_already_ended").await;

    // A later job of the same queue has run, so the node has passed over the cancelled one.
    stack.start_node();
    let later = client.submit_png(pictures::png(64, 2), &[("priority", "1")]).await;
    client.job_ended(later["id"].as_str().unwrap()).await;
    let job = client.job(job["id"].as_str().unwrap()).await;
    assert_eq!((job["status"].as_str(), job["started_at"].as_str()), (Some("cancelled"), None));
}

#[tokio::test]
async fn a_running_job_stops_when_it_is_cancelled() {
    let stack = Stack::start().await;
    let client = stack.client();
    let job =
        client.submit_png(pictures::png(1024, 1), &[("quality", "10"), ("target_faces", "1000000")]).await;
    let id = job["id"].as_str().unwrap();
    client.job_when(id, "runs", |job| job["status"] == "processing").await;
    expect_json(client.delete(&format!("/api/job/{id}")).await, StatusCode::OK).await;
    let job = client.job_ended(id).await;
    assert_eq!(job["status"], "cancelled", "{job}");
    assert!(job["result"].is_null());
}

#[tokio::test]
async fn urgent_jobs_overtake_those_that_wait() {
    let mut stack =
        Stack::start_with(StackOptions { node: &["--concurrency", "1"], ..StackOptions::default() }).await;
    stack.kill_node();
    let client = stack.client();
    let mut ids = Vec::new();
    for (marker, priority) in [(1, "1"), (2, "5"), (3, "10")] {
        let job = client.submit_png(pictures::png(64, marker), &[("priority", priority)]).await;
        ids.push(job["id"].as_str().unwrap().to_owned());
    }
    stack.start_node();
    let mut starts = Vec::new();
    for id in &ids {
        starts.push(client.job_ended(id).await["started_at"].as_str().unwrap().to_owned());
    }
    assert!(starts[2] < starts[1] && starts[1] < starts[0], "{starts:?}");
}

#[tokio::test]
async fn the_same_idempotency_key_gives_the_same_job() {
    let stack = Stack::start().await;
    let client = stack.client();
    let send = async |marker: u8| {
        let request =
            client.request(Method::POST, "/api/submit-job?quality=5").header("idempotency-key", "order-17");
        request.header("content-type", "image/png").body(pictures::png(64, marker)).send().await.unwrap()
    };
    let first = expect_json(send(1).await, StatusCode::ACCEPTED).await;
    let again = send(1).await;
    assert!(again.status().is_success());
    let again: serde_json::Value = again.json().await.unwrap();
    assert_eq!(first["id"], again["id"]);
    expect_problem(send(2).await, 422, "idempotency_conflict").await;
}

#[tokio::test]
async fn an_empty_picture_fails_with_no_subject() {
    let stack = Stack::start().await;
    let client = stack.client();
    let mut blank = std::io::Cursor::new(Vec::new());
    image::RgbaImage::new(64, 64).write_to(&mut blank, image::ImageFormat::Png).unwrap();
    let job = client.submit_png(blank.into_inner(), &[]).await;
    let job = client.job_ended(job["id"].as_str().unwrap()).await;
    assert_eq!((job["status"].as_str(), job["error"]["code"].as_str()), (Some("failed"), Some("no_subject")));
    let response = client.get(&format!("/api/job/{}/result", job["id"].as_str().unwrap())).await;
    expect_problem(response, 409, "job_has_no_result").await;
}
