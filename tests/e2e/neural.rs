//! The neural family through the whole service, on the miniature checkpoint: the published layout, random weights.

use std::path::Path;

use orfeas_tests::pictures;

use crate::miniature::{CONFIG, FAMILY, OPTIONS, WEIGHTS, folder, stack};

/// A models folder in which the family has this folder.
fn models(folder: &Path) -> tempfile::TempDir {
    let models = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(folder, models.path().join(FAMILY)).unwrap();
    models
}

#[tokio::test]
async fn an_upload_becomes_a_model_of_the_installed_checkpoint() {
    let models = models(&folder());
    let stack = stack(models.path()).await;
    let client = stack.client();
    let job = client.submit_png(pictures::png(96, 1), &OPTIONS).await;
    let job = client.job_ended(job["id"].as_str().unwrap()).await;
    assert_eq!(job["status"], "completed", "{job}");
    assert_eq!((job["model"]["family"].as_str(), job["model"]["seed"].as_u64()), (Some(FAMILY), Some(11)));
    assert_eq!(job["result"]["watertight"], true, "{job}");
    let model = client.get(job["result"]["url"].as_str().unwrap()).await.bytes().await.unwrap();
    assert_eq!(&model[..4], b"glTF");
    assert_eq!(model.len(), job["result"]["bytes"].as_u64().unwrap() as usize);
}

#[tokio::test]
async fn truncated_weights_fail_their_job_with_a_reason_and_the_node_serves_on() {
    let broken = tempfile::tempdir().unwrap();
    let weights = std::fs::read(folder().join(WEIGHTS)).unwrap();
    std::fs::copy(folder().join(CONFIG), broken.path().join(CONFIG)).unwrap();
    std::fs::write(broken.path().join(WEIGHTS), &weights[..weights.len() / 2]).unwrap();
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
