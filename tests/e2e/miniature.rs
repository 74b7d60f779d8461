//! The networks' miniature checkpoint, installed on a stack's node: the published layout, random weights.

use std::path::{Path, PathBuf};

use orfeas_tests::stack::{Stack, StackOptions, root};

/// Few steps and the least effort: the cost is in the mesh of a random field.
pub(crate) const OPTIONS: [(&str, &str); 6] = [
    ("model", FAMILY),
    ("quality", "1"),
    ("steps", "3"),
    ("texture", "false"),
    ("target_faces", "2000"),
    ("seed", "11"),
];

/// The family that it is of, and the name of its folder among the models.
pub(crate) const FAMILY: &str = "hunyuan3d-2";
pub(crate) const CONFIG: &str = "config.yaml";
pub(crate) const WEIGHTS: &str = "model.fp16.safetensors";

/// Where its files are.
pub(crate) fn folder() -> PathBuf {
    root().join("gpu-node/nets/tests/golden/mini_checkpoint")
}

/// A stack whose node has these models.
pub(crate) async fn stack(models: &Path) -> Stack {
    let node = ["--models", models.to_str().unwrap()];
    Stack::start_with(StackOptions { node: &node, ..StackOptions::default() }).await
}
