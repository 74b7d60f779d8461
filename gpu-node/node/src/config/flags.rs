//! The flags of `serve` and their environment variables. A flag wins over its variable, both over the file.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::Args;
use hyper::Uri;
use orfeas_nets::precision::Precision;
use orfeas_protocol::{Channel, NodeId, Region};
use orfeas_torch::DeviceChoice;

use crate::pipeline::Offload;

use super::{NatsConfig, Span, defaults};

/// The flags of `serve`. What is left out is taken from the config file, then from the defaults.
#[derive(Debug, Clone, Default, PartialEq, Args)]
pub struct Flags {
    /// The config file (TOML)
    #[arg(long, env = "ORFEAS_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The way to NATS
    #[command(flatten)]
    pub nats: NatsFlags,
    /// Deployment region: [a-z0-9-], up to 32 characters [default: local]
    #[arg(long, env = "ORFEAS_REGION", value_name = "NAME")]
    pub region: Option<Region>,
    /// This node's name, unique in its region [default: the machine's name]
    #[arg(long, env = "ORFEAS_NODE_ID", value_name = "NAME")]
    pub node_id: Option<NodeId>,
    /// The release channels to serve, of stable and canary [default: stable]
    #[arg(long, env = "ORFEAS_CHANNELS", value_name = "NAME", value_delimiter = ',')]
    pub channels: Vec<Channel>,
    /// Address of /metrics, /livez and /readyz; port 0 takes a free one [default: 127.0.0.1:9464]
    #[arg(long, env = "ORFEAS_ADMIN", value_name = "ADDRESS")]
    pub admin: Option<SocketAddr>,
    /// Jobs in the pipeline at one time, of which one is on the device [default: 3]
    #[arg(long, env = "ORFEAS_CONCURRENCY", value_name = "N")]
    pub concurrency: Option<NonZeroUsize>,
    /// How long a silent node keeps its jobs, such as 30s [default: 30s]
    #[arg(long, env = "ORFEAS_ACK_WAIT", value_name = "TIME")]
    pub ack_wait: Option<Span>,
    /// How often a job is started before it is given up [default: 5]
    #[arg(long, env = "ORFEAS_ATTEMPTS_MAX", value_name = "N")]
    pub attempts_max: Option<u32>,
    /// How long running jobs may go on after SIGTERM [default: 25s]
    #[arg(long, env = "ORFEAS_DRAIN_LIMIT", value_name = "TIME")]
    pub drain_limit: Option<Span>,
    /// How long one run of the pipeline may take [default: 10m]
    #[arg(long, env = "ORFEAS_JOB_LIMIT", value_name = "TIME")]
    pub job_limit: Option<Span>,
    /// How long the inference thread may be silent in the middle of a run before the process is replaced [default: 5m]
    #[arg(long, env = "ORFEAS_STALL_LIMIT", value_name = "TIME")]
    pub stall_limit: Option<Span>,
    /// How long a job may wait for its start before it fails, such as 1h [default: for ever]
    #[arg(long, env = "ORFEAS_JOB_DEADLINE", value_name = "TIME")]
    pub job_deadline: Option<Span>,
    /// Refuse to serve if the server may lose what it acknowledges, instead of warning
    #[arg(long, env = "ORFEAS_REQUIRE_DURABLE", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    pub require_durable: Option<bool>,
    /// The server's monitoring port, which tells whether it flushes before it acknowledges, such as
    /// http://127.0.0.1:8222
    #[arg(long, env = "ORFEAS_NATS_MONITOR", value_name = "URL")]
    pub nats_monitor: Option<Uri>,
    /// Inference device: auto, cpu, cuda or cuda:N [default: auto]
    #[arg(long, env = "ORFEAS_DEVICE", value_name = "DEVICE")]
    pub device: Option<DeviceChoice>,
    /// CPU threads of the tensor library [default: one per core]
    #[arg(long, env = "ORFEAS_THREADS", value_name = "N")]
    pub threads: Option<NonZeroUsize>,
    /// Where model folders are, each named as its family
    #[arg(long = "models", alias = "models-folder", env = "ORFEAS_MODELS", value_name = "DIR")]
    pub models_folder: Option<PathBuf>,
    /// A folder of model folders, such as a mounted mirror, that missing or unusable ones are fetched from
    #[arg(long, env = "ORFEAS_MODELS_SOURCE", value_name = "DIR")]
    pub models_source: Option<PathBuf>,
    /// Where the CUDA libraries are [default: beside the linked libtorch]
    #[arg(long, env = "ORFEAS_LIBTORCH_CUDA", value_name = "DIR")]
    pub cuda_folder: Option<PathBuf>,
    /// In which type the networks compute: auto, fp32, fp16 or bf16 [default: auto]
    #[arg(long, env = "ORFEAS_PRECISION", value_name = "TYPE")]
    pub precision: Option<Precision>,
    /// When networks that are not in use leave the device: auto, always or never [default: auto]
    #[arg(long, env = "ORFEAS_OFFLOAD", value_name = "WHEN")]
    pub offload: Option<Offload>,
    /// Also runs the family `noop`, which makes the same tetrahedron of every picture: for measuring and fault tests
    #[arg(long, env = "ORFEAS_NOOP_FAMILY")]
    pub noop_family: bool,
}

/// The way to NATS, the same for every command that talks to it.
#[derive(Debug, Clone, Default, PartialEq, Args)]
pub struct NatsFlags {
    /// A NATS server; may be given more than once [default: nats://127.0.0.1:4222]
    #[arg(long = "nats", env = "ORFEAS_NATS_URL", value_name = "URL", value_delimiter = ',', global = true)]
    pub urls: Vec<String>,
    /// NATS credentials file
    #[arg(long = "nats-credentials", env = "ORFEAS_NATS_CREDENTIALS", value_name = "FILE", global = true)]
    pub credentials: Option<PathBuf>,
}

impl NatsFlags {
    /// The way to NATS for a command that reads no config file.
    pub fn resolve(self) -> NatsConfig {
        self.over(None, None)
    }

    /// The flags, or else what the file says, or else the defaults.
    pub(super) fn over(self, urls: Option<Vec<String>>, credentials: Option<PathBuf>) -> NatsConfig {
        let given = if self.urls.is_empty() { None } else { Some(self.urls) };
        NatsConfig {
            urls: given.or(urls).unwrap_or_else(|| vec![defaults::NATS_URL.to_owned()]),
            credentials: self.credentials.or(credentials),
            monitor: None,
        }
    }
}
