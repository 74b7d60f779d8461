//! The command line: one file per command.

mod bench;
mod blocklist;
mod convert;
mod dead;
mod fleet;
mod generate;
mod keys;
mod model_commands;
mod models;
mod node_commands;
mod parity;
mod rollout;
mod serve;
mod telemetry;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, Subcommand};

use crate::config::NatsFlags;
use crate::metrics::Metrics;
use crate::service::{Connection, NodeVerb};

/// A person waits at the terminal.
const COMMAND_CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// A service tells of its life; of its connection, our own messages do.
const SERVE_LOG: &str = "info,async_nats=warn";
/// A command prints its result; beside it, only what went wrong.
const COMMAND_LOG: &str = "warn";

/// Picture in, 3D model out: the node that runs the models
#[derive(Debug, Parser)]
#[command(name = "orfeas-gpu-node", version, max_term_width = 110)]
struct Cli {
    #[command(flatten)]
    log: telemetry::LogFlags,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serves a region: takes jobs off its queue and answers its requests
    Serve(Box<serve::Serve>),
    /// Makes a model of one picture, without NATS
    Generate(generate::Generate),
    /// The digests of files that are refused everywhere
    Blocklist(blocklist::Blocklist),
    /// The jobs that were given up
    Dead(dead::Dead),
    /// The keys by which callers are let in at the edge
    Keys(keys::Keys),
    /// How much of the traffic the canary channel gets
    Rollout(rollout::RolloutCommand),
    /// The model folders that the neural families use
    Models(models::Models),
    /// Has nodes finish what runs, hand back what waits and take nothing more
    Drain(node_commands::NodeTarget),
    /// Has nodes start and take nothing more; what waits on them waits on
    Pause(node_commands::NodeTarget),
    /// Has paused or drained nodes serve again
    Resume(node_commands::NodeTarget),
    /// Compares the networks with reference results
    Parity(parity::Parity),
    /// Times a network on the tensors of a file
    Bench(bench::Bench),
}

/// Runs the program.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let default = if matches!(cli.command, Command::Serve(_)) { SERVE_LOG } else { COMMAND_LOG };
    telemetry::start(&cli.log, default).context("cannot start logging")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.context("cannot start the async runtime")?.block_on(async {
        match cli.command {
            Command::Serve(serve) => return serve.run().await,
            Command::Generate(generate) => generate.run().await,
            Command::Blocklist(blocklist) => blocklist.run().await,
            Command::Dead(dead) => dead.run().await,
            Command::Keys(keys) => keys.run().await,
            Command::Rollout(rollout) => rollout.run().await,
            Command::Models(models) => models.run().await,
            Command::Drain(nodes) => nodes.tell(NodeVerb::Drain).await,
            Command::Pause(nodes) => nodes.tell(NodeVerb::Pause).await,
            Command::Resume(nodes) => nodes.tell(NodeVerb::Resume).await,
            Command::Parity(parity) => parity.run(),
            Command::Bench(bench) => bench.run(),
        }?;
        Ok(ExitCode::SUCCESS)
    })
}

/// Connects for one command.
async fn connect(nats: NatsFlags) -> anyhow::Result<Connection> {
    let metrics = Arc::new(Metrics::new());
    let connection =
        Connection::open(&nats.resolve(), "orfeas-gpu-node cli", COMMAND_CONNECT_LIMIT, metrics).await?;
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn serve_takes_the_flags_that_scripts_use() {
        let args = ["orfeas-gpu-node", "serve", "--nats", "nats://127.0.0.1:4222", "--region", "local"];
        let more = ["--admin", "127.0.0.1:0", "--ack-wait", "2s", "--channels", "stable,canary"];
        let cli = Cli::try_parse_from(args.into_iter().chain(more)).unwrap();
        assert!(matches!(cli.command, Command::Serve(_)));
        let args = ["orfeas-gpu-node", "blocklist", "import", "bad.txt", "--nats", "nats://127.0.0.1:4222"];
        assert!(Cli::try_parse_from(args).is_ok(), "flags may follow the arguments");
    }
}
