//! Where model folders are: under the node's models folder, or where the published tools keep theirs.

use std::env;
use std::path::{Path, PathBuf};

use orfeas_nets::checkpoint::Checkpoint;

/// The neural family's name in requests, and its folder's.
pub(crate) const HUNYUAN_FAMILY: &str = "hunyuan3d-2";

/// Environment variable with the models folder.
const MODELS_VARIABLE: &str = "ORFEAS_MODELS";

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

/// The models folder if none is given: `$ORFEAS_MODELS`, else `~/.local/share/orfeas/models`.
pub(crate) fn default_folder() -> Option<PathBuf> {
    let named = env::var_os(MODELS_VARIABLE).map(PathBuf::from);
    named.or_else(|| Some(home()?.join(".local/share/orfeas/models")))
}

/// The folder of a family's model: `<models>/<family>`, else the best of the published tools' cache.
pub(crate) fn find(models: Option<&Path>, family: &str) -> Option<PathBuf> {
    let own = models.map(Path::to_owned).or_else(default_folder).map(|models| models.join(family));
    let cache =
        env::var_os(CACHE_VARIABLE).map(PathBuf::from).or_else(|| Some(home()?.join(".cache/hy3dgen")));
    let cached = cache.into_iter().flat_map(|cache| PUBLISHED.map(|name| cache.join(name)));
    own.into_iter().chain(cached).find(|folder| Checkpoint::is_at(folder))
}

fn home() -> Option<PathBuf> {
    env::var_os("HOME").map(PathBuf::from)
}
