//! Pictures of a subject's sides, uploaded together.

use std::collections::BTreeSet;

use orfeas_tests::client::{expect_json, expect_problem};
use orfeas_tests::pictures;
use orfeas_tests::stack::Stack;
use reqwest::StatusCode;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::miniature::{CONFIG, FAMILY, OPTIONS, WEIGHTS, folder, stack};

/// The miniature checkpoint as a model of several views, which has the same weights.
fn models_of_views() -> tempfile::TempDir {
    let models = tempfile::tempdir().unwrap();
    let of_views = models.path().join(FAMILY);
    std::fs::create_dir(&of_views).unwrap();
    let config = std::fs::read_to_string(folder().join(CONFIG)).unwrap();
    let config_of_views = config.replace("DinoImageEncoder\n", "DinoImageEncoderMV\n");
    assert_ne!(config_of_views, config);
    std::fs::write(of_views.join(CONFIG), config_of_views).unwrap();
    std::fs::copy(folder().join(WEIGHTS), of_views.join(WEIGHTS)).unwrap();
    models
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The ball, seen from four sides: each file with a digest of its own.
fn sides() -> [(&'static str, Vec<u8>); 4] {
    [("left", 1), ("front", 2), ("right", 3), ("back", 4)]
        .map(|(side, marker)| (side, pictures::png(96, marker)))
}

async fn stored_options(stack: &Stack, id: &str) -> Value {
    let jetstream = async_nats::jetstream::new(stack.bus.connect().await);
    let records = jetstream.get_key_value("orfeas_jobs_local").await.unwrap();
    let record: Value = serde_json::from_slice(&records.get(id).await.unwrap().unwrap()).unwrap();
    record["options"].clone()
}

async fn stored_messages(stack: &Stack) -> u64 {
    let jetstream = async_nats::jetstream::new(stack.bus.connect().await);
    let mut stream = jetstream.get_stream("OBJ_orfeas_uploads_local").await.unwrap();
    stream.info().await.unwrap().state.messages
}

#[tokio::test]
async fn a_form_of_four_sides_becomes_a_model_that_saw_them_all() {
    let models = models_of_views();
    let stack = stack(models.path()).await;
    let client = stack.client();
    let sides = sides();
    let response = client.post_parts("/api/submit-job", &sides, &OPTIONS).await;
    let job = expect_json(response, StatusCode::ACCEPTED).await;
    let id = job["id"].as_str().unwrap();

    let options = stored_options(&stack, id).await;
    let [(_, left), (_, front), (_, right), (_, back)] = &sides;
    assert_eq!(job["input"]["sha256"], hex(front));
    for (option, picture) in [("left_sha256", left), ("right_sha256", right), ("back_sha256", back)] {
        assert_eq!(options[option], hex(picture), "{option}");
    }
    let jetstream = async_nats::jetstream::new(stack.bus.connect().await);
    let uploads = jetstream.get_object_store("orfeas_uploads_local").await.unwrap();
    let mut names = BTreeSet::new();
    for (side, picture) in &sides {
        let mut object = uploads.get(hex(picture)).await.unwrap();
        let mut stored = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut object, &mut stored).await.unwrap();
        assert!(stored == *picture, "{side}");
        names.insert(hex(picture));
    }
    assert_eq!(names.len(), 4);

    let of_four = client.job_ended(id).await;
    assert_eq!(of_four["status"], "completed", "{of_four}");
    let of_one = client.submit_png(front.clone(), &OPTIONS).await;
    let of_one = client.job_ended(of_one["id"].as_str().unwrap()).await;
    assert_ne!(of_one["result"]["sha256"], of_four["result"]["sha256"]);
    // The same sides by their digests are the same job.
    let by_digest = [("left_sha256", left), ("right_sha256", right), ("back_sha256", back)]
        .map(|(option, picture)| (option, hex(picture)));
    let options: Vec<_> = OPTIONS
        .into_iter()
        .chain(by_digest.iter().map(|(option, digest)| (*option, digest.as_str())))
        .collect();
    let again = client.submit_png(front.clone(), &options).await;
    let again = client.job_ended(again["id"].as_str().unwrap()).await;
    assert_eq!(again["result"]["sha256"], of_four["result"]["sha256"]);
}

#[tokio::test]
async fn a_side_that_is_refused_refuses_the_request_and_leaves_nothing_behind() {
    let stack = Stack::start().await;
    let client = stack.client();
    let [left, front, right, back] = sides();
    stack.node_command(&["blocklist", "add", &hex(&back.1)]);
    let parts = [front.clone(), left.clone(), back.clone(), right.clone()];
    for path in ["/api/submit-job", "/api/generate-3d"] {
        let problem = expect_problem(client.post_parts(path, &parts, &[]).await, 422, "file_flagged").await;
        assert_eq!(problem["side"], "back");
    }
    let truncated = ("right", right.1[..right.1.len() / 2].to_vec());
    let response = client.post_parts("/api/submit-job", &[left.clone(), truncated, front.clone()], &[]).await;
    let problem = expect_problem(response, 422, "invalid_image").await;
    assert_eq!(problem["side"], "right");
    let twice = [front.clone(), left.clone(), left.clone()];
    expect_problem(client.post_parts("/api/submit-job", &twice, &[]).await, 400, "invalid_request").await;
    let alone = [left.clone()];
    expect_problem(client.post_parts("/api/submit-job", &alone, &[]).await, 400, "invalid_request").await;
    let unknown = [front.clone(), ("top", left.1)];
    expect_problem(client.post_parts("/api/submit-job", &unknown, &[]).await, 400, "invalid_option").await;
    let nowhere = "0".repeat(64);
    let options = [("back_sha256", nowhere.as_str())];
    let response = client.post_parts("/api/submit-job", &[front], &options).await;
    assert_eq!(expect_problem(response, 404, "not_found").await["side"], "back");
    assert_eq!(stored_messages(&stack).await, 0);
}
