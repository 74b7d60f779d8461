//! The same service over NATS request/reply.

use std::time::Duration;

use async_nats::{HeaderMap, Message, Request};
use orfeas_tests::pictures;
use orfeas_tests::stack::Stack;
use serde_json::{Value, json};

async fn ask(
    client: &async_nats::Client,
    endpoint: &str,
    options: Option<Value>,
    payload: Vec<u8>,
) -> Message {
    let mut headers = HeaderMap::new();
    if let Some(options) = options {
        headers.insert("Orfeas-Options", options.to_string());
    }
    let request =
        Request::new().headers(headers).payload(payload.into()).timeout(Some(Duration::from_secs(120)));
    client.send_request(format!("orfeas.local.{endpoint}"), request).await.unwrap()
}

fn body(message: &Message) -> Value {
    serde_json::from_slice(&message.payload).unwrap()
}

fn error_code(message: &Message) -> Option<String> {
    message.headers.as_ref()?.get("Nats-Service-Error-Code").map(ToString::to_string)
}

#[tokio::test]
async fn generate_replies_when_the_model_is_in_the_object_store() {
    let stack = Stack::start().await;
    let client = stack.bus.connect().await;
    let reply = ask(&client, "generate", Some(json!({"quality": 5})), pictures::png(96, 1)).await;
    assert_eq!(error_code(&reply), None, "{}", body(&reply));
    let job = body(&reply);
    assert_eq!(job["status"], "completed");

    let jetstream = async_nats::jetstream::new(client);
    let store = jetstream.get_object_store("orfeas_results_local").await.unwrap();
    let mut object = store.get(job["id"].as_str().unwrap()).await.unwrap();
    let mut model = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(&mut object, &mut model).await.unwrap();
    assert_eq!(model.len() as u64, job["result"]["bytes"].as_u64().unwrap());
    assert_eq!(&model[..4], b"glTF");
}

#[tokio::test]
async fn submit_status_and_cancel_speak_of_the_same_job_as_http() {
    let stack = Stack::start().await;
    let client = stack.bus.connect().await;
    let job = body(&ask(&client, "submit", None, pictures::png(64, 1)).await);
    let id = job["id"].as_str().unwrap();
    stack.client().job_ended(id).await;
    let status = body(&ask(&client, "status", None, json!({"id": id}).to_string().into_bytes()).await);
    assert_eq!(status, stack.client().job(id).await);

    let late = ask(&client, "cancel", None, json!({"id": id}).to_string().into_bytes()).await;
    assert_eq!(error_code(&late).as_deref(), Some("409"));
    assert_eq!(body(&late)["code"], "job_already_ended");
    let unknown = json!({"id": "01900000-0000-7000-8000-000000000000"}).to_string().into_bytes();
    assert_eq!(error_code(&ask(&client, "status", None, unknown).await).as_deref(), Some("404"));
}

#[tokio::test]
async fn pictures_pass_the_same_checks_as_at_the_edge() {
    let stack = Stack::start().await;
    let client = stack.bus.connect().await;
    let png = pictures::png(64, 1);
    let cases = [
        (None, png[..png.len() - 9].to_vec(), "422", "invalid_image"),
        (None, b"GIF89a".to_vec(), "415", "invalid_image_format"),
        (Some(json!({"quality": 12})), png.clone(), "400", "invalid_option"),
        (None, pictures::png(15, 1), "422", "image_dimensions"),
    ];
    for (options, payload, status, code) in cases {
        let reply = ask(&client, "submit", options, payload).await;
        assert_eq!(error_code(&reply).as_deref(), Some(status));
        assert_eq!(body(&reply)["code"], code);
    }
}

#[tokio::test]
async fn the_micro_service_answers_ping_info_and_stats() {
    let stack = Stack::start().await;
    let client = stack.bus.connect().await;
    for verb in ["PING", "INFO", "STATS"] {
        let reply = client.request(format!("$SRV.{verb}.orfeas"), "".into()).await.unwrap();
        assert_eq!(body(&reply)["name"], "orfeas");
    }
}

#[tokio::test]
async fn every_change_of_a_job_is_published() {
    use futures::StreamExt;
    let stack = Stack::start().await;
    let client = stack.bus.connect().await;
    let mut events = client.subscribe("orfeas.local.events.*").await.unwrap();
    client.flush().await.unwrap();
    let job = stack.client().submit_png(pictures::png(128, 1), &[]).await;
    let mut seen = Vec::new();
    loop {
        let event = tokio::time::timeout(Duration::from_secs(60), events.next()).await.unwrap().unwrap();
        let change: Value = serde_json::from_slice(&event.payload).unwrap();
        assert_eq!(change["id"], job["id"]);
        assert!(change.get("tenant").is_none(), "the job object, not the record");
        let status = change["status"].as_str().unwrap().to_owned();
        let ended = status == "completed";
        seen.push((status, change["progress"].as_u64().unwrap()));
        if ended {
            break;
        }
    }
    assert!(seen.iter().any(|(status, _)| status == "processing"), "{seen:?}");
    assert!(seen.is_sorted_by_key(|(_, progress)| *progress), "{seen:?}");
}
