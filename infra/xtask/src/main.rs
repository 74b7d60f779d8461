//! Project commands: `cargo xtask setup | up | demo | test | bench | lint`.

mod progress;
#[cfg(test)]
mod scratch;
mod setup;
mod workspace;

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
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    let workspace = Workspace::locate()?;
    match cli.command {
        Command::Setup { verify } => setup::command(&workspace, verify),
    }
}
