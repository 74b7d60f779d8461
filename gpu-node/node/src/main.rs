//! `orfeas-gpu-node`: serves a region's jobs, or runs one picture on the spot. See `--help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    orfeas_node::cli::main()
}
