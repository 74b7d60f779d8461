//! `cargo xtask bench`: runs the benchmarks and makes one table of what they print.
//!
//! A benchmark is any `[[bench]]` target that prints JSON lines such as
//! `{"bench": "submit_1mb_jpeg", "n": 200, "p50_ms": 21.4, "p99_ms": 35.0}`; it may print other
//! lines too, which are passed through.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde::{Deserialize, Serialize};

use crate::artifacts;
use crate::progress::step;
use crate::setup::{self, node_packages};
use crate::workspace::Workspace;

#[derive(Args)]
pub(crate) struct Options {
    /// Only benchmarks whose `package/target` contains this
    filter: Option<String>,
    /// Print the JSON lines instead of the table
    #[arg(long)]
    json: bool,
}

/// One measured distribution.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Measurement {
    bench: String,
    n: u64,
    p50_ms: f64,
    p99_ms: f64,
}

/// A bench target of the workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Target {
    package: String,
    name: String,
}

pub(crate) fn command(workspace: &Workspace, options: &Options) -> Result<()> {
    step("set up", || {
        setup::run(workspace)?;
        node_packages::ensure_installed(workspace)
    })?;
    let targets: Vec<Target> = targets(workspace)?
        .into_iter()
        .filter(|target| {
            let label = format!("{}/{}", target.package, target.name);
            options.filter.as_ref().is_none_or(|filter| label.contains(filter.as_str()))
        })
        .collect();
    ensure!(!targets.is_empty(), "no benchmark matches");
    if targets.iter().any(|target| target.package == "orfeas-tests") {
        step("build the programs that are measured", || {
            artifacts::build_component(workspace)?;
            // In one call with the benchmarks: cargo then resolves features once for both.
            let mut cargo = workspace.cargo();
            cargo.args(["build", "--release", "--workspace", "--bins"]);
            cargo.args(targets.iter().flat_map(|target| ["--bench", &target.name]));
            artifacts::run(cargo, "build programs and benchmarks")
        })?;
    }
    let mut groups = Vec::new();
    for target in &targets {
        let arguments = ["bench", "--workspace", "--bench", &target.name];
        let shown = format!("cargo {}", arguments.join(" "));
        let mut cargo = workspace.cargo();
        cargo.args(arguments);
        groups.push((shown.clone(), step(&shown, || measure(cargo))?));
    }
    if options.json {
        for measurement in groups.iter().flat_map(|(_, measurements)| measurements) {
            println!("{}", serde_json::to_string(measurement)?);
        }
    } else {
        print!("\n{}", table(&groups));
    }
    Ok(())
}

fn targets(workspace: &Workspace) -> Result<Vec<Target>> {
    #[derive(Deserialize)]
    struct Metadata {
        packages: Vec<Package>,
    }
    #[derive(Deserialize)]
    struct Package {
        name: String,
        targets: Vec<Listed>,
    }
    #[derive(Deserialize)]
    struct Listed {
        name: String,
        kind: Vec<String>,
    }
    let output = workspace
        .cargo()
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .output()
        .context("run cargo metadata")?;
    ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr).trim());
    let metadata: Metadata = serde_json::from_slice(&output.stdout).context("parse cargo metadata")?;
    let mut found = Vec::new();
    for package in metadata.packages {
        for target in package.targets {
            if target.kind.iter().any(|kind| kind == "bench") {
                found.push(Target { package: package.name.clone(), name: target.name });
            }
        }
    }
    Ok(found)
}

fn measure(mut cargo: Command) -> Result<Vec<Measurement>> {
    let mut child = cargo.stdout(Stdio::piped()).spawn().context("start cargo bench")?;
    let mut measurements = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            let line = line.context("read the benchmark's output")?;
            match parse_line(&line)? {
                Some(measurement) => measurements.push(measurement),
                None => eprintln!("{line}"),
            }
        }
    }
    let status = child.wait().context("wait for cargo bench")?;
    if !status.success() {
        bail!("the benchmark ended with {status}");
    }
    Ok(measurements)
}

/// A JSON object must be a whole measurement: a misspelt field is an error, not a lost row.
fn parse_line(line: &str) -> Result<Option<Measurement>> {
    if !line.starts_with('{') {
        return Ok(None);
    }
    serde_json::from_str(line).map(Some).with_context(|| format!("parse the measurement `{line}`"))
}

/// One row for each measurement, under the command that made it.
fn table(groups: &[(String, Vec<Measurement>)]) -> String {
    let all = groups.iter().flat_map(|(_, measurements)| measurements);
    let width = all.map(|measurement| measurement.bench.len()).max().unwrap_or(0).max("bench".len());
    let mut text = String::new();
    for (command, measurements) in groups {
        text.push_str(&format!("$ {command}\n"));
        text.push_str(&format!("  {:<width$} {:>7} {:>11} {:>11}\n", "bench", "n", "p50 ms", "p99 ms"));
        for Measurement { bench, n, p50_ms, p99_ms } in measurements {
            text.push_str(&format!("  {bench:<width$} {n:>7} {p50_ms:>11.3} {p99_ms:>11.3}\n"));
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measurement(bench: &str, n: u64, p50_ms: f64, p99_ms: f64) -> Measurement {
        Measurement { bench: bench.to_owned(), n, p50_ms, p99_ms }
    }

    #[test]
    fn only_json_lines_are_measurements_and_they_must_be_whole() {
        assert_eq!(parse_line("warming up").unwrap(), None);
        let line = r#"{"bench":"glb","p50_ms":1.5,"p99_ms":2,"n":40}"#;
        assert_eq!(parse_line(line).unwrap(), Some(measurement("glb", 40, 1.5, 2.0)));
        parse_line(r#"{"bench":"glb","p50":1.5}"#).unwrap_err();
    }

    #[test]
    fn columns_line_up_across_groups() {
        let groups = vec![
            ("cargo bench a".to_owned(), vec![measurement("x", 5, 1.0, 2.5)]),
            ("cargo bench b".to_owned(), vec![measurement("a_longer_name", 12_000, 1234.5, 9999.999)]),
        ];
        assert_eq!(
            table(&groups),
            "$ cargo bench a\n\
             \x20 bench               n      p50 ms      p99 ms\n\
             \x20 x                   5       1.000       2.500\n\
             \n\
             $ cargo bench b\n\
             \x20 bench               n      p50 ms      p99 ms\n\
             \x20 a_longer_name   12000    1234.500    9999.999\n\
             \n"
        );
    }
}
