//! Folders in the cache: filled in a staging folder, sealed with a manifest, then renamed into place.
//!
//! A folder under its final name is therefore complete. The seal (`.complete.json`) lets a later
//! run see with a walk of `stat` calls that nothing was removed or cut short since, and lets
//! `setup --verify` compare every byte.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

const SEAL: &str = ".complete.json";

/// What a sealed folder holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seal {
    files: u64,
    bytes: u64,
    tree_sha256: String,
}

/// One file of a tree, its path relative to the root and with `/` between the parts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    pub(crate) path: String,
    pub(crate) bytes: u64,
}

/// Takes the cache for this process; a second xtask waits instead of filling the same folder.
pub(crate) fn lock(cache: &Path) -> Result<File> {
    fs::create_dir_all(cache).with_context(|| format!("create {}", cache.display()))?;
    let path = cache.join(".lock");
    let file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
    if file.try_lock().is_err() {
        eprintln!("  waiting for another set-up that holds {}", path.display());
        file.lock().with_context(|| format!("lock {}", path.display()))?;
    }
    Ok(file)
}

/// Whether the folder is sealed and still has as many files and bytes as when it was.
pub(crate) fn is_complete(root: &Path) -> bool {
    let (Ok(seal), Ok(entries)) = (read_seal(root), entries(root)) else {
        return false;
    };
    entries.len() as u64 == seal.files && total_bytes(&entries) == seal.bytes
}

/// Reads every byte and compares with the seal.
pub(crate) fn verify(root: &Path) -> Result<()> {
    let seal = read_seal(root)?;
    let found = digest(root, &entries(root)?)?;
    if found != seal.tree_sha256 {
        bail!("{} has changed: tree digest {found}, sealed as {}", root.display(), seal.tree_sha256);
    }
    Ok(())
}

/// Writes the seal over what is there now.
pub(crate) fn seal(root: &Path) -> Result<()> {
    let entries = entries(root)?;
    let seal = Seal {
        files: entries.len() as u64,
        bytes: total_bytes(&entries),
        tree_sha256: digest(root, &entries)?,
    };
    let path = root.join(SEAL);
    fs::write(&path, serde_json::to_string_pretty(&seal)?)
        .with_context(|| format!("write {}", path.display()))
}

/// Fills `dest` through a staging folder beside it; whatever was at `dest` is replaced at the end.
pub(crate) fn install(dest: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let staging = sibling(dest, "partial");
    let old = sibling(dest, "old");
    for leftover in [&staging, &old] {
        remove_tree(leftover)?;
    }
    fs::create_dir_all(&staging).with_context(|| format!("create {}", staging.display()))?;
    fill(&staging)?;
    seal(&staging)?;
    if dest.exists() {
        fs::rename(dest, &old).with_context(|| format!("move {} aside", dest.display()))?;
    }
    fs::rename(&staging, dest).with_context(|| format!("move {} into place", dest.display()))?;
    remove_tree(&old)
}

/// Points `link` at `target`; a link that already does is left alone.
pub(crate) fn link(target: &Path, link: &Path) -> Result<()> {
    if fs::read_link(link).is_ok_and(|current| current == target) {
        return Ok(());
    }
    if let Some(parent) = link.parent() {
        fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
    }
    // A new link renamed over the old one: there is no moment without it.
    let fresh = sibling(link, "new");
    if fresh.symlink_metadata().is_ok() {
        fs::remove_file(&fresh).with_context(|| format!("remove {}", fresh.display()))?;
    }
    std::os::unix::fs::symlink(target, &fresh)
        .and_then(|()| fs::rename(&fresh, link))
        .with_context(|| format!("link {} to {}", link.display(), target.display()))
}

/// Every file below `root` but the seal, sorted by path.
pub(crate) fn entries(root: &Path) -> Result<Vec<Entry>> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let listing = fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))?;
        for item in listing {
            let item = item.with_context(|| format!("list {}", folder.display()))?;
            let path = item.path();
            let meta = item.metadata().with_context(|| format!("read metadata of {}", path.display()))?;
            if meta.is_dir() {
                folders.push(path);
                continue;
            }
            let relative = path.strip_prefix(root)?.to_string_lossy().into_owned();
            if relative != SEAL {
                found.push(Entry { path: relative, bytes: meta.len() });
            }
        }
    }
    found.sort();
    Ok(found)
}

