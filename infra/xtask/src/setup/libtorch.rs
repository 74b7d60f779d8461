//! libtorch 2.11.0 for the CPU, taken out of the published Python wheels.
//!
//! The wheels hold the headers and the libraries; what a CPU build needs of them is a tenth of
//! their content. Each wheel is pinned by its SHA-256 and kept until all are there, so an
//! interrupted set-up goes on with the next one; the unpacked tree is pinned by its digest.
//! Why wheels, and why the stub: `infra/adr/0001-libtorch-from-wheels.md`.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Seek};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::cache::{self, Entry};
use super::tools::{self, Python};
use crate::progress;
use crate::workspace::Workspace;

/// The release that `tch` 0.24 binds to.
pub(crate) const VERSION: &str = "2.11.0";

/// The folder's name in the cache.
const FOLDER: &str = "libtorch-2.11.0-cpu";

/// The stub that stands in for the wheel's `libtorch.so`, which would pull in the CUDA libraries.
const STUB: &str = "lib/libtorch.so";
const BUILD_VERSION: &str = "build-version";

/// Libraries that a CPU program loads; `libtorch_cpu.so` of this wheel needs the two CUDA ones.
const LIBRARIES: [&str; 5] =
    ["libtorch_cpu.so", "libc10.so", "libgomp.so.1", "libcudart.so.13", "libcupti.so.13"];

/// Digest (see [`cache::digest`]) of all headers and libraries out of the pinned wheels.
const TREE_SHA256: &str = "21c8889b8b2d8938f674cd0cffe09b734bf1eacb3c1b567ea44d74b9b7d7feb2";
const TREE_BYTES: u64 = 496_572_975;

/// pip ends a connection that stalls; this ends a pip that does not.
const STALL_LIMIT: Duration = Duration::from_secs(240);

struct Wheel {
    requirement: &'static str,
    file: &'static str,
    sha256: &'static str,
    bytes: u64,
}

const WHEELS: [Wheel; 3] = [
    Wheel {
        requirement: "torch==2.11.0",
        file: "torch-2.11.0-cp311-cp311-manylinux_2_28_x86_64.whl",
        sha256: "7aa2f9bbc6d4595ba72138026b2074be1233186150e9292865e04b7a63b8c67a",
        bytes: 530_604_548,
    },
    Wheel {
        requirement: "nvidia-cuda-runtime==13.0.96",
        file: "nvidia_cuda_runtime-13.0.96-py3-none-manylinux2014_x86_64.manylinux_2_17_x86_64.whl",
        sha256: "7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548",
        bytes: 2_243_632,
    },
    Wheel {
        requirement: "nvidia-cuda-cupti==13.0.85",
        file: "nvidia_cuda_cupti-13.0.85-py3-none-manylinux_2_25_x86_64.whl",
        sha256: "4eb01c08e859bf924d222250d2e8f8b8ff6d3db4721288cf35d14252a4d933c8",
        bytes: 10_715_597,
    },
];

/// The libtorch that the operator named, which then is used instead of ours.
pub(crate) fn foreign(workspace: &Workspace) -> Option<PathBuf> {
    workspace.path_override("LIBTORCH", "libtorch")
}

/// Where the cached tree is or will be.
pub(crate) fn cached_path(workspace: &Workspace) -> PathBuf {
    workspace.cache.join(FOLDER)
}

/// Whether [`install`] would have work to do.
pub(crate) fn is_installed(workspace: &Workspace) -> bool {
    cache::is_complete(&cached_path(workspace))
}

/// Checks a libtorch that the operator brought along.
pub(crate) fn check_foreign(root: &Path) -> Result<()> {
    for needed in ["include/torch/csrc/api/include/torch/torch.h", "lib/libtorch_cpu.so"] {
        ensure!(
            root.join(needed).is_file(),
            "LIBTORCH={} has no {needed}: unset it to let setup fetch libtorch {VERSION}",
            root.display()
        );
    }
    if let Ok(found) = fs::read_to_string(root.join(BUILD_VERSION)) {
        ensure!(
            found.trim().starts_with(VERSION),
            "LIBTORCH={} is version {}, but {VERSION} is needed",
            root.display(),
            found.trim()
        );
    }
    Ok(())
}

/// Reads every byte of the cached tree.
pub(crate) fn verify(workspace: &Workspace) -> Result<()> {
    let root = cached_path(workspace);
    cache::verify(&root)?;
    verify_pinned(&root)
}

/// Fetches and unpacks libtorch into the cache. The caller holds the cache's lock.
pub(crate) fn install(workspace: &Workspace) -> Result<()> {
    let dest = cached_path(workspace);
    // A tree that is whole but unsealed was unpacked by hand or by an older xtask: adopt it.
    if dest.join(STUB).is_file() && verify_pinned(&dest).is_ok() {
        return cache::seal(&dest);
    }
    let python = Python::find()?;
    let compiler = tools::c_compiler()?;
    let downloads = workspace.cache.join("downloads");
    fs::create_dir_all(&downloads).with_context(|| format!("create {}", downloads.display()))?;
    for wheel in &WHEELS {
        download(&python, wheel, &downloads)?;
    }
    cache::install(&dest, |staging| {
        unpack_all(&python, &downloads, staging)?;
        verify_pinned(staging).context("check the unpacked libtorch")?;
        make_stub(&compiler, &staging.join(STUB))?;
        fs::write(staging.join(BUILD_VERSION), format!("{VERSION}+cpu-subset\n"))
            .context("write build-version")
    })?;
    cache::remove_tree(&downloads)
}

