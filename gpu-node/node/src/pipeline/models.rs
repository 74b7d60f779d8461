//! Where model folders are: under the node's models folder, or where the published tools keep theirs.

use std::path::{Path, PathBuf};
use std::time::SystemTime;
use std::{env, fs, io};

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

/// What can be seen of a folder without reading its files: a change of them shows in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// With links resolved: a link that is turned to another folder is a change.
    folder: PathBuf,
    /// Name, length and time of the last change, by name.
    files: Vec<(std::ffi::OsString, u64, Option<SystemTime>)>,
}

impl Stamp {
    /// Looks at a folder.
    ///
    /// # Errors
    /// It is not there, or changes while it is looked at.
    pub(crate) fn of(folder: &Path) -> io::Result<Stamp> {
        let folder = folder.canonicalize()?;
        let mut files = Vec::new();
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            // Of what a link points to.
            let metadata = fs::metadata(entry.path())?;
            files.push((entry.file_name(), metadata.len(), metadata.modified().ok()));
        }
        files.sort();
        Ok(Stamp { folder, files })
    }
}

fn home() -> Option<PathBuf> {
    env::var_os("HOME").map(PathBuf::from)
}
