//! Logs to stderr, for people or for machines.

use std::io::IsTerminal;

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

/// What is logged, and how.
#[derive(Debug, Clone, Args)]
pub(super) struct LogFlags {
    /// Form of the log on stderr
    #[arg(long, env = "ORFEAS_LOG_FORMAT", value_name = "FORMAT", default_value = "pretty", global = true)]
    log_format: LogFormat,
    /// What to log, such as `info` or `warn,orfeas_node=debug` [default: info to serve, else warn]
    #[arg(long, env = "ORFEAS_LOG", value_name = "FILTER", global = true)]
    log: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// Lines for people
    Pretty,
    /// One JSON object per line
    Json,
}

/// Starts logging; `default` is the filter where none is given.
pub(super) fn start(flags: &LogFlags, default: &str) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(flags.log.as_deref().unwrap_or(default))?;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    let started: Result<(), TryInitError> = match flags.log_format {
        LogFormat::Pretty => subscriber.with_target(false).finish().try_init(),
        LogFormat::Json => subscriber.json().flatten_event(true).finish().try_init(),
    };
    Ok(started?)
}