fn verify_pinned(root: &Path) -> Result<()> {
    let pinned: Vec<Entry> = cache::entries(root)?
        .into_iter()
        .filter(|entry| entry.path != STUB && entry.path != BUILD_VERSION)
        .collect();
    let found = cache::digest(root, &pinned)?;
    ensure!(
        found == TREE_SHA256,
        "libtorch in {} has tree digest {found}, expected {TREE_SHA256}",
        root.display()
    );
    Ok(())
}

fn download(python: &Python, wheel: &Wheel, downloads: &Path) -> Result<()> {
    let path = downloads.join(wheel.file);
    if path.is_file() && cache::sha256_file(&path)? == wheel.sha256 {
        return Ok(());
    }
    // pip writes to a temporary folder first: its growth is the progress.
    // Named for this process: a pip that outlived a killed set-up must not write into it.
    let temporary = downloads.join(format!("partial-{}", std::process::id()));
    remove_partials(downloads)?;
    fs::create_dir_all(&temporary).with_context(|| format!("create {}", temporary.display()))?;
    let mut log = File::options()
        .create(true)
        .truncate(true)
        .read(true)
        .write(true)
        .open(downloads.join("pip.log"))
        .context("create pip.log")?;

    let mut pip = python
        .pip_download(wheel.requirement, &temporary)
        .env("TMPDIR", &temporary)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log.try_clone()?)
        .spawn()
        .context("start pip")?;
    let outcome = watch_download(&mut pip, wheel, &temporary);
    if outcome.is_err() {
        // It has ended already, or must: either way it is reaped here.
        let _ = pip.kill();
        let _ = pip.wait();
        log.rewind()?;
        let tail = tools::last_lines(&std::io::read_to_string(&log)?, 12);
        return outcome.with_context(|| format!("download {}; pip said:\n{tail}", wheel.requirement));
    }
    let fresh = temporary.join(wheel.file);
    ensure!(fresh.is_file(), "pip fetched another wheel for {} than {}", wheel.requirement, wheel.file);
    let found = cache::sha256_file(&fresh)?;
    ensure!(found == wheel.sha256, "{} has SHA-256 {found}, expected {}", wheel.file, wheel.sha256);
    fs::rename(&fresh, &path).with_context(|| format!("keep {}", path.display()))?;
    cache::remove_tree(&temporary)
}

fn remove_partials(downloads: &Path) -> Result<()> {
    let listing = fs::read_dir(downloads).with_context(|| format!("list {}", downloads.display()))?;
    for item in listing.filter_map(Result::ok) {
        if item.file_name().to_string_lossy().starts_with("partial-") {
            cache::remove_tree(&item.path())?;
        }
    }
    Ok(())
}

fn watch_download(pip: &mut Child, wheel: &Wheel, temporary: &Path) -> Result<()> {
    let bar = progress::bytes(&format!("fetch {}", wheel.requirement), wheel.bytes);
    let mut seen = 0;
    let mut last_growth = Instant::now();
    loop {
        if let Some(status) = pip.try_wait().context("wait for pip")? {
            bar.finish_and_clear();
            ensure!(status.success(), "pip ended with {status}");
            return Ok(());
        }
        // Files come and go under the walk, so a failed look is not an error.
        let now: u64 =
            cache::entries(temporary).map_or(seen, |entries| entries.iter().map(|entry| entry.bytes).sum());
        if now != seen {
            seen = now;
            last_growth = Instant::now();
            bar.set_position(now.min(wheel.bytes));
        }
        ensure!(
            last_growth.elapsed() < STALL_LIMIT,
            "no byte came for {}",
            progress::human_duration(STALL_LIMIT)
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn unpack_all(python: &Python, downloads: &Path, staging: &Path) -> Result<()> {
    let bar = progress::bytes("unpack libtorch", TREE_BYTES);
    let mut before = 0;
    for wheel in &WHEELS {
        let mut child = python
            .command()
            .arg("-c")
            .arg(include_str!("unpack_wheel.py"))
            .arg(downloads.join(wheel.file))
            .arg(staging)
            .args(LIBRARIES)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("start python3")?;
        let mut written = 0;
        if let Some(stdout) = child.stdout.take() {
            for line in BufReader::new(stdout).lines() {
                written = line?.trim().parse().unwrap_or(written);
                bar.set_position(before + written);
            }
        }
        before += written;
        let status = child.wait().context("wait for python3")?;
        ensure!(status.success(), "unpack {}: {status}", wheel.file);
    }
    bar.finish_and_clear();
    Ok(())
}

fn make_stub(compiler: &Path, path: &Path) -> Result<()> {
    let status = Command::new(compiler)
        .args(["-shared", "-Wl,-soname,libtorch.so", "-o"])
        .arg(path)
        .args(["-x", "c", "/dev/null"])
        .status()
        .with_context(|| format!("run {}", compiler.display()))?;
    if !status.success() {
        bail!("build the libtorch.so stub: {status}");
    }
    Ok(())
}
