//! What a picture says about its maker: it is in what is sent, and in nothing that is stored.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::time::Duration;

use async_nats::jetstream::{self, object_store::ObjectMetadata};
use async_nats::{HeaderMap, Request};
use futures::TryStreamExt;
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageReader};
use orfeas_tests::client::expect_json;
use orfeas_tests::pictures::labelled_jpeg;
use orfeas_tests::stack::Stack;
use reqwest::StatusCode;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const SECRET: &str = "Jane-Doe-52.5200N-13.4050E";

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn holds_secret(bytes: &[u8]) -> bool {
    bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes())
}

/// The subjects of all that the server has stored, in whichever stream, with the secret in it.
async fn subjects_with_secret(stack: &Stack) -> Vec<String> {
    let jetstream = jetstream::new(stack.bus.connect().await);
    let names: Vec<String> = jetstream.stream_names().try_collect().await.unwrap();
    assert!(names.iter().any(|name| name == "OBJ_orfeas_uploads_local"), "{names:?}");
    let mut stored: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for name in names {
        let mut stream = jetstream.get_stream(&name).await.unwrap();
        let state = stream.info().await.unwrap().state.clone();
        for sequence in state.first_sequence.max(1)..=state.last_sequence {
            // Others have been replaced or removed, and are not there any more.
            if let Ok(message) = stream.get_raw_message(sequence).await {
                // A chunk goes on where the one before it ended.
                stored.entry(message.subject.to_string()).or_default().extend_from_slice(&message.payload);
            }
        }
    }
    assert!(stored.keys().any(|subject| subject.starts_with("$O.orfeas_uploads_local.C.")));
    stored.into_iter().filter(|(_, bytes)| holds_secret(bytes)).map(|(subject, _)| subject).collect()
}

/// A stored picture, read through a client of somebody else's making, which checks the store's own digest.
async fn stored_picture(stack: &Stack, name: &str) -> Vec<u8> {
    let jetstream = jetstream::new(stack.bus.connect().await);
    let store = jetstream.get_object_store("orfeas_uploads_local").await.unwrap();
    let mut object = store.get(name).await.unwrap();
    let mut bytes = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(&mut object, &mut bytes).await.unwrap();
    bytes
}

/// Stores bytes as another system may, which knows the bucket.
async fn put_foreign(stack: &Stack, name: &str, bytes: &[u8], metadata: &[(&str, &str)]) {
    let jetstream = jetstream::new(stack.bus.connect().await);
    let store = jetstream.get_object_store("orfeas_uploads_local").await.unwrap();
    let metadata = metadata.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let described = ObjectMetadata { name: name.to_owned(), metadata, ..ObjectMetadata::default() };
    store.put(described, &mut Cursor::new(bytes)).await.unwrap();
}

fn decode(bytes: &[u8]) -> (DynamicImage, Orientation) {
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().unwrap();
    let mut decoder = reader.into_decoder().unwrap();
    let orientation = decoder.orientation().unwrap();
    (DynamicImage::from_decoder(decoder).unwrap(), orientation)
}

/// Submits over the bus; the answer's error code beside its body.
async fn submit_by_bus(stack: &Stack, options: Value, payload: Vec<u8>) -> (Option<String>, Value) {
    let client = stack.bus.connect().await;
    let mut headers = HeaderMap::new();
    headers.insert("Orfeas-Options", options.to_string());
    let request = Request::new().headers(headers).payload(payload.into());
    let request = request.timeout(Some(Duration::from_secs(60)));
    let reply = client.send_request("orfeas.local.submit", request).await.unwrap();
    let code = reply.headers.as_ref().and_then(|headers| headers.get("Nats-Service-Error-Code"));
    (code.map(ToString::to_string), serde_json::from_slice(&reply.payload).unwrap())
}

async fn completes(stack: &Stack, job: &Value, name: &str) {
    assert_eq!(job["input"]["sha256"], name, "{job}");
    let ended = stack.client().job_ended(job["id"].as_str().unwrap()).await;
    assert_eq!(ended["status"], "completed", "{ended}");
}

