//! Errors that are not about pictures: their codes, and that they are problem objects.

use orfeas_tests::client::expect_problem;
use orfeas_tests::exposition::{Expected, Exposition};
use orfeas_tests::stack::Stack;
use orfeas_tests::{pictures, wait};
use std::time::{Duration, Instant};

#[tokio::test]
async fn every_error_is_a_problem_object_with_its_code() {
    let stack = Stack::start().await;
    let client = stack.client();
    let image = pictures::png(64, 1);
    let submit = async |options: &[(&str, &str)]| {
        client.post_form("/api/submit-job", "a.png", "image/png", image.clone(), options).await
    };

    let problem = expect_problem(submit(&[("quality", "11")]).await, 400, "invalid_option").await;
    assert_eq!(problem["option"], "quality");
    expect_problem(submit(&[("colour", "red")]).await, 400, "invalid_option").await;
    expect_problem(client.get("/api/job/not-an-id").await, 404, "not_found").await;
    expect_problem(client.get("/api/job/01900000-0000-7000-8000-000000000000").await, 404, "not_found").await;
    expect_problem(client.get("/nowhere").await, 404, "not_found").await;
    expect_problem(client.delete("/api/submit-job").await, 405, "method_not_allowed").await;
    let broken = client.post_raw("/api/submit-job", "multipart/form-data; boundary=x", "--x\r\nbroken").await;
    expect_problem(broken, 400, "invalid_request").await;
    let json = client.post_raw("/api/submit-job", "application/json", "{").await;
    expect_problem(json, 400, "invalid_request").await;
}

#[tokio::test]
async fn request_ids_are_kept_and_bad_ones_replaced() {
    let stack = Stack::start().await;
    let client = stack.client();
    let ask = async |id: &str| {
        let request = client.request(reqwest::Method::GET, "/livez").header("x-request-id", id);
        request.send().await.unwrap().headers()["x-request-id"].to_str().unwrap().to_owned()
    };
    assert_eq!(ask("caller-7").await, "caller-7");
    let made = ask("not valid !").await;
    assert!(made != "not valid !" && made.len() >= 16, "{made}");
}

#[tokio::test]
async fn without_the_bus_uploads_are_refused_at_once_and_served_again_afterwards() {
    let mut stack = Stack::start().await;
    let client = stack.client();
    client.submit_png(pictures::png(64, 1), &[]).await;
    stack.bus.kill();

    let mut times = Vec::new();
    for _ in 0..3 {
        let start = Instant::now();
        let response = client.post_raw("/api/submit-job", "image/png", pictures::png(64, 2)).await;
        assert!(response.headers().contains_key("retry-after"));
        expect_problem(response, 503, "upstream_unavailable").await;
        times.push(start.elapsed());
    }
    assert!(wait::longest_but_one(&times) < Duration::from_secs(3), "{times:?}");
    assert_eq!(client.get("/livez").await.status(), 200);
    expect_problem(client.get("/readyz").await, 503, "upstream_unavailable").await;

    stack.bus.restart().await;
    wait::until("edge is ready again", wait::PATIENCE, || async {
        (client.get("/readyz").await.status() == 200).then_some(())
    })
    .await;
    let job = client.submit_png(pictures::png(64, 3), &[]).await;
    assert_eq!(client.job_ended(job["id"].as_str().unwrap()).await["status"], "completed");
}

#[tokio::test]
async fn what_is_not_http_is_answered_with_a_problem_on_both_ports() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let stack = Stack::start().await;
    let long = format!("GET / HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(300_000));
    let cases = [
        ("NONSENSE\r\n\r\n", 400, "invalid_request"),
        ("GET / HTTP/9.9\r\n\r\n", 400, "invalid_request"),
        ("GET / HTTP/1.1\r\nbad header\r\n\r\n", 400, "invalid_request"),
        (long.as_str(), 431, "headers_too_large"),
    ];
    for (port, url) in [("public", &stack.edge.url), ("admin", &stack.edge.admin)] {
        for (request, status, code) in cases {
            let address = url.trim_start_matches("http://");
            let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
            // The edge may close before it has read all of it.
            let _ = stream.write_all(request.as_bytes()).await;
            let mut answer = Vec::new();
            let mut buffer = [0; 4096];
            while let Ok(Ok(n @ 1..)) = tokio::time::timeout(wait::PATIENCE, stream.read(&mut buffer)).await {
                answer.extend_from_slice(&buffer[..n]);
            }
            let answer = String::from_utf8(answer).unwrap();
            let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{port}: {answer:?}"));
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{port}: {answer}");
            assert!(head.contains("content-type: application/problem+json"), "{port}: {answer}");
            let problem: serde_json::Value = serde_json::from_str(body).unwrap();
            assert_eq!((&problem["code"], &problem["status"]), (&code.into(), &status.into()), "{port}");
            let id = format!("x-request-id: {}", problem["request_id"].as_str().unwrap());
            assert!(head.contains(&id), "{port}: {answer}");
        }
    }
    let counted: Expected<'_> = ("requests_total", &[("endpoint", "none"), ("method", "OTHER")], 4.0);
    Exposition::once_it_tells(&stack.edge.admin, &[counted]).await;
}
