//! What is built before anything runs: the component for wasm, the node and the edge host natively.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::setup::wasm;
use crate::workspace::Workspace;

const GATEWAY: &str = "orfeas-gateway";
const COMPONENT_FILE: &str = "orfeas_gateway.wasm";
const TEST_GUEST: &str = "orfeas-edge-test-guest";
const NODE: &str = "orfeas-gpu-node";
const EDGE: &str = "orfeas-edge";

/// The profile of the native programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// As the tests build them.
    Dev,
    Release,
}

/// How a command that runs the stack comes by its programs.
#[derive(Debug, Args)]
pub(crate) struct BuildOptions {
    /// Take the dev profile, as `cargo xtask test` builds it, instead of release
    #[arg(long)]
    dev: bool,
    /// Take the programs as they lie in the target folder
    #[arg(long)]
    no_build: bool,
}

impl BuildOptions {
    pub(crate) fn artifacts(&self, workspace: &Workspace) -> Result<Artifacts> {
        let profile = if self.dev { Profile::Dev } else { Profile::Release };
        if !self.no_build {
            Artifacts::build(workspace, profile)?;
        }
        Artifacts::find(workspace, profile)
    }
}

/// The three programs of the stack.
#[derive(Debug, Clone)]
pub(crate) struct Artifacts {
    pub(crate) component: PathBuf,
    pub(crate) node: PathBuf,
    pub(crate) edge: PathBuf,
}

impl Artifacts {
    /// The programs where cargo puts them.
    fn find(workspace: &Workspace, profile: Profile) -> Result<Self> {
        let native = workspace.target.join(match profile {
            Profile::Dev => "debug",
            Profile::Release => "release",
        });
        let found = Self {
            component: workspace.target.join(wasm::TARGET).join("guest").join(COMPONENT_FILE),
            node: native.join(NODE),
            edge: native.join(EDGE),
        };
        for path in [&found.component, &found.node, &found.edge] {
            ensure!(path.is_file(), "{} has not been built", path.display());
        }
        Ok(found)
    }

    /// Builds all three.
    pub(crate) fn build(workspace: &Workspace, profile: Profile) -> Result<()> {
        build_component(workspace)?;
        let mut cargo = workspace.cargo();
        cargo.args(["build", "--package", "orfeas-node", "--package", "orfeas-edge"]);
        cargo.args(["--bin", NODE, "--bin", EDGE]);
        if profile == Profile::Release {
            cargo.arg("--release");
        }
        run(cargo, "build the node and the edge host")
    }
}

/// Builds the component that the edge host and stock Spin run.
pub(crate) fn build_component(workspace: &Workspace) -> Result<()> {
    let mut cargo = workspace.cargo();
    cargo.args(["build", "--profile", "guest", "--package", GATEWAY]);
    cargo.args(["--target", wasm::TARGET]);
    run(cargo, "build the component")
}

/// Builds the component that the edge host's own tests run, as those tests would.
pub(crate) fn build_test_guest(workspace: &Workspace) -> Result<()> {
    let mut cargo = workspace.cargo();
    cargo.args(["build", "--package", TEST_GUEST, "--target", wasm::TARGET]);
    run(cargo, "build the edge host's test component")
}

/// Runs a command with its output on ours.
pub(crate) fn run(mut command: std::process::Command, what: &str) -> Result<()> {
    let status = command.status().with_context(|| format!("{what}: start"))?;
    ensure!(status.success(), "{what}: {status}");
    Ok(())
}
