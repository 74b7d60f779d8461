//! The block list: filled by the node's command line, asked by every way in.

use std::time::{Duration, Instant};

use async_nats::Request;
use orfeas_tests::client::expect_problem;
use orfeas_tests::pictures;
use orfeas_tests::stack::Stack;
use orfeas_tests::wait::PATIENCE;
use sha2::{Digest, Sha256};

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn a_flagged_picture_is_refused_within_a_second_on_every_way_in() {
    let stack = Stack::start().await;
    let client = stack.client();
    let bus = stack.bus.connect().await;
    let image = pictures::png(64, 9);
    client.submit_png(image.clone(), &[]).await;

    let list = stack.dir().join("bad.txt");
    std::fs::write(&list, format!("# a list\n{}  picture.png\n", hex(&image).to_uppercase())).unwrap();
    stack.node_command(&["blocklist", "import", list.to_str().unwrap()]);
    let imported = Instant::now();
    // Within a second, and sooner: the first request after the import.
    let response = client.post_raw("/api/submit-job", "image/png", image.clone()).await;
    expect_problem(response, 422, "file_flagged").await;
    assert!(imported.elapsed() < Duration::from_secs(1));
    expect_problem(client.post_raw("/api/uploads", "image/png", image.clone()).await, 422, "file_flagged")
        .await;

    let by_digest = serde_json::json!({"params": {"image_sha256": hex(&image)}}).to_string();
    let response = client.post_raw("/api/submit-job", "application/json", by_digest).await;
    expect_problem(response, 422, "file_flagged").await;

    let request = Request::new().payload(image.clone().into()).timeout(Some(PATIENCE));
    let reply = bus.send_request("orfeas.local.submit", request).await.unwrap();
    let problem: serde_json::Value = serde_json::from_slice(&reply.payload).unwrap();
    assert_eq!(problem["code"], "file_flagged");

    assert!(stack.node_command(&["blocklist", "list"]).contains(&hex(&image)));
    stack.node_command(&["blocklist", "remove", &hex(&image)]);
    client.submit_png(image, &[]).await;
}

#[tokio::test]
async fn without_a_readable_block_list_nothing_is_accepted() {
    let stack = Stack::start().await;
    let jetstream = async_nats::jetstream::new(stack.bus.connect().await);
    jetstream.delete_key_value("orfeas_blocklist").await.unwrap();
    let response = stack.client().post_raw("/api/uploads", "image/png", pictures::png(64, 1)).await;
    expect_problem(response, 503, "upstream_unavailable").await;
}
