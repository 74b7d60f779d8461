//! A result in another format than it was made in.

use orfeas_tests::client::{expect_json, expect_problem};
use orfeas_tests::pictures;
use orfeas_tests::stack::Stack;
use reqwest::{Method, StatusCode};
use serde_json::json;
use sha2::{Digest, Sha256};

#[tokio::test]
async fn a_result_is_converted_once_and_served_like_the_original() {
    let stack = Stack::start().await;
    let client = stack.client();
    let job = client.submit_png(pictures::png(96, 1), &[("quality", "5"), ("target_faces", "2000")]).await;
    let job = client.job_ended(job["id"].as_str().unwrap()).await;
    let faces = job["result"]["faces"].as_u64().unwrap();
    let path = format!("/api/job/{}/result", job["id"].as_str().unwrap());

    for (format, media_type) in [("obj", "model/obj"), ("stl", "model/stl"), ("ply", "application/ply")] {
        let response = client.get(&format!("{path}?format={format}")).await;
        assert_eq!(response.status(), StatusCode::OK, "{format}: {}", response.text().await.unwrap());
        assert_eq!(response.headers()["content-type"], media_type);
        let disposition = response.headers()["content-disposition"].to_str().unwrap();
        assert!(disposition.ends_with(&format!(".{format}\"")), "{disposition}");
        let (length, etag) =
            (response.headers()["content-length"].clone(), response.headers()["etag"].clone());
        let file = response.bytes().await.unwrap();
        assert_eq!(length, file.len().to_string().as_str());
        let digest: String = Sha256::digest(&file).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(etag, format!("\"{digest}\"").as_str());
        match format {
            "obj" => {
                let text = String::from_utf8(file.to_vec()).unwrap();
                assert_eq!(text.lines().filter(|line| line.starts_with("f ")).count() as u64, faces);
            }
            "stl" => assert_eq!(file.len() as u64, 84 + 50 * faces),
            _ => assert!(file.starts_with(b"ply\n")),
        }

        // Ranges and conditions work on what was made.
        let ask = async |name: &str, value: &str| {
            let request = client.request(Method::GET, &format!("{path}?format={format}"));
            request.header(name, value).send().await.unwrap()
        };
        let part = ask("range", "bytes=5-14").await;
        assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT);
        assert_eq!(part.bytes().await.unwrap(), file[5..15]);
        assert_eq!(ask("if-none-match", etag.to_str().unwrap()).await.status(), StatusCode::NOT_MODIFIED);
    }

    // What was converted is kept beside the original, and not made again.
    let jetstream = async_nats::jetstream::new(stack.bus.connect().await);
    let messages = async || {
        let mut stream = jetstream.get_stream("OBJ_orfeas_results_local").await.unwrap();
        stream.info().await.unwrap().state.last_sequence
    };
    let before = messages().await;
    let same = client.get(&format!("{path}?format=glb")).await;
    assert_eq!(same.headers()["content-type"], "model/gltf-binary");
    assert_eq!(same.headers()["content-length"], job["result"]["bytes"].to_string().as_str());
    client.get(&format!("{path}?format=obj")).await.error_for_status().unwrap();
    assert_eq!(messages().await, before);
    expect_problem(client.get(&format!("{path}?format=fbx")).await, 400, "invalid_option").await;
}

#[tokio::test]
async fn results_of_other_formats_are_converted_too() {
    let stack = Stack::start().await;
    let client = stack.client();
    for made_as in ["obj", "ply", "stl"] {
        let options = [("quality", "5"), ("target_faces", "1000"), ("format", made_as)];
        let job = client.submit_png(pictures::png(48, 1), &options).await;
        let job = client.job_ended(job["id"].as_str().unwrap()).await;
        let faces = job["result"]["faces"].as_u64().unwrap();
        let path = format!("/api/job/{}/result", job["id"].as_str().unwrap());
        let stl = client.get(&format!("{path}?format=stl")).await.error_for_status().unwrap();
        assert_eq!(stl.bytes().await.unwrap().len() as u64, 84 + 50 * faces, "{made_as}");
        let glb = client.get(&format!("{path}?format=glb")).await.error_for_status().unwrap();
        assert_eq!(glb.headers()["content-type"], "model/gltf-binary");
        let glb = glb.bytes().await.unwrap();
        assert!(glb.starts_with(b"glTF"));
        // Colours go with whatever has a place for them.
        let has_colours = glb.windows(7).any(|window| window == b"COLOR_0");
        assert_eq!(has_colours, made_as != "stl", "{made_as}");
    }
}

#[tokio::test]
async fn what_cannot_be_converted_says_so() {
    let mut stack = Stack::start().await;
    let client = stack.client();
    let path =
        |job: &serde_json::Value| format!("/api/job/{}/result?format=obj", job["id"].as_str().unwrap());

    // Over NATS an unfinished job is refused too.
    let bus = stack.bus.connect().await;
    let unknown = json!({"id": "01900000-0000-7000-8000-000000000000", "format": "obj"}).to_string();
    let reply = bus.request("orfeas.local.convert", unknown.into()).await.unwrap();
    assert_eq!(reply.headers.unwrap().get("Nats-Service-Error-Code").unwrap().as_str(), "404");

    stack.kill_node();
    let waiting = client.submit_png(pictures::png(48, 2), &[]).await;
    expect_problem(client.get(&path(&waiting)).await, 409, "job_not_finished").await;
    expect_json(client.get(&format!("/api/job/{}", waiting["id"].as_str().unwrap())).await, StatusCode::OK)
        .await;
}
