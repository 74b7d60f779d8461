//! `cargo xtask setup`: everything that a build or a run needs and cargo does not bring.
//!
//! Each part is looked for, and only what is missing is fetched. A second run looks and returns;
//! what is missing on the machine itself is reported all at once, before anything is downloaded.

pub(crate) mod cache;
pub(crate) mod libtorch;
pub(crate) mod nats;
pub(crate) mod node_packages;
pub(crate) mod tools;
pub(crate) mod wasm;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::progress;
use crate::workspace::Workspace;

/// What set-up found or fetched.
#[derive(Debug, Clone)]
pub(crate) struct Ready {
    pub(crate) libtorch: PathBuf,
    pub(crate) nats_server: PathBuf,
}

/// Makes sure that all is there.
pub(crate) fn run(workspace: &Workspace) -> Result<Ready> {
    let missing_wasm = !wasm::is_installed(workspace)?;
    let foreign_libtorch = libtorch::foreign(workspace);
    let missing_libtorch = foreign_libtorch.is_none() && !libtorch::is_installed(workspace);
    let found_nats = nats::find(workspace)?;
    check_prerequisites(missing_libtorch)?;

    if missing_wasm {
        eprintln!("  add the Rust target {}", wasm::TARGET);
        wasm::install(workspace)?;
    }
    let libtorch = match foreign_libtorch {
        Some(root) => {
            libtorch::check_foreign(&root)?;
            root
        }
        None => {
            if missing_libtorch {
                let _lock = cache::lock(&workspace.cache)?;
                if !libtorch::is_installed(workspace) {
                    libtorch::install(workspace).context("set up libtorch")?;
                }
            }
            libtorch::cached_path(workspace)
        }
    };
    let nats_server = match found_nats {
        Some(path) => path,
        None => {
            let _lock = cache::lock(&workspace.cache)?;
            match nats::find(workspace)? {
                Some(path) => path,
                None => {
                    nats::install(workspace).context("set up nats-server")?;
                    nats::cached_path(workspace)
                }
            }
        }
    };
    cache::link(&libtorch, &workspace.deps().join("libtorch"))?;
    cache::link(&nats_server, &workspace.deps().join("nats-server"))?;
    Ok(Ready { libtorch, nats_server })
}

/// The command itself: run, optionally check every byte, and say what stands.
pub(crate) fn command(workspace: &Workspace, verify: bool) -> Result<()> {
    let started = Instant::now();
    let ready = run(workspace)?;
    if verify {
        if libtorch::foreign(workspace).is_none() {
            libtorch::verify(workspace)?;
        }
        nats::verify(workspace)?;
    }
    println!("target       {}", wasm::TARGET);
    println!("libtorch     {}", ready.libtorch.display());
    println!("nats-server  {}", ready.nats_server.display());
    println!(
        "set up{} in {}",
        if verify { " and verified" } else { "" },
        progress::human_duration(started.elapsed())
    );
    Ok(())
}

/// Programs that the machine must bring along, all that are missing in one message.
fn check_prerequisites(fetches_libtorch: bool) -> Result<()> {
    let mut problems = Vec::new();
    if let Err(error) = tools::cpp_compiler() {
        problems.push(error.to_string());
    }
    if fetches_libtorch {
        if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
            problems.push(format!(
                "libtorch is fetched for x86-64 Linux only: set LIBTORCH to a libtorch {} for this machine",
                libtorch::VERSION
            ));
        } else {
            if let Err(error) = tools::c_compiler() {
                problems.push(error.to_string());
            }
            if let Err(error) = tools::Python::find() {
                problems.push(error.to_string());
            }
        }
    }
    if problems.is_empty() {
        return Ok(());
    }
    bail!("this machine lacks:\n  - {}", problems.join("\n  - "))
}
