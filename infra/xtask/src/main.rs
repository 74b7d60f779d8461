//! Project commands: `cargo xtask setup | up | demo | test | faults | bench | compare | lint`.

mod artifacts;
mod bench;
mod compare;
mod demo;
mod faults;
mod http;
mod interrupt;
mod lint;
mod progress;
#[cfg(test)]
mod scratch;
mod setup;
mod stack;
mod test;
mod tree;
mod up;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use workspace::Workspace;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Project commands of ORFEAS")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Fetch what cargo does not bring: the wasm target, libtorch, nats-server
    Setup {
        /// Also compare every byte in the cache with its checksum
        #[arg(long)]
        verify: bool,
    },
    /// Run the whole service on this machine until Ctrl-C
    Up(up::Options),
    /// Send a picture through the whole service and write the model
    Demo(demo::Options),
    /// Set up, build, and run every test
    Test(test::Options),
    /// Kill, fill and mislead the service for minutes, and audit what is left
    Faults(faults::Options),
    /// Run the benchmarks and print one table
    Bench(bench::Options),
    /// Time the networks beside a PyTorch restatement of them, on the same tensors
    Compare(compare::Options),
    /// Check formatting, lints, documentation and dependency rules
    Lint,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<interrupt::Interrupted>() => {
            eprintln!("interrupted");
            ExitCode::from(130)
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let cli = Cli::parse();
    let workspace = Workspace::locate()?;
    match cli.command {
        Command::Setup { verify } => setup::command(&workspace, verify),
        Command::Up(options) => up::command(&workspace, options),
        Command::Demo(options) => demo::command(&workspace, &options),
        Command::Test(options) => test::command(&workspace, &options),
        Command::Faults(options) => faults::command(&workspace, &options),
        Command::Bench(options) => bench::command(&workspace, &options),
        Command::Compare(options) => compare::command(&workspace, &options),
        Command::Lint => lint::command(&workspace),
    }
}
