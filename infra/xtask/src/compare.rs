//! `cargo xtask compare`: our networks beside a PyTorch restatement of them, on the same tensors.
//!
//! ```text
//!  infra/compare/restatement.py make ──▶ dit, volume, shape .safetensors (in the target folder)
//!  PyTorch │ orfeas-gpu-node bench, in turn, one process each, round by round ──▶ one table
//! ```
//!
//! PyTorch comes from the wheel that libtorch is from, into a virtual
//! environment in the cache; `cpu_torch.py` makes it importable without the
//! CUDA libraries that it is linked to.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::Deserialize;

use crate::artifacts::BuildOptions;
use crate::progress::step;
use crate::setup::{self, cache, libtorch};
use crate::workspace::Workspace;

/// What PyTorch needs to be imported, and the reader of the files.
const PACKAGES: [&str; 9] = [
    "typing-extensions",
    "filelock",
    "sympy",
    "mpmath",
    "networkx",
    "jinja2",
    "MarkupSafe",
    "numpy",
    "safetensors",
];

#[derive(Args)]
pub(crate) struct Options {
    /// CPU threads of either side
    #[arg(long, default_value_t = 1)]
    threads: u32,
    /// Rounds: in each, both sides run once after a run that does not count
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Leave out the dense grid at octree 256, which takes minutes
    #[arg(long)]
    quick: bool,
    /// Compare this `orfeas-gpu-node`, and build nothing
    #[arg(long, value_name = "FILE", conflicts_with_all = ["dev", "no_build"])]
    node: Option<PathBuf>,
    #[command(flatten)]
    build: BuildOptions,
}

/// The line that either side prints.
#[derive(Debug, Clone, Deserialize)]
struct Line {
    median_seconds: f64,
    cpu_seconds: f64,
    max_abs_error: f64,
}

pub(crate) fn command(workspace: &Workspace, options: &Options) -> Result<()> {
    step("set up", || setup::run(workspace))?;
    let python = step("install PyTorch for Python", || python(workspace))?;
    let node = match &options.node {
        Some(node) => node.canonicalize().with_context(|| format!("find {}", node.display()))?,
        None => step("build the programs", || options.build.artifacts(workspace))?.node,
    };
    let folder = workspace.target.join("compare");
    std::fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    let script = workspace.root.join("infra/compare/restatement.py");
    let file = |what: &str| folder.join(what).with_extension("safetensors");
    for what in ["dit", "volume", "shape"] {
        if !file(what).is_file() {
            let mut make = quiet(&python);
            make.arg(&script).args(["make", what]).arg(file(what));
            step(&format!("make {what}"), || run(make).map(drop))?;
        }
    }
    let threads = options.threads.to_string();
    println!(
        "{:<8} {:>12} {:>12} {:>9} {:>11} {:>11}",
        "", "PyTorch s", "ours s", "ratio", "CPU ratio", "max error"
    );
    for what in ["dit", "volume"] {
        let (mut theirs, mut ours) = (Vec::new(), Vec::new());
        for _ in 0..options.rounds {
            let mut command = quiet(&python);
            command.arg(&script).args(["time", what]).arg(file(what)).args([
                "--threads",
                &threads,
                "--reps",
                "1",
            ]);
            theirs.push(line(command)?);
            let mut command = quiet(&node);
            command.args(["bench", what, "--dump"]).arg(file(what)).args([
                "--threads",
                &threads,
                "--reps",
                "1",
            ]);
            ours.push(line(command)?);
        }
        let of = |lines: &[Line], value: fn(&Line) -> f64| median(lines.iter().map(value).collect());
        let (wall, cpu) = (|line: &Line| line.median_seconds, |line: &Line| line.cpu_seconds);
        let error = ours.iter().map(|line| line.max_abs_error).fold(0.0, f64::max);
        println!(
            "{what:<8} {:>12.3} {:>12.3} {:>9.3} {:>11.3} {error:>11.1e}",
            of(&theirs, wall),
            of(&ours, wall),
            of(&ours, wall) / of(&theirs, wall),
            of(&ours, cpu) / of(&theirs, cpu),
        );
    }
    if !options.quick {
        let mut command = quiet(&node);
        command.args(["bench", "coarse", "--dump"]).arg(file("shape")).args([
            "--threads",
            &threads,
            "--reps",
            "3",
        ]);
        print!("{}", run(command)?);
    }
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// A program whose threads sleep while they wait.
fn quiet(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env("OMP_WAIT_POLICY", "passive").env("GOMP_SPINCOUNT", "0");
    command
}

fn line(command: Command) -> Result<Line> {
    let output = run(command)?;
    serde_json::from_str(output.trim()).with_context(|| format!("read the result {}", output.trim()))
}

fn run(mut command: Command) -> Result<String> {
    let output = command.output().with_context(|| format!("start {}", command.get_program().display()))?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{} failed: {}", command.get_program().display(), error.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The interpreter of an environment with PyTorch, made at the first call.
fn python(workspace: &Workspace) -> Result<PathBuf> {
    let environment = workspace.cache.join(format!("pytorch-{}-cpu", libtorch::VERSION));
    let interpreter = environment.join("bin/python");
    let ready = environment.join("ready");
    if ready.is_file() {
        return Ok(interpreter);
    }
    let _lock = cache::lock(&workspace.cache)?;
    let mut venv = Command::new("python3");
    venv.args(["-m", "venv", "--clear"]).arg(&environment);
    run(venv)?;
    let mut pip = Command::new(&interpreter);
    pip.args(["-m", "pip", "install", "--quiet", "--no-deps", &format!("torch=={}", libtorch::VERSION)]);
    pip.args(PACKAGES);
    run(pip)?;
    let mut site = Command::new(&interpreter);
    site.args(["-c", "import sysconfig; print(sysconfig.get_paths()['platlib'])"]);
    let mut adapt = Command::new(&interpreter);
    adapt.arg(workspace.root.join("infra/compare/cpu_torch.py"));
    adapt.arg(run(site)?.trim()).arg(libtorch::cached_path(workspace));
    run(adapt)?;
    let mut probe = Command::new(&interpreter);
    probe.args(["-c", "import torch"]);
    run(probe)?;
    std::fs::write(&ready, "").with_context(|| format!("write {}", ready.display()))?;
    Ok(interpreter)
}