#[tokio::test]
async fn nothing_that_is_stored_says_where_or_by_whom_a_picture_was_taken() {
    let stack = Stack::start().await;
    let client = stack.client();
    let [uploaded, submitted, by_bus] = [1, 2, 3].map(|marker| labelled_jpeg(96, marker, SECRET));
    let names = [&uploaded, &submitted, &by_bus].map(|picture| hex(picture));
    assert!([&uploaded, &submitted, &by_bus].iter().all(|picture| holds_secret(picture)));

    let response = client.post_raw("/api/uploads", "image/jpeg", uploaded.clone()).await;
    let upload = expect_json(response, StatusCode::CREATED).await;
    assert_eq!((&upload["sha256"], &upload["bytes"]), (&json!(names[0]), &json!(uploaded.len())));
    let again = client.post_raw("/api/uploads", "image/jpeg", uploaded.clone()).await;
    assert_eq!(expect_json(again, StatusCode::OK).await, upload);
    let response = client.post_form("/api/submit-job", "a.jpg", "image/jpeg", submitted.clone(), &[]).await;
    let of_form = expect_json(response, StatusCode::ACCEPTED).await;
    let (_, of_bus) = submit_by_bus(&stack, json!({}), by_bus.clone()).await;
    let body = json!({"type": "3d_generation", "params": {"image_sha256": names[2]}}).to_string();
    let response = client.post_raw("/api/submit-job", "application/json", body).await;
    let by_name = expect_json(response, StatusCode::ACCEPTED).await;
    let (_, by_name_and_bus) = submit_by_bus(&stack, json!({"image_sha256": names[0]}), Vec::new()).await;
    for (job, name) in
        [(&of_form, &names[1]), (&of_bus, &names[2]), (&by_name, &names[2]), (&by_name_and_bus, &names[0])]
    {
        completes(&stack, job, name).await;
    }

    assert_eq!(subjects_with_secret(&stack).await, Vec::<String>::new());
    for (sent, name) in [&uploaded, &submitted, &by_bus].into_iter().zip(&names) {
        let stored = stored_picture(&stack, name).await;
        assert_eq!(stored.len(), sent.len());
        let (pixels, orientation) = decode(&stored);
        assert!((pixels, orientation) == decode(sent) && orientation == Orientation::Rotate90);
    }
}

#[tokio::test]
async fn what_others_stored_with_its_metadata_loses_it_when_it_is_sent_again() {
    let stack = Stack::start().await;
    let client = stack.client();
    let [by_form, by_bus] = [4, 5].map(|marker| labelled_jpeg(96, marker, SECRET));
    for picture in [&by_form, &by_bus] {
        put_foreign(&stack, &hex(picture), picture, &[]).await;
    }
    assert_eq!(subjects_with_secret(&stack).await.len(), 2);
    // It was there, so it is not new.
    let response = client.post_raw("/api/uploads", "image/jpeg", by_form.clone()).await;
    expect_json(response, StatusCode::OK).await;
    let (_, job) = submit_by_bus(&stack, json!({"image_sha256": hex(&by_bus)}), Vec::new()).await;
    completes(&stack, &job, &hex(&by_bus)).await;
    assert_eq!(subjects_with_secret(&stack).await, Vec::<String>::new());
    assert_eq!(stored_picture(&stack, &hex(&by_form)).await.len(), by_form.len());
}

#[tokio::test]
async fn bytes_that_differ_from_their_name_are_a_picture_only_if_marked_and_without_metadata() {
    let stack = Stack::start().await;
    let sent = labelled_jpeg(96, 6, SECRET);
    let name = hex(&sent);
    let (code, job) = submit_by_bus(&stack, json!({}), sent.clone()).await;
    assert_eq!(code, None, "{job}");
    let left = stored_picture(&stack, &name).await;
    let [unmarked, marked_with_metadata, marked_for_another, marked] = [1u8, 2, 3, 4].map(|n| hex(&[n]));
    let mark = |name: &str| [("sent_sha256".to_owned(), name.to_owned())];
    put_foreign(&stack, &unmarked, &left, &[]).await;
    for (name, bytes, [(key, value)]) in [
        (&marked_with_metadata, &sent, mark(&marked_with_metadata)),
        (&marked_for_another, &left, mark(&name)),
        (&marked, &left, mark(&marked)),
    ] {
        put_foreign(&stack, name, bytes, &[(&key, &value)]).await;
    }
    for name in [&unmarked, &marked_with_metadata, &marked_for_another] {
        let (code, problem) = submit_by_bus(&stack, json!({"image_sha256": name}), Vec::new()).await;
        assert_eq!((code.as_deref(), &problem["code"]), (Some("422"), &json!("invalid_image")), "{problem}");
    }
    // Whoever may write to the bus is believed about the name, as the block list is; that is all the mark can say.
    let (code, job) = submit_by_bus(&stack, json!({"image_sha256": marked}), Vec::new()).await;
    assert_eq!(code, None, "{job}");
    completes(&stack, &job, &marked).await;
}
