//! The models that come out, judged by the Khronos validator.

use std::path::{Path, PathBuf};
use std::process::Command;

use orfeas_tests::stack::Stack;
use orfeas_tests::{corpus, pictures, stack};
use serde_json::Value;

/// Faces that every test asks for at the most.
const FACES_MAX: u64 = 12_000;

/// Runs the Khronos validator, which is a Node.js library, on a file.
fn validate(file: &Path) -> Value {
    let modules = std::env::var_os("ORFEAS_NODE_MODULES").expect("set by `cargo xtask test`");
    let script = stack::root().join("tests/validate-gltf.cjs");
    let output = Command::new("node").arg(script).arg(file).env("NODE_PATH", modules).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

async fn check(stack: &Stack, name: &str, media_type: &str, image: Vec<u8>) {
    let client = stack.client();
    let options = [("target_faces", FACES_MAX.to_string())];
    let options = options.each_ref().map(|(name, value)| (*name, value.as_str()));
    let response = client.post_form("/api/submit-job", name, media_type, image, &options).await;
    let job: Value = response.error_for_status().unwrap().json().await.unwrap();
    let job = client.job_ended(job["id"].as_str().unwrap()).await;
    assert_eq!(job["status"], "completed", "{name}: {job}");
    let result = &job["result"];
    assert_eq!(result["watertight"], true, "{name}: {result}");
    assert!(result["faces"].as_u64().unwrap() <= FACES_MAX, "{name}: {result}");

    let model = client.get(result["url"].as_str().unwrap()).await.bytes().await.unwrap();
    let file: PathBuf = stack.dir().join(format!("{name}.glb"));
    std::fs::write(&file, &model).unwrap();
    let report = validate(&file);
    let issues = &report["issues"];
    assert_eq!(
        (issues["numErrors"].as_u64(), issues["numWarnings"].as_u64()),
        (Some(0), Some(0)),
        "{name}: {issues}"
    );
    assert_eq!(report["info"]["totalTriangleCount"], result["faces"], "{name}");
    assert_eq!(report["info"]["hasTextures"], true, "{name}");
}

#[tokio::test]
async fn models_of_drawn_pictures_pass_the_khronos_validator() {
    let stack = Stack::start().await;
    check(&stack, "cut-out.png", "image/png", pictures::png(256, 1)).await;
    check(&stack, "on-white.jpg", "image/jpeg", pictures::jpeg(300, 90, 4)).await;
    check(&stack, "cut-out.webp", "image/webp", pictures::webp(200)).await;
}

#[tokio::test]
async fn models_of_the_good_pictures_pass_the_khronos_validator() {
    let Some(folder) = corpus::find() else { return };
    let stack = Stack::start().await;
    for path in corpus::good(&folder) {
        let name = path.file_name().unwrap().to_str().unwrap();
        let media_type = match path.extension().unwrap().to_str().unwrap() {
            "jpg" => "image/jpeg",
            "webp" => "image/webp",
            _ => "image/png",
        };
        check(&stack, name, media_type, std::fs::read(&path).unwrap()).await;
    }
}
