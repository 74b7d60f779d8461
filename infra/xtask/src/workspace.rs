//! The checkout and the places around it: target folder, link folder, run folder, cache.
//!
//! Everything that is downloaded lives in one cache outside the checkout, shared by all checkouts
//! of this user; `.deps` in the checkout holds links into it, `.run` holds logs and stores.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Paths of the checkout that xtask was built from.
#[derive(Debug, Clone)]
pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
    pub(crate) target: PathBuf,
    pub(crate) cache: PathBuf,
}

impl Workspace {
    /// Finds the checkout, its target folder and the cache.
    pub(crate) fn locate() -> Result<Self> {
        let manifest_dir = env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = manifest_dir
            .ancestors()
            .find(|dir| dir.join("Cargo.lock").is_file())
            .with_context(|| format!("no workspace root above {}", manifest_dir.display()))?
            .to_path_buf();
        let target = match env::var_os("CARGO_TARGET_DIR") {
            Some(dir) => root.join(dir),
            None => root.join("target"),
        };
        Ok(Self { target, cache: cache_dir(|name| env::var(name).ok())?, root })
    }

    /// Links into the cache, so that plain `cargo build` finds what setup fetched.
    pub(crate) fn deps(&self) -> PathBuf {
        self.root.join(".deps")
    }

    /// Logs, stores and other things that live as long as a run.
    pub(crate) fn run_dir(&self) -> PathBuf {
        self.root.join(".run")
    }

    /// The path in an environment variable that the caller set, unless it is merely the default
    /// that `.cargo/config.toml` gives it: `.deps/<link>`.
    pub(crate) fn path_override(&self, variable: &str, link: &str) -> Option<PathBuf> {
        let value = PathBuf::from(env::var_os(variable)?);
        let is_default = value.as_os_str().is_empty() || value == self.deps().join(link);
        (!is_default).then_some(value)
    }

    /// A cargo command in the checkout, free of what `cargo run` told xtask about xtask itself.
    pub(crate) fn cargo(&self) -> Command {
        let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.current_dir(&self.root);
        // Some build scripts watch these variables; inherited, they would force rebuilds whenever
        // xtask and a plain cargo take turns.
        for (name, _) in env::vars_os() {
            if name.to_str().is_some_and(describes_running_crate) {
                command.env_remove(name);
            }
        }
        command
    }
}

fn describes_running_crate(name: &str) -> bool {
    name.starts_with("CARGO_PKG_")
        || name.starts_with("CARGO_MANIFEST_")
        || matches!(name, "CARGO_BIN_NAME" | "CARGO_CRATE_NAME" | "CARGO_PRIMARY_PACKAGE" | "OUT_DIR")
}

/// `$ORFEAS_CACHE`, else `$XDG_CACHE_HOME/orfeas`, else `~/.cache/orfeas`.
fn cache_dir(var: impl Fn(&str) -> Option<String>) -> Result<PathBuf> {
    let set = |name: &str| var(name).filter(|value| !value.is_empty());
    let dir = if let Some(dir) = set("ORFEAS_CACHE") {
        PathBuf::from(dir)
    } else if let Some(base) = set("XDG_CACHE_HOME") {
        Path::new(&base).join("orfeas")
    } else if let Some(home) = set("HOME") {
        Path::new(&home).join(".cache/orfeas")
    } else {
        bail!("no place for the cache: set ORFEAS_CACHE or HOME");
    };
    std::path::absolute(&dir).with_context(|| format!("resolve cache folder {}", dir.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache_with(vars: &[(&str, &str)]) -> Option<PathBuf> {
        cache_dir(|name| vars.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())).ok()
    }

    #[test]
    fn cache_prefers_own_variable_then_xdg_then_home() {
        let home = ("HOME", "/home/ada");
        let xdg = ("XDG_CACHE_HOME", "/var/cache/ada");
        assert_eq!(cache_with(&[home, xdg, ("ORFEAS_CACHE", "/big")]), Some("/big".into()));
        assert_eq!(cache_with(&[home, xdg]), Some("/var/cache/ada/orfeas".into()));
        assert_eq!(cache_with(&[home]), Some("/home/ada/.cache/orfeas".into()));
        assert_eq!(cache_with(&[]), None);
    }

    #[test]
    fn empty_variable_counts_as_unset() {
        assert_eq!(
            cache_with(&[("ORFEAS_CACHE", ""), ("HOME", "/home/ada")]),
            Some("/home/ada/.cache/orfeas".into())
        );
    }

    #[test]
    fn cargo_settings_of_the_user_are_not_taken_for_the_running_crate() {
        assert!(describes_running_crate("CARGO_PKG_NAME"));
        assert!(!describes_running_crate("CARGO_TARGET_DIR"));
        assert!(!describes_running_crate("CARGO_HOME"));
    }
}
