//! `cargo xtask lint`: what must be clean before a change goes in.

use anyhow::Result;

use crate::artifacts::run;
use crate::progress::step;
use crate::setup::{self, wasm};
use crate::tree;
use crate::workspace::Workspace;

/// Crates that are compiled for the component.
const GUEST_PACKAGES: [&str; 4] = ["orfeas-protocol", "orfeas-intake", "orfeas-edge-nats", "orfeas-gateway"];

pub(crate) fn command(workspace: &Workspace) -> Result<()> {
    step("formatting", || {
        let mut cargo = workspace.cargo();
        cargo.args(["fmt", "--all", "--check"]);
        run(cargo, "check the formatting")
    })?;
    step("dependency rules", || tree::check(workspace))?;
    // libtorch's headers are read by a build script, also when nothing is linked.
    step("set up", || setup::run(workspace))?;
    step("clippy, native", || {
        let mut cargo = workspace.cargo();
        cargo.args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]);
        run(cargo, "run clippy")
    })?;
    step("clippy, component", || {
        let mut cargo = workspace.cargo();
        cargo.args(["clippy", "--target", wasm::TARGET]);
        for package in GUEST_PACKAGES {
            cargo.args(["--package", package]);
        }
        cargo.args(["--", "-D", "warnings"]);
        run(cargo, "run clippy for the component")
    })?;
    step("documentation", || {
        let mut cargo = workspace.cargo();
        cargo.args(["doc", "--workspace", "--no-deps", "--quiet"]).env("RUSTDOCFLAGS", "-D warnings");
        run(cargo, "build the documentation")
    })
}
