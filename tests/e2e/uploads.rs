//! Uploads at the public edge: what is stored, what is refused, and at what cost.

use std::time::Duration;

use orfeas_tests::client::{expect_json, expect_problem};
use orfeas_tests::pictures;
use orfeas_tests::stack::{Stack, StackOptions};
use reqwest::StatusCode;
use sha2::{Digest, Sha256};

const LIMIT: usize = 50 * 1024 * 1024;

#[tokio::test]
async fn an_upload_is_stored_once_under_its_digest() {
    let stack = Stack::start().await;
    let client = stack.client();
    let image = pictures::png(128, 1);
    let digest = Sha256::digest(&image).iter().map(|byte| format!("{byte:02x}")).collect::<String>();

    let first = client.post_raw("/api/uploads", "image/png", image.clone()).await;
    let upload = expect_json(first, StatusCode::CREATED).await;
    assert_eq!(upload["sha256"], digest);
    assert_eq!((upload["format"].as_str(), upload["width"].as_u64()), (Some("png"), Some(128)));
    assert_eq!(upload["bytes"], image.len());

    let again = client.post_form("/api/uploads", "b.png", "image/png", image.clone(), &[]).await;
    assert_eq!(expect_json(again, StatusCode::OK).await["sha256"], digest);

    // What was stored reads back whole through a client of somebody else's making.
    let jetstream = async_nats::jetstream::new(stack.bus.connect().await);
    let store = jetstream.get_object_store("orfeas_uploads_local").await.unwrap();
    let mut object = store.get(digest.as_str()).await.unwrap();
    let mut stored = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(&mut object, &mut stored).await.unwrap();
    assert_eq!(stored, image);
}

#[tokio::test]
async fn a_stored_picture_can_be_named_by_its_digest() {
    let stack = Stack::start().await;
    let client = stack.client();
    let response = client.post_raw("/api/uploads", "image/webp", pictures::webp(96)).await;
    let upload = expect_json(response, StatusCode::CREATED).await;
    let body = serde_json::json!({"type": "3d_generation", "params": {"image_sha256": upload["sha256"]}, "priority": 9});
    let response = client.post_raw("/api/submit-job", "application/json", body.to_string()).await;
    let job = expect_json(response, StatusCode::ACCEPTED).await;
    assert_eq!(job["priority"], 9);
    assert_eq!(client.job_ended(job["id"].as_str().unwrap()).await["status"], "completed");
}

#[tokio::test]
async fn fifty_megabytes_are_stored_and_one_byte_more_is_not_read() {
    let stack = Stack::start().await;
    let client = stack.client();

    let response = client.post_raw("/api/uploads", "image/png", pictures::png_of_size(LIMIT)).await;
    assert_eq!(expect_json(response, StatusCode::CREATED).await["bytes"], LIMIT);

    // Content-Length alone decides: the answer comes although the body never does.
    let head = format!(
        "POST /api/uploads HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: {}\r\n\r\n",
        LIMIT + 1
    );
    let address = stack.edge.url.trim_start_matches("http://").to_owned();
    let answer = tokio::time::timeout(Duration::from_secs(5), async {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.windows(4).any(|end| end == b"\r\n\r\n") {
            assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0, "the answer's head is whole");
        }
        String::from_utf8_lossy(&answer).into_owned()
    });
    let answer = answer.await.expect("an answer before the body");
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");

    // Without a length the stream is cut off as it passes the limit.
    let large = bytes::Bytes::from(pictures::png_of_size(LIMIT + (12 << 20)));
    let chunks: Vec<_> = (0..large.len())
        .step_by(1 << 20)
        .map(|at| large.slice(at..large.len().min(at + (1 << 20))))
        .collect();
    let stream = futures::stream::iter(chunks.into_iter().map(Ok::<_, std::io::Error>));
    let sent = client
        .request(reqwest::Method::POST, "/api/uploads")
        .header("content-type", "image/png")
        .body(reqwest::Body::wrap_stream(stream))
        .send()
        .await;
    // The edge may close the connection while the client still writes; then there is no answer to read.
    if let Ok(response) = sent {
        expect_problem(response, 413, "image_too_large").await;
    }
}

