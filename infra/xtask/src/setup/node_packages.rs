//! Packages for Node.js that tests check our output with, at the versions of a lock file.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::{cache, tools};
use crate::progress;
use crate::workspace::Workspace;

const MANIFESTS: [&str; 2] = ["package.json", "package-lock.json"];

/// The folder that holds `node_modules`; a changed lock file is another folder.
fn cached_path(workspace: &Workspace) -> Result<PathBuf> {
    let lock = workspace.root.join("infra/node-packages/package-lock.json");
    let digest = cache::sha256_file(&lock)?;
    Ok(workspace.cache.join(format!("node-packages-{}", &digest[..12])))
}

/// Makes sure that the packages are in the cache, and links them into the checkout.
pub(crate) fn ensure_installed(workspace: &Workspace) -> Result<PathBuf> {
    let dest = cached_path(workspace)?;
    if !cache::is_complete(&dest) {
        let npm = tools::npm()?;
        let _lock = cache::lock(&workspace.cache)?;
        let bar = progress::spinner("fetch Node.js packages for the tests");
        cache::install(&dest, |staging| {
            for name in MANIFESTS {
                fs::copy(workspace.root.join("infra/node-packages").join(name), staging.join(name))
                    .with_context(|| format!("copy {name}"))?;
            }
            let output = Command::new(npm)
                .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
                .current_dir(staging)
                .stdin(Stdio::null())
                .output()
                .context("run npm")?;
            let said = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.success(), "npm ci for the test packages: {}", tools::last_lines(&said, 8));
            Ok(())
        })?;
        bar.finish_and_clear();
    }
    let modules = dest.join("node_modules");
    cache::link(&modules, &workspace.deps().join("node_modules"))?;
    Ok(modules)
}
