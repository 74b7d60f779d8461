//! Programs that set-up calls, and what to say when one is missing.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Wheels are looked up for this interpreter whatever runs pip: their content that we use
/// does not depend on it, and the pinned file names do.
const WHEEL_PLATFORM: [&str; 14] = [
    "--python-version=311",
    "--implementation=cp",
    "--abi=cp311",
    "--abi=none",
    "--abi=abi3",
    "--platform=manylinux_2_28_x86_64",
    "--platform=manylinux_2_25_x86_64",
    "--platform=manylinux2014_x86_64",
    "--platform=manylinux_2_17_x86_64",
    "--no-deps",
    "--only-binary=:all:",
    "--no-cache-dir",
    "--no-input",
    "--disable-pip-version-check",
];

/// A Python 3 from 3.8 on that has pip.
pub(crate) struct Python(PathBuf);

impl Python {
    const NAMES: [&str; 8] = [
        "python3",
        "python",
        "python3.14",
        "python3.13",
        "python3.12",
        "python3.11",
        "python3.10",
        "python3.9",
    ];

    /// The first on PATH that will do.
    pub(crate) fn find() -> Result<Self> {
        let mut without_pip = None;
        for path in Self::NAMES.iter().filter_map(|name| on_path(name)) {
            if runs(&path, "import sys; sys.exit(sys.version_info < (3, 8))") {
                if runs(&path, "import pip") {
                    return Ok(Self(path));
                }
                without_pip.get_or_insert(path);
            }
        }
        match without_pip {
            Some(path) => bail!(
                "{} has no pip, which fetches libtorch: install python3-pip (apt-get install python3-pip)",
                path.display()
            ),
            None => bail!(
                "no python3 (3.8 or later) on PATH; its pip fetches libtorch: install python3 and \
                 python3-pip (apt-get install python3-pip), or set LIBTORCH to a libtorch {}",
                super::libtorch::VERSION
            ),
        }
    }

    pub(crate) fn command(&self) -> Command {
        Command::new(&self.0)
    }

    /// `pip download` of one pinned wheel into `folder`.
    pub(crate) fn pip_download(&self, requirement: &str, folder: &Path) -> Command {
        let mut command = self.command();
        command
            .args(["-m", "pip", "download", "--quiet"])
            .args(WHEEL_PLATFORM)
            .arg("--dest")
            .arg(folder)
            .arg(requirement);
        command
    }
}

/// The C compiler that links the stub.
pub(crate) fn c_compiler() -> Result<PathBuf> {
    first_of("CC", &["cc", "gcc", "clang"])
        .context("no C compiler on PATH: install gcc (apt-get install g++), or set CC")
}

/// The C++ compiler that builds the binding to libtorch.
pub(crate) fn cpp_compiler() -> Result<PathBuf> {
    first_of("CXX", &["c++", "g++", "clang++"]).context(
        "no C++ compiler on PATH; the binding to libtorch needs one: \
         install g++ (apt-get install g++), or set CXX",
    )
}

/// Node.js's package installer, for validators in the tests.
pub(crate) fn npm() -> Result<PathBuf> {
    on_path("npm").context(
        "no npm on PATH; the tests use a validator written in JavaScript: install Node.js 20 or later with npm",
    )
}

/// The program of this name on PATH.
pub(crate) fn on_path(name: &str) -> Option<PathBuf> {
    find_in(&env::var_os("PATH")?, name)
}

/// The last `count` lines of a text.
pub(crate) fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

fn first_of(variable: &str, names: &[&str]) -> Option<PathBuf> {
    if let Some(chosen) = env::var_os(variable).filter(|value| !value.is_empty()) {
        return Some(PathBuf::from(chosen));
    }
    names.iter().find_map(|name| on_path(name))
}

fn find_in(path: &OsStr, name: &str) -> Option<PathBuf> {
    env::split_paths(path).map(|folder| folder.join(name)).find(|candidate| {
        fs::metadata(candidate).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    })
}

fn runs(python: &Path, program: &str) -> bool {
    Command::new(python)
        .args(["-c", program])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn only_executable_files_are_programs() {
        let scratch = Scratch::new("tools-path");
        let tool = scratch.path().join("tool");
        fs::write(&tool, "#!/bin/sh\n").unwrap();
        let path = env::join_paths([Path::new("/nowhere"), scratch.path()]).unwrap();
        assert_eq!(find_in(&path, "tool"), None);
        fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(find_in(&path, "tool"), Some(tool));
    }

    #[test]
    fn last_lines_of_a_short_text_are_all_of_it() {
        assert_eq!(last_lines("a\nb\nc\n", 2), "b\nc");
        assert_eq!(last_lines("a", 5), "a");
    }
}
