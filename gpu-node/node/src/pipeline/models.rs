//! Where model folders are: under the node's own models folder, or where the published tools keep theirs.

use std::env;
use std::path::{Path, PathBuf};

use orfeas_nets::checkpoint::Checkpoint;

/// Environment variable with the root of the published tools' cache.
const CACHE_VARIABLE: &str = "HY3DGEN_MODELS";

/// Subfolders of the published repositories, best first.
const PUBLISHED: [&str; 6] = [
    "tencent/Hunyuan3D-2/hunyuan3d-dit-v2-0",
    "tencent/Hunyuan3D-2/hunyuan3d-dit-v2-0-fast",
    "tencent/Hunyuan3D-2/hunyuan3d-dit-v2-0-turbo",
    "tencent/Hunyuan3D-2mini/hunyuan3d-dit-v2-mini",
    "tencent/Hunyuan3D-2mini/hunyuan3d-dit-v2-mini-fast",
    "tencent/Hunyuan3D-2mini/hunyuan3d-dit-v2-mini-turbo",
];

/// The folder of a family's model: `<models>/<family>`, else the best of the published tools' cache.
pub(super) fn find(models: Option<&Path>, family: &str) -> Option<PathBuf> {
    let own = models.map(|models| models.join(family));
    let cache = env::var_os(CACHE_VARIABLE).map(PathBuf::from).or_else(default_cache);
    let cached = cache.into_iter().flat_map(|cache| PUBLISHED.map(|name| cache.join(name)));
    own.into_iter().chain(cached).find(|folder| Checkpoint::is_at(folder))
}

fn default_cache() -> Option<PathBuf> {
    Some(PathBuf::from(env::var_os("HOME")?).join(".cache/hy3dgen"))
}
