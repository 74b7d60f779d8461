//! The corpus of pictures that others made. It is not part of the product; tests that want it say that they
//! were skipped where it is absent.

use std::path::{Path, PathBuf};

/// One row of `bad/manifest.tsv`.
#[derive(Debug, Clone)]
pub struct BadRow {
    /// The file, below `bad/`.
    pub file: String,
    /// `accept`, `reject` or `either`.
    pub expected: String,
    /// What kind of oddity it is.
    pub class: String,
    /// The `Content-Type` to send it as.
    pub send_as: String,
    /// Width and height, where known.
    pub dims: Option<(u32, u32)>,
}

/// The corpus's folder, if it is there.
pub fn find() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent()?;
    let dir = std::env::var_os("ORFEAS_CORPUS").map_or_else(|| root.join("../shared/corpus"), PathBuf::from);
    let found = dir.join("bad/manifest.tsv").is_file();
    if !found {
        println!("skipped: no corpus at {}", dir.display());
    }
    found.then_some(dir)
}

/// The rows of the bad pictures.
pub fn bad(corpus: &Path) -> Vec<BadRow> {
    let text = std::fs::read_to_string(corpus.join("bad/manifest.tsv")).unwrap();
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next().unwrap().split('\t').collect();
    let column = |name: &str| header.iter().position(|column| *column == name).unwrap();
    let (file, expected, class) = (column("file"), column("expected"), column("class"));
    let (send_as, dims) = (column("send_as"), column("dims"));
    lines
        .map(|line| {
            let cells: Vec<&str> = line.split('\t').collect();
            let size =
                cells[dims].split_once('x').and_then(|(w, h)| Some((w.parse().ok()?, h.parse().ok()?)));
            BadRow {
                file: cells[file].to_owned(),
                expected: cells[expected].to_owned(),
                class: cells[class].to_owned(),
                send_as: cells[send_as].to_owned(),
                dims: size,
            }
        })
        .collect()
}

/// The good pictures.
pub fn good(corpus: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(corpus.join("good"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension != "tsv"))
        .filter(|path| path.is_file())
        .collect();
    files.sort();
    files
}