#[tokio::test]
async fn fifty_megabytes_are_stored_within_64_mib_of_an_instance() {
    // The host refuses an instance more memory than this, and a refusal is a trap.
    let options = StackOptions { edge: &["--instance-memory-mib", "64"], ..StackOptions::default() };
    let stack = Stack::start_with(options).await;
    let client = stack.client();
    for body in [pictures::png_of_size(LIMIT), pictures::png_of_size(LIMIT - 1)] {
        let bytes = body.len();
        let response = client.post_raw("/api/uploads", "image/png", body).await;
        assert_eq!(expect_json(response, StatusCode::CREATED).await["bytes"], bytes);
    }
    let metrics = reqwest::get(format!("{}/metrics", stack.edge.admin)).await.unwrap().text().await.unwrap();
    assert!(!metrics.contains("orfeas_wasm_failures_total{"), "{metrics}");
}

#[tokio::test]
async fn bad_pictures_are_refused_with_the_codes_of_the_contract() {
    let stack = Stack::start().await;
    let client = stack.client();
    let png = pictures::png(64, 2);
    let jpeg = pictures::jpeg(64, 90, 0);
    let mut flipped = png.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0x10;
    let mut polyglot = jpeg.clone();
    polyglot.extend_from_slice(b"PK\x03\x04 and the rest of an archive");

    let cases: Vec<(&str, &str, Vec<u8>, u16, &str)> = vec![
        (
            "a.png",
            "image/png",
            b"<svg xmlns='http://www.w3.org/2000/svg'/>".to_vec(),
            415,
            "invalid_image_format",
        ),
        ("a.gif", "image/gif", b"GIF89a\x10\0\x10\0\0\0\0".to_vec(), 415, "invalid_image_format"),
        ("a.jpg", "image/jpeg", png.clone(), 415, "invalid_image_format"),
        ("a.jpg", "image/png", png.clone(), 415, "invalid_image_format"),
        ("a.png", "image/png", png[..png.len() - 20].to_vec(), 422, "invalid_image"),
        ("a.png", "image/png", flipped, 422, "invalid_image"),
        ("a.jpg", "image/jpeg", jpeg[..jpeg.len() * 9 / 10].to_vec(), 422, "invalid_image"),
        ("a.jpg", "image/jpeg", polyglot, 422, "invalid_image"),
        ("a.png", "image/png", pictures::png(15, 0), 422, "image_dimensions"),
        ("a.png", "image/png", Vec::new(), 415, "invalid_image_format"),
    ];
    for (name, media_type, body, status, code) in cases {
        println!("{name} as {media_type}, {} bytes: {status} {code}", body.len());
        let response = client.post_form("/api/submit-job", name, media_type, body, &[]).await;
        expect_problem(response, status, code).await;
    }
    // Nothing of them stayed behind.
    let jetstream = async_nats::jetstream::new(stack.bus.connect().await);
    let mut stream = jetstream.get_stream("OBJ_orfeas_uploads_local").await.unwrap();
    assert_eq!(stream.info().await.unwrap().state.messages, 0);
}

#[tokio::test]
async fn hostile_file_names_are_only_names() {
    let stack = Stack::start().await;
    let client = stack.client();
    for name in
        ["../../etc/passwd.png", "a\u{0}b.png", "\u{202e}gnp.exe.png", "'; DROP TABLE jobs; --.png", ".png"]
    {
        let response = client.post_form("/api/uploads", name, "image/png", pictures::png(32, 3), &[]).await;
        assert!(response.status().is_success(), "{name:?}: {}", response.text().await.unwrap());
    }
}
