//! `cargo xtask faults`: the long form of the fault tests, with the programs as the tests build them.
//!
//! The runs themselves are the program `orfeas-faults` of the tests' crate: they need a NATS client, which
//! xtask does without.

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::artifacts;
use crate::progress::step;
use crate::setup;
use crate::workspace::Workspace;

const PROGRAM: &str = "orfeas-faults";

#[derive(Args)]
pub(crate) struct Options {
    /// Jobs of each scenario
    #[arg(long, default_value_t = 200)]
    jobs: usize,
    /// What the schedules are drawn from; the same seed draws the same schedules [default: the time]
    #[arg(long)]
    seed: Option<u64>,
    /// Go on with further seeds until so many minutes are over
    #[arg(long)]
    minutes: Option<u64>,
    /// Only the scenarios whose names contain this
    #[arg(long)]
    scenario: Option<String>,
}

pub(crate) fn command(workspace: &Workspace, options: &Options) -> Result<()> {
    let ready = step("set up", || setup::run(workspace))?;
    step("build the component", || artifacts::build_component(workspace))?;
    step("build the programs", || {
        let mut cargo = workspace.cargo();
        // The same call as the tests', so that what they have built serves here too.
        cargo.args(["build", "--workspace", "--bins", "--tests"]);
        artifacts::run(cargo, "build the programs")
    })?;
    let mut faults = std::process::Command::new(workspace.target.join("debug").join(PROGRAM));
    faults.args(options.arguments()).env("ORFEAS_NATS_SERVER", ready.nats_server);
    let status = faults.status().context("start the fault tests")?;
    ensure!(status.success(), "something was lost, doubled or stuck: see above");
    Ok(())
}

impl Options {
    fn arguments(&self) -> Vec<String> {
        let mut arguments = vec!["--jobs".to_owned(), self.jobs.to_string()];
        let mut add = |name: &str, value: Option<String>| {
            arguments.extend(value.into_iter().flat_map(|value| [format!("--{name}"), value]));
        };
        add("seed", self.seed.map(|seed| seed.to_string()));
        add("minutes", self.minutes.map(|minutes| minutes.to_string()));
        add("scenario", self.scenario.clone());
        arguments
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_given_is_handed_on() {
        let options = Options { jobs: 9, seed: Some(4), minutes: None, scenario: Some("bus".to_owned()) };
        assert_eq!(options.arguments(), ["--jobs", "9", "--seed", "4", "--scenario", "bus"]);
    }
}
