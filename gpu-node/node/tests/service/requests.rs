//! The micro service's answers.

use serde_json::json;

use crate::harness::{Caller, Node, Server, body, picture};

fn code(message: &async_nats::Message) -> Option<String> {
    message.headers.as_ref()?.get("Nats-Service-Error-Code").map(ToString::to_string)
}

#[tokio::test]
async fn errors_carry_the_service_headers_and_a_problem() {
    let server = Server::start().await;
    let _node = Node::start(&server, "").await;
    let caller = Caller::of(&server).await;
    let whole = picture(0);
    let absent = json!({"image_sha256": "00".repeat(32)});
    let cases = [
        (None, whole[..whole.len() - 9].to_vec(), "422", "invalid_image"),
        (None, b"GIF89a".to_vec(), "415", "invalid_image_format"),
        (None, Vec::new(), "400", "invalid_request"),
        (Some(absent), Vec::new(), "404", "not_found"),
        (Some(json!({"quality": 12})), whole.clone(), "400", "invalid_option"),
        (Some(json!({"image_sha256": "00".repeat(32)})), whole, "400", "invalid_request"),
    ];
    for (options, payload, status, problem) in cases {
        let reply = caller.ask("submit", options, payload).await;
        assert_eq!(code(&reply).as_deref(), Some(status), "{}", body(&reply));
        assert_eq!(body(&reply)["code"], problem);
        assert!(body(&reply)["request_id"].is_string(), "{}", body(&reply));
    }
}

#[tokio::test]
async fn a_stored_picture_can_be_submitted_by_its_digest() {
    let server = Server::start().await;
    let _node = Node::start(&server, "").await;
    let caller = Caller::of(&server).await;
    let first = body(&caller.ask("submit", None, picture(3)).await);
    let again = json!({"image_sha256": first["input"]["sha256"], "format": "stl"});
    let second = body(&caller.ask("generate", Some(again), Vec::new()).await);
    assert_eq!(second["input"], first["input"]);
    assert_eq!(second["status"], "completed");
}

#[tokio::test]
async fn a_blocked_picture_is_refused_and_without_a_list_every_picture_is() {
    let server = Server::start().await;
    let _node = Node::start(&server, "").await;
    let caller = Caller::of(&server).await;
    let digest = orfeas_protocol::Sha256Digest::of(picture(4));
    let list = caller.jetstream.get_key_value("orfeas_blocklist").await.unwrap();
    let key = format!("sha256.{digest}");
    list.put(&key, "{}".into()).await.unwrap();
    let refused = caller.ask("submit", None, picture(4)).await;
    assert_eq!(body(&refused)["code"], "file_flagged");
    assert_eq!(code(&caller.ask("submit", None, picture(5)).await), None, "another file");
    list.delete(&key).await.unwrap();
    assert_eq!(code(&caller.ask("submit", None, picture(4)).await), None, "it was taken off the list");
    caller.jetstream.delete_key_value("orfeas_blocklist").await.unwrap();
    assert_eq!(body(&caller.ask("submit", None, picture(5)).await)["code"], "upstream_unavailable");
}

#[tokio::test]
async fn a_job_that_outlasts_the_wait_is_answered_as_it_stands() {
    let server = Server::start().await;
    let node = Node::start(&server, "").await;
    let caller = Caller::of(&server).await;
    // Long enough for any machine to begin the run.
    let options = json!({"model": "gated", "wait_seconds": 5});
    let job = body(&caller.ask("generate", Some(options), picture(0)).await);
    assert_eq!(job["status"], "processing", "{job}");
    node.script.gate.send_replace(true);
    assert_eq!(caller.job_ended(job["id"].as_str().unwrap()).await["status"], "completed");
}

#[tokio::test]
async fn an_ended_job_cannot_be_cancelled_and_an_unknown_one_is_not_found() {
    let server = Server::start().await;
    let _node = Node::start(&server, "").await;
    let caller = Caller::of(&server).await;
    let job = body(&caller.ask("generate", None, picture(0)).await);
    assert_eq!(caller.cancel(job["id"].as_str().unwrap()).await["code"], "job_already_ended");
    for id in ["01900000-0000-7000-8000-000000000000", "../x", ""] {
        assert_eq!(caller.job(id).await["code"], "not_found");
    }
    let malformed = caller.ask("status", None, b"[]".to_vec()).await;
    assert_eq!(body(&malformed)["code"], "invalid_request");
}

#[tokio::test]
async fn a_full_queue_refuses_and_leaves_no_record_behind() {
    let server = Server::start().await;
    let node = Node::start(&server, "[work]\nqueue_messages_max = 1").await;
    let caller = Caller::of(&server).await;
    let id = caller.submit(json!({"model": "gated"})).await;
    node.script.wait_for_runs(1).await;
    let refused = body(&caller.ask("submit", None, picture(0)).await);
    assert_eq!(refused["code"], "queue_full", "{refused}");
    assert!(refused["retry_after_seconds"].as_u64().is_some());
    let keys = caller.jetstream.get_key_value("orfeas_jobs_local").await.unwrap();
    assert!(keys.get(&id).await.unwrap().is_some());
    use futures::TryStreamExt;
    let keys: Vec<String> = keys.keys().await.unwrap().try_collect().await.unwrap();
    assert_eq!(keys, std::slice::from_ref(&id));
    node.script.gate.send_replace(true);
    caller.job_ended(&id).await;
}

#[tokio::test]
async fn models_lists_the_channels_with_their_weights() {
    let server = Server::start().await;
    let _node = Node::start(&server, "").await;
    let caller = Caller::of(&server).await;
    let rollout = caller.jetstream.get_key_value("orfeas_rollout").await.unwrap();
    rollout.put("canary", json!({"canary_percent": 25.0}).to_string().into()).await.unwrap();
    let models = body(&caller.ask("models", None, Vec::new()).await);
    assert_eq!(models["channels"][1], json!({"channel": "canary", "weight_percent": 25.0}));
}
