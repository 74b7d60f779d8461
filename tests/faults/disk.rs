//! A small disk of its own that can be filled to the last byte: a tmpfs, mounted below a folder.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Enough for the streams of a short run, and filled in a moment.
const SIZE: &str = "size=96m";

/// A mounted tmpfs; unmounted on drop.
#[derive(Debug)]
pub struct Disk {
    path: PathBuf,
}

impl Disk {
    /// Mounts one at `path`.
    ///
    /// # Errors
    /// Why there is none here: only root may mount, and not in every container.
    pub fn mount(path: &Path) -> Result<Disk, String> {
        std::fs::create_dir_all(path).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", SIZE, "tmpfs"]).arg(path).output();
        match mounted {
            Ok(output) if output.status.success() => Ok(Disk { path: path.to_owned() }),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
            Err(error) => Err(format!("cannot run mount: {error}")),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes every byte that is left.
    pub fn fill(&self) {
        let mut filler = File::create(self.filler()).unwrap();
        let mut block = vec![0u8; 1 << 20];
        while !block.is_empty() {
            // A write that fails halfway has taken what there was; smaller ones take the rest.
            if filler.write_all(&block).is_err() {
                block.truncate(block.len() / 2);
            }
        }
    }

    /// Gives them back.
    pub fn free(&self) {
        std::fs::remove_file(self.filler()).unwrap();
    }

    fn filler(&self) -> PathBuf {
        self.path.join("filler")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazy: a program that has not ended yet may hold files open.
        let _ = Command::new("umount").arg("-l").arg(&self.path).output();
    }
}
