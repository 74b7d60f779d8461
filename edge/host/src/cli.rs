//! The command line, as it is written; `config` turns it into limits.

use clap::{Parser, ValueEnum};
use std::net::SocketAddr;
use std::path::PathBuf;

/// Serves the components of a Spin manifest.
///
/// When it is ready, it prints one line to standard output:
/// `orfeas-edge listening on http://ADDRESS (admin http://ADDRESS)`. Logs go to standard error, and
/// traces to an OpenTelemetry collector if OTEL_EXPORTER_OTLP_ENDPOINT names one (http://HOST:4318).
#[derive(Debug, Parser)]
#[command(name = "orfeas-edge", version)]
pub(crate) struct Args {
    /// The Spin manifest (version 2) to serve.
    #[arg(long, short = 'f', default_value = "spin.toml", env = "ORFEAS_EDGE_MANIFEST")]
    pub(crate) manifest: PathBuf,

    /// The public address. Other than loopback only if the components demand keys.
    #[arg(long, default_value = "127.0.0.1:8080", env = "ORFEAS_EDGE_LISTEN")]
    pub(crate) listen: SocketAddr,

    /// The address for /metrics, /livez and /readyz.
    #[arg(long, default_value = "127.0.0.1:9090", env = "ORFEAS_EDGE_ADMIN")]
    pub(crate) admin: SocketAddr,

    /// Sets a variable of the manifest; may be given several times.
    #[arg(long = "variable", value_name = "NAME=VALUE", value_parser = name_and_value)]
    pub(crate) variables: Vec<(String, String)>,

    /// Runs FILE instead of a component's `source`; with several components, ID=FILE.
    #[arg(long = "component", value_name = "[ID=]FILE")]
    pub(crate) components: Vec<String>,

    /// Where compiled components are kept [default: the user's cache folder].
    #[arg(long, value_name = "DIR", env = "ORFEAS_EDGE_CACHE_DIR")]
    pub(crate) cache_dir: Option<PathBuf>,

    #[arg(long, value_enum, default_value_t = LogFormat::Pretty, env = "ORFEAS_EDGE_LOG_FORMAT")]
    pub(crate) log_format: LogFormat,

    /// What is logged, in the syntax of the `tracing` crates.
    #[arg(long, default_value = "info", env = "ORFEAS_EDGE_LOG")]
    pub(crate) log: String,

    #[command(flatten)]
    pub(crate) limits: LimitArgs,
}

/// Limits. Every one has a default that suits one machine with a few cores.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Limits")]
pub(crate) struct LimitArgs {
    /// The largest request body. The default is 50 MiB and what a form adds to it; JSON may be a
    /// third larger, and a form with pictures of four sides four times as large.
    #[arg(long, default_value_t = 51 << 20, value_name = "BYTES")]
    pub(crate) body_bytes: u64,

    /// Connections at the same time.
    #[arg(long, default_value_t = 4096)]
    pub(crate) connections: u32,

    /// Short requests at the same time.
    #[arg(long, default_value_t = 128)]
    pub(crate) short_requests: u32,

    /// Uploads and synchronous jobs at the same time.
    #[arg(long, default_value_t = 128)]
    pub(crate) upload_requests: u32,

    /// Event streams at the same time.
    #[arg(long, default_value_t = 256)]
    pub(crate) stream_requests: u32,

    /// Instances of components at the same time.
    #[arg(long, default_value_t = 64)]
    pub(crate) instances: u32,

    /// Memory of one instance.
    #[arg(long, default_value_t = 256, value_name = "MIB")]
    pub(crate) instance_memory_mib: u32,

    /// How long a short request may take to start its answer; also streams.
    #[arg(long, default_value_t = 30.0, value_name = "SECONDS")]
    pub(crate) answer_seconds: f64,

    /// The same for uploads, which may wait for a job.
    #[arg(long, default_value_t = 660.0, value_name = "SECONDS")]
    pub(crate) upload_answer_seconds: f64,

    /// The longest download.
    #[arg(long, default_value_t = 600.0, value_name = "SECONDS")]
    pub(crate) download_seconds: f64,

    /// The longest event stream; clients reconnect after it.
    #[arg(long, default_value_t = 3600.0, value_name = "SECONDS")]
    pub(crate) stream_seconds: f64,

    /// How long a component may compute without waiting once.
    #[arg(long, default_value_t = 10.0, value_name = "SECONDS")]
    pub(crate) busy_seconds: f64,

    /// How long a request waits for its turn before it is answered with 503.
    #[arg(long, default_value_t = 2.0, value_name = "SECONDS")]
    pub(crate) queue_seconds: f64,

    /// How long a client may take to send the head of its next request.
    #[arg(long, default_value_t = 20.0, value_name = "SECONDS")]
    pub(crate) head_seconds: f64,

    /// How long a client may send nothing of a body, or take nothing of an answer.
    #[arg(long, default_value_t = 30.0, value_name = "SECONDS")]
    pub(crate) stall_seconds: f64,

    /// How long running requests may take to end after SIGTERM or SIGINT.
    #[arg(long, default_value_t = 30.0, value_name = "SECONDS")]
    pub(crate) drain_seconds: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Pretty,
    Json,
}

fn name_and_value(text: &str) -> Result<(String, String), &'static str> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn values_may_contain_equals_signs() {
        assert_eq!(name_and_value("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert!(name_and_value("a").is_err());
    }
}
