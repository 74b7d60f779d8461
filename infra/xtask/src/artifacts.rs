//! What is built before anything runs: the component for wasm, the node and the edge host natively.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use crate::setup::wasm;
use crate::workspace::Workspace;

const GATEWAY: &str = "orfeas-gateway";
const COMPONENT_FILE: &str = "orfeas_gateway.wasm";
const NODE: &str = "orfeas-gpu-node";
const EDGE: &str = "orfeas-edge";

/// The profile of the native programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// As the tests build them.
    Dev,
    Release,
}

/// The three programs of the stack.
#[derive(Debug, Clone)]
pub(crate) struct Artifacts {
    pub(crate) component: PathBuf,
    pub(crate) node: PathBuf,
    pub(crate) edge: PathBuf,
}

impl Artifacts {
    /// Where cargo puts them.
    pub(crate) fn paths(workspace: &Workspace, profile: Profile) -> Self {
        let native = workspace.target.join(match profile {
            Profile::Dev => "debug",
            Profile::Release => "release",
        });
        Self {
            component: workspace.target.join(wasm::TARGET).join("guest").join(COMPONENT_FILE),
            node: native.join(NODE),
            edge: native.join(EDGE),
        }
    }

    /// Builds all three.
    pub(crate) fn build(workspace: &Workspace, profile: Profile) -> Result<Self> {
        build_component(workspace)?;
        let mut cargo = workspace.cargo();
        cargo.args(["build", "--bin", NODE, "--bin", EDGE]);
        cargo.args(["--package", "orfeas-node", "--package", "orfeas-edge"]);
        if profile == Profile::Release {
            cargo.arg("--release");
        }
        run(cargo, "build the node and the edge host")?;
        let paths = Self::paths(workspace, profile);
        for path in [&paths.component, &paths.node, &paths.edge] {
            ensure!(path.is_file(), "cargo did not leave {}", path.display());
        }
        Ok(paths)
    }
}

/// Builds the component that the edge host and stock Spin run.
pub(crate) fn build_component(workspace: &Workspace) -> Result<()> {
    let mut cargo = workspace.cargo();
    cargo.args(["build", "--profile", "guest", "--package", GATEWAY]);
    cargo.args(["--target", wasm::TARGET]);
    run(cargo, "build the component")
}

/// Runs a command with its output on ours.
pub(crate) fn run(mut command: std::process::Command, what: &str) -> Result<()> {
    let status = command.status().with_context(|| format!("{what}: start"))?;
    ensure!(status.success(), "{what}: {status}");
    Ok(())
}
