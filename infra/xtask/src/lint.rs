//! `cargo xtask lint`: what must be clean before a change goes in.

use anyhow::{Result, ensure};

use crate::artifacts::run;
use crate::progress::step;
use crate::setup::{self, wasm};
use crate::tree;
use crate::workspace::Workspace;

/// Crates that are compiled for the component.
const GUEST_PACKAGES: [&str; 4] = ["orfeas-protocol", "orfeas-intake", "orfeas-edge-nats", "orfeas-gateway"];

/// Runs every check, also after one has failed, and names those that did.
pub(crate) fn command(workspace: &Workspace) -> Result<()> {
    // libtorch's headers are read by a build script, also when nothing is linked.
    setup::run(workspace)?;
    let cargo = |arguments: &[&str]| {
        let mut cargo = workspace.cargo();
        cargo.args(arguments);
        cargo
    };
    let mut component = cargo(&["clippy", "--target", wasm::TARGET]);
    for package in GUEST_PACKAGES {
        component.args(["--package", package]);
    }
    component.args(["--", "-D", "warnings"]);
    // Whoever reads it works on the code: nobody builds on these crates from outside.
    let mut documentation =
        cargo(&["doc", "--workspace", "--no-deps", "--document-private-items", "--quiet"]);
    documentation.env("RUSTDOCFLAGS", "-D warnings -A rustdoc::private-intra-doc-links");

    let mut failed = Vec::new();
    if let Err(error) = step("dependency rules", || tree::check(workspace)) {
        eprintln!("{error:#}");
        failed.push("dependency rules");
    }
    for (title, command) in [
        ("formatting", cargo(&["fmt", "--all", "--check"])),
        ("clippy, native", cargo(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])),
        ("clippy, component", component),
        ("documentation", documentation),
    ] {
        if step(title, || run(command, title)).is_err() {
            failed.push(title);
        }
    }
    ensure!(failed.is_empty(), "not clean: {}", failed.join("; "));
    Ok(())
}
