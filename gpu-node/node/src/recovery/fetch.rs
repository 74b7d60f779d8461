//! Weights from a mirror into place: copied, checked, then put where the node looks, in one step.
//!
//! ```text
//!   <source>/<family>/…  ──copy + SHA-256──▶  <models>/.fetched/<family>-<digest>.1/…  ──link, rename──▶  <models>/<family>
//! ```
//! The source is a folder that the operator keeps, local or mounted. If it has a `SHA256SUMS` (the form that
//! `sha256sum` writes), every file that it names must be there and agree; what is copied is read back and compared in
//! either case. A node that looks meanwhile finds the old folder or the new one, never half of one, and a fetch that is
//! cut off leaves only a staging folder, which the next one removes.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use orfeas_protocol::Sha256Digest;
use sha2::{Digest, Sha256};
use thiserror::Error;

/// The list of digests in a mirrored folder.
const SUMS: &str = "SHA256SUMS";
/// Where fetched folders lie, beside the links to them.
const FETCHED: &str = ".fetched";
/// Published model folders have a handful of files in one or two levels.
const DEPTH_MAX: usize = 8;
/// Far more than any model folder has.
const FILES_MAX: usize = 4_096;
/// Few system calls per gigabyte, little memory.
const BUFFER_BYTES: usize = 1024 * 1024;

/// A folder was not brought into place.
#[derive(Debug, Error)]
pub enum FetchError {
    /// The mirror has no such folder, or cannot be reached.
    #[error("the source has no folder {}", .0.display())]
    NotThere(PathBuf),
    /// A file cannot be read or written.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was done.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is not what the mirror's list says, or was changed on the way.
    #[error("{} has another digest than {expected}", path.display())]
    Digest {
        /// The file.
        path: PathBuf,
        /// What it should have had.
        expected: Sha256Digest,
    },
    /// The list of digests cannot be used.
    #[error("line {line} of {} is not a digest and a file within the folder", path.display())]
    Sums {
        /// The list.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// A folder has more files or levels than a model has.
    #[error("{} is too large a tree for a model folder", .0.display())]
    TooLarge(PathBuf),
}

/// What was fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// Where the node finds it.
    pub folder: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// How many files.
    pub files: usize,
}

/// A mirror of model folders, and the folder that they are wanted in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    source: PathBuf,
    models: PathBuf,
}

impl Mirror {
    /// A mirror at `source`, for the models folder `models`.
    pub fn new(source: PathBuf, models: PathBuf) -> Self {
        Self { source, models }
    }

    /// Brings a family's folder into place. Blocks for as long as the copy takes: not for an async thread.
    ///
    /// # Errors
    /// The mirror has no such folder, a file cannot be read or written, or a digest does not agree. The models folder
    /// is as it was then.
    pub fn fetch(&self, family: &str) -> Result<Fetched, FetchError> {
        let source = self.source.join(family);
        if !source.is_dir() {
            return Err(FetchError::NotThere(source));
        }
        let expected = read_sums(&source)?;
        let files = files_under(&source)?;
        if let Some(missing) = expected.keys().find(|named| !files.contains(named)) {
            return Err(FetchError::NotThere(source.join(missing)));
        }
        let store = self.models.join(FETCHED);
        let staging = store.join(format!(".staging-{family}"));
        remove_tree(&staging)?;
        let copied = copy_all(&source, &staging, &files, &expected);
        let (digests, bytes) = match copied {
            Ok(copied) => copied,
            Err(error) => {
                // Room for the next try; the error that counts is the copy's.
                let _ = fs::remove_dir_all(&staging);
                return Err(error);
            }
        };
        // The same content may lie there from an earlier fetch, be what has gone bad, and be what the link names.
        let stem = format!("{family}-{}", short(&content_digest(&digests)));
        let names = (1..).map(|number: u32| format!("{stem}.{number}"));
        let name = names.into_iter().find(|name| !store.join(name).exists()).unwrap_or(stem);
        let folder = store.join(&name);
        fs::rename(&staging, &folder).map_err(io_error("rename", &staging))?;
        sync_folder(&store)?;
        self.link(family, &Path::new(FETCHED).join(&name))?;
        self.remove_older(family, &name);
        Ok(Fetched { folder: self.models.join(family), bytes, files: digests.len() })
    }

    /// Makes `<models>/<family>` a link to what was fetched. A real folder in its place is moved aside, not removed.
    fn link(&self, family: &str, target: &Path) -> Result<(), FetchError> {
        let link = self.models.join(family);
        if link.symlink_metadata().is_ok_and(|there| !there.is_symlink()) {
            let aside = self.models.join(format!(".{family}.replaced"));
            remove_tree(&aside)?;
            fs::rename(&link, &aside).map_err(io_error("move aside", &link))?;
        }
        // A new name first, then a rename: who looks meanwhile finds the old folder or the new one.
        let new = self.models.join(format!(".{family}.new"));
        let _ = fs::remove_file(&new);
        std::os::unix::fs::symlink(target, &new).map_err(io_error("link", &new))?;
        fs::rename(&new, &link).map_err(io_error("rename", &new))?;
        sync_folder(&self.models)
    }

