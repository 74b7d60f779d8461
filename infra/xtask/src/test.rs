//! `cargo xtask test`: set up, build, and run every test there is.
//!
//! One profile serves all of it, so the expensive dependencies are compiled once.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::artifacts;
use crate::progress::{self, step};
use crate::setup::{self, node_packages};
use crate::tree;
use crate::workspace::Workspace;

#[derive(Args)]
pub(crate) struct Options {
    /// Only tests whose name contains this
    filter: Option<String>,
}

/// Runs everything; the last lines are the test runner's summary.
pub(crate) fn command(workspace: &Workspace, options: &Options) -> Result<()> {
    let started = Instant::now();
    step("set up", || {
        setup::run(workspace)?;
        node_packages::ensure_installed(workspace)
    })?;
    step("dependency rules", || tree::check(workspace))?;
    step("build the components", || {
        artifacts::build_component(workspace)?;
        artifacts::build_test_guest(workspace)
    })?;
    // Tests and programs in one call: cargo then resolves features once for both, and the
    // end-to-end tests find the programs beside themselves.
    step("build programs and tests", || {
        let mut cargo = workspace.cargo();
        cargo.args(["build", "--workspace", "--bins", "--tests"]);
        artifacts::run(cargo, "build programs and tests")
    })?;
    let documentation = match options.filter {
        Some(_) => Ok(()),
        None => step("examples in the documentation", || {
            let mut cargo = workspace.cargo();
            cargo.args(["test", "--workspace", "--doc", "--quiet"]);
            artifacts::run(cargo, "run the documentation's examples")
        }),
    };
    eprintln!("\n== tests (after {})", progress::human_duration(started.elapsed()));
    let tests = if has_nextest(workspace) {
        run_nextest(workspace, options)
    } else {
        run_cargo_test(workspace, options)
    };
    documentation.and(tests)
}

fn has_nextest(workspace: &Workspace) -> bool {
    workspace
        .cargo()
        .args(["nextest", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// The tensor library's threads are to sleep while they wait: tests run beside each other, and would spin in each
/// other's way.
fn with_sleeping_threads(mut cargo: Command) -> Command {
    cargo.env("OMP_WAIT_POLICY", "passive").env("GOMP_SPINCOUNT", "0");
    cargo
}

fn run_nextest(workspace: &Workspace, options: &Options) -> Result<()> {
    let mut cargo = with_sleeping_threads(workspace.cargo());
    cargo.args(["nextest", "run", "--workspace", "--no-fail-fast"]);
    cargo.args(&options.filter);
    artifacts::run(cargo, "run the tests")
}

/// The plain runner prints a summary for each binary; ours adds them up at the end.
fn run_cargo_test(workspace: &Workspace, options: &Options) -> Result<()> {
    let mut cargo = with_sleeping_threads(workspace.cargo());
    cargo.args(["test", "--workspace", "--bins", "--lib", "--tests", "--no-fail-fast"]);
    if let Some(filter) = &options.filter {
        cargo.arg("--").arg(filter);
    }
    let (tally, success) = run_and_tally(cargo)?;
    println!("\n{} passed, {} failed, {} skipped", tally.passed, tally.failed, tally.skipped);
    if !success {
        bail!("run the tests: some failed");
    }
    Ok(())
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    passed: u64,
    failed: u64,
    skipped: u64,
}

impl Tally {
    /// Adds a line like `test result: ok. 30 passed; 0 failed; 1 ignored; …`; others count nothing.
    fn add_line(&mut self, line: &str) {
        let Some((_, counts)) = line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". "))
        else {
            return;
        };
        for count in counts.split("; ") {
            let mut words = count.split(' ');
            let number = words.next().and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
            match words.next() {
                Some("passed") => self.passed += number,
                Some("failed") => self.failed += number,
                Some("ignored") => self.skipped += number,
                _ => {}
            }
        }
    }
}

fn run_and_tally(mut command: Command) -> Result<(Tally, bool)> {
    let mut child = command.stdout(Stdio::piped()).spawn().context("start cargo test")?;
    let mut tally = Tally::default();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            let line = line.context("read the tests' output")?;
            println!("{line}");
            tally.add_line(&line);
        }
    }
    let status = child.wait().context("wait for cargo test")?;
    Ok((tally, status.success()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_of_several_binaries_add_up() {
        let mut tally = Tally::default();
        for line in [
            "running 3 tests",
            "test result: ok. 30 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.12s",
            "test a::b ... FAILED",
            "test result: FAILED. 4 passed; 2 failed; 0 ignored; 0 measured; 7 filtered out; finished in 1s",
        ] {
            tally.add_line(line);
        }
        assert_eq!(tally, Tally { passed: 34, failed: 2, skipped: 1 });
    }

    #[test]
    fn failing_command_is_told_apart_from_its_tally() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo 'test result: ok. 2 passed; 0 failed'; exit 1"]);
        let (tally, success) = run_and_tally(command).unwrap();
        assert_eq!((tally.passed, success), (2, false));
    }
}