/// SHA-256 over one line `<sha256 of the file>  <path>` for each entry, in order of the paths.
pub(crate) fn digest(root: &Path, entries: &[Entry]) -> Result<String> {
    let mut tree = Sha256::new();
    for entry in entries {
        let file = sha256_file(&root.join(&entry.path))?;
        tree.update(format!("{file}  {}\n", entry.path));
    }
    Ok(hex(&tree.finalize()))
}

/// SHA-256 of a file, in hexadecimal.
pub(crate) fn sha256_file(path: &Path) -> Result<String> {
    // A link (npm makes some) counts by what it points to.
    let mut file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0_u8; 1 << 20];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hex(&hasher.finalize())),
            Ok(n) => hasher.update(&buffer[..n]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
        }
    }
}

/// Removes a folder with all that is in it; one that is not there is fine.
pub(crate) fn remove_tree(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn read_seal(root: &Path) -> Result<Seal> {
    let path = root.join(SEAL);
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("parse {}", path.display()))
}

fn total_bytes(entries: &[Entry]) -> u64 {
    entries.iter().map(|entry| entry.bytes).sum()
}

fn sibling(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    PathBuf::from(name)
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing into a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    fn two_files(root: &Path) -> Result<()> {
        fs::create_dir_all(root.join("lib"))?;
        fs::write(root.join("lib/a.so"), b"alpha")?;
        fs::write(root.join("version"), b"1")?;
        Ok(())
    }

    #[test]
    fn installed_folder_is_complete_and_verifies() {
        let scratch = Scratch::new("cache-install");
        let dest = scratch.path().join("thing");
        install(&dest, two_files).unwrap();
        assert!(is_complete(&dest));
        verify(&dest).unwrap();
        assert!(!sibling(&dest, "partial").exists());
    }

    #[test]
    fn failed_fill_leaves_the_old_folder_in_place() {
        let scratch = Scratch::new("cache-failed");
        let dest = scratch.path().join("thing");
        install(&dest, two_files).unwrap();
        install(&dest, |_| bail!("network went away")).unwrap_err();
        assert!(is_complete(&dest));
    }

    #[test]
    fn removed_or_shortened_file_makes_the_folder_incomplete() {
        let scratch = Scratch::new("cache-short");
        let dest = scratch.path().join("thing");
        install(&dest, two_files).unwrap();
        fs::write(dest.join("lib/a.so"), b"alp").unwrap();
        assert!(!is_complete(&dest));
        install(&dest, two_files).unwrap();
        fs::remove_file(dest.join("version")).unwrap();
        assert!(!is_complete(&dest));
    }

    #[test]
    fn flipped_byte_passes_the_quick_look_but_not_verification() {
        let scratch = Scratch::new("cache-flip");
        let dest = scratch.path().join("thing");
        install(&dest, two_files).unwrap();
        fs::write(dest.join("lib/a.so"), b"alphA").unwrap();
        assert!(is_complete(&dest));
        verify(&dest).unwrap_err();
    }

    #[test]
    fn unsealed_folder_is_incomplete() {
        let scratch = Scratch::new("cache-unsealed");
        two_files(scratch.path()).unwrap();
        assert!(!is_complete(scratch.path()));
    }

    #[test]
    fn tree_digest_is_that_of_sha256sum_over_a_listing() {
        let scratch = Scratch::new("cache-digest");
        two_files(scratch.path()).unwrap();
        let entries = entries(scratch.path()).unwrap();
        // (cd DIR; find -type f -printf '%P\n' | LC_ALL=C sort | xargs sha256sum | sha256sum)
        assert_eq!(
            digest(scratch.path(), &entries).unwrap(),
            "aa8a65671d11f0415c6a487f0f2c90ee6152dfb0f32fb2ca66c83e4035734d46"
        );
    }

    #[test]
    fn link_replaces_a_link_to_another_place() {
        let scratch = Scratch::new("cache-link");
        let path = scratch.path().join("deps/thing");
        link(Path::new("/one"), &path).unwrap();
        link(Path::new("/two"), &path).unwrap();
        link(Path::new("/two"), &path).unwrap();
        assert_eq!(fs::read_link(&path).unwrap(), Path::new("/two"));
    }
}