    /// Earlier fetches of a family. Weights that are mapped stay readable until they are unmapped.
    fn remove_older(&self, family: &str, keep: &str) {
        let store = self.models.join(FETCHED);
        let Ok(entries) = fs::read_dir(&store) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let rest = name.strip_prefix(family).and_then(|rest| rest.strip_prefix('-'));
            if rest.is_some_and(is_version) && name != keep {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
}

/// Copies files and reads them back; gives the digests and the number of bytes.
fn copy_all(
    source: &Path,
    staging: &Path,
    files: &[PathBuf],
    expected: &BTreeMap<PathBuf, Sha256Digest>,
) -> Result<(BTreeMap<PathBuf, Sha256Digest>, u64), FetchError> {
    fs::create_dir_all(staging).map_err(io_error("make", staging))?;
    let mut digests = BTreeMap::new();
    let mut bytes = 0;
    for file in files {
        let (from, to) = (source.join(file), staging.join(file));
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent).map_err(io_error("make", parent))?;
        }
        let (read, length) = copy(&from, &to)?;
        let (written, _) = digest(&to)?;
        let wanted = expected.get(file).copied().unwrap_or(read);
        if read != wanted || written != wanted {
            return Err(FetchError::Digest { path: from, expected: wanted });
        }
        digests.insert(file.clone(), read);
        bytes += length;
    }
    sync_folder(staging)?;
    Ok((digests, bytes))
}

fn copy(from: &Path, to: &Path) -> Result<(Sha256Digest, u64), FetchError> {
    let mut input = File::open(from).map_err(io_error("open", from))?;
    let mut output = File::create(to).map_err(io_error("create", to))?;
    let copied = each_block(&mut input, |block| output.write_all(block)).map_err(io_error("copy", from))?;
    output.sync_all().map_err(io_error("flush", to))?;
    Ok(copied)
}

fn digest(path: &Path) -> Result<(Sha256Digest, u64), FetchError> {
    let mut file = File::open(path).map_err(io_error("open", path))?;
    each_block(&mut file, |_| Ok(())).map_err(io_error("read", path))
}

fn each_block(
    input: &mut impl Read,
    mut take: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<(Sha256Digest, u64)> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut length = 0;
    loop {
        let read = match input.read(&mut buffer) {
            Ok(0) => return Ok((Sha256Digest::from_bytes(hash.finalize().into()), length)),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let block = buffer.get(..read).unwrap_or_default();
        hash.update(block);
        take(block)?;
        length += read as u64;
    }
}

/// The files of a folder, by their path within it. Links are followed, as mirrors are often made of them.
fn files_under(root: &Path) -> Result<Vec<PathBuf>, FetchError> {
    let mut files = Vec::new();
    let mut folders = vec![(PathBuf::new(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        if depth > DEPTH_MAX || files.len() > FILES_MAX {
            return Err(FetchError::TooLarge(root.to_owned()));
        }
        let path = root.join(&folder);
        for entry in fs::read_dir(&path).map_err(io_error("list", &path))? {
            let name = folder.join(entry.map_err(io_error("list", &path))?.file_name());
            let metadata = fs::metadata(root.join(&name)).map_err(io_error("look at", &root.join(&name)))?;
            if metadata.is_dir() {
                folders.push((name, depth + 1));
            } else if name != Path::new(SUMS) {
                files.push(name);
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Reads a folder's list of digests; empty if it has none.
fn read_sums(folder: &Path) -> Result<BTreeMap<PathBuf, Sha256Digest>, FetchError> {
    let path = folder.join(SUMS);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(source) => return Err(FetchError::Io { action: "read", path, source }),
    };
    let mut sums = BTreeMap::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let entry = line.split_once([' ', '\t']).and_then(|(digest, name)| {
            // `*` marks a file that was read in binary mode.
            let name = name.trim_start().trim_start_matches('*');
            let name = Path::new(name.strip_prefix("./").unwrap_or(name));
            let within = name.components().all(|part| matches!(part, std::path::Component::Normal(_)));
            let digest: Sha256Digest = digest.parse().ok()?;
            (within && name.components().next().is_some()).then(|| (name.to_owned(), digest))
        });
        match entry {
            Some((name, digest)) => drop(sums.insert(name, digest)),
            None => return Err(FetchError::Sums { path, line: number + 1 }),
        }
    }
    Ok(sums)
}

/// One digest over the names and digests of all files.
fn content_digest(digests: &BTreeMap<PathBuf, Sha256Digest>) -> Sha256Digest {
    let mut hash = Sha256::new();
    for (name, digest) in digests {
        hash.update(name.as_os_str().as_encoded_bytes());
        hash.update([0]);
        hash.update(digest.as_bytes());
    }
    Sha256Digest::from_bytes(hash.finalize().into())
}

fn short(digest: &Sha256Digest) -> String {
    digest.to_string().chars().take(12).collect()
}

/// Whether a name continues as those of fetched folders do: twelve digits of the digest, and a number.
fn is_version(text: &str) -> bool {
    text.split_once('.').is_some_and(|(digest, number)| {
        digest.len() == 12
            && digest.bytes().all(|digit| digit.is_ascii_hexdigit())
            && number.bytes().all(|digit| digit.is_ascii_digit())
    })
}

fn remove_tree(path: &Path) -> Result<(), FetchError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(FetchError::Io { action: "remove", path: path.to_owned(), source: error })
        }
        _ => Ok(()),
    }
}

/// Makes what was renamed in a folder last through a loss of power.
fn sync_folder(path: &Path) -> Result<(), FetchError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(io_error("flush", path))
}

fn io_error<'a>(action: &'static str, path: &'a Path) -> impl Fn(io::Error) -> FetchError + 'a {
    move |source| FetchError::Io { action, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests;
