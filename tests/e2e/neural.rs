//! The neural family through the whole service, on the miniature checkpoint: the published layout, random weights.

use std::path::{Path, PathBuf};

use orfeas_tests::pictures;
use orfeas_tests::stack::{Stack, StackOptions, root};

/// Few steps and the least effort: the cost is in the mesh of a random field.
const OPTIONS: [(&str, &str); 6] = [
    ("model", "hunyuan3d-2"),
    ("quality", "1"),
    ("steps", "3"),
    ("texture", "false"),
    ("target_faces", "2000"),
    ("seed", "11"),
];

fn miniature() -> PathBuf {
    root().join("gpu-node/nets/tests/golden/mini_checkpoint")
}

/// A models folder in which the family has this folder.
fn models(folder: &Path) -> tempfile::TempDir {
    let models = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(folder, models.path().join("hunyuan3d-2")).unwrap();
    models
}

async fn stack(models: &Path) -> Stack {
    let node = ["--models", models.to_str().unwrap()];
    Stack::start_with(StackOptions { node: &node, ..StackOptions::default() }).await
}

#[tokio::test]
async fn an_upload_becomes_a_model_of_the_installed_checkpoint() {
    let models = models(&miniature());
    let stack = stack(models.path()).await;
    let client = stack.client();
    let job = client.submit_png(pictures::png(96, 1), &OPTIONS).await;
    let job = client.job_ended(job["id"].as_str().unwrap()).await;
    assert_eq!(job["status"], "completed", "{job}");
    assert_eq!(
        (job["model"]["family"].as_str(), job["model"]["seed"].as_u64()),
        (Some("hunyuan3d-2"), Some(11))
    );
    assert_eq!(job["result"]["watertight"], true, "{job}");
    let model = client.get(job["result"]["url"].as_str().unwrap()).await.bytes().await.unwrap();
    assert_eq!(&model[..4], b"glTF");
    assert_eq!(model.len(), job["result"]["bytes"].as_u64().unwrap() as usize);
}

#[tokio::test]
async fn truncated_weights_fail_their_job_with_a_reason_and_the_node_serves_on() {
    let broken = tempfile::tempdir().unwrap();
    let weights = std::fs::read(miniature().join("model.fp16.safetensors")).unwrap();
    std::fs::copy(miniature().join("config.yaml"), broken.path().join("config.yaml")).unwrap();
    std::fs::write(broken.path().join("model.fp16.safetensors"), &weights[..weights.len() / 2]).unwrap();
    let models = models(broken.path());
    let stack = stack(models.path()).await;
    let client = stack.client();
    let job = client.submit_png(pictures::png(96, 1), &OPTIONS).await;
    let job = client.job_ended(job["id"].as_str().unwrap()).await;
    assert_eq!(
        (job["status"].as_str(), job["error"]["code"].as_str()),
        (Some("failed"), Some("weights_missing"))
    );
    let other = client.submit_png(pictures::png(96, 2), &[("quality", "5")]).await;
    assert_eq!(client.job_ended(other["id"].as_str().unwrap()).await["status"], "completed");
}
