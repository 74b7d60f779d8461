//! The component's compilation target, `wasm32-wasip2`.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::tools;
use crate::workspace::Workspace;

/// The target that the component is built for.
pub(crate) const TARGET: &str = "wasm32-wasip2";

/// Whether the standard library for the target is installed, however the toolchain was.
pub(crate) fn is_installed(workspace: &Workspace) -> Result<bool> {
    let output = rustc()
        .args(["--print", "target-libdir", "--target", TARGET])
        .current_dir(&workspace.root)
        .output()
        .context("run rustc")?;
    ensure!(output.status.success(), "this rustc does not know the target {TARGET}: update Rust");
    let folder = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    Ok(folder.is_dir())
}

/// Adds the target to the toolchain in use.
pub(crate) fn install(workspace: &Workspace) -> Result<()> {
    let rustup = tools::on_path("rustup").with_context(|| {
        format!(
            "the Rust target {TARGET} is missing and there is no rustup to add it: install Rust with \
             rustup, or your distribution's package with the standard library for {TARGET}"
        )
    })?;
    let status = Command::new(rustup)
        .args(["target", "add", TARGET])
        .current_dir(&workspace.root)
        .status()
        .context("run rustup")?;
    ensure!(status.success(), "rustup target add {TARGET}: {status}");
    Ok(())
}

/// The compiler beside the cargo that runs us: the same toolchain, without rustup's proxy.
fn rustc() -> Command {
    let beside_cargo = std::env::var_os("CARGO")
        .map(|cargo| PathBuf::from(cargo).with_file_name("rustc"))
        .filter(|path| path.is_file());
    Command::new(beside_cargo.unwrap_or_else(|| PathBuf::from("rustc")))
}
