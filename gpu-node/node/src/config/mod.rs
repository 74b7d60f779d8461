//! The node's configuration: what the operator wrote ([`mod@file`], [`flags`]) and what it means ([`Config`]).
//!
//! ```text
//!  --flag, or else $ORFEAS_… ─▶ Flags ─┐
//!                                      ├─▶ Config::resolve ─▶ Config
//!  orfeas.toml ───────────────▶ File ──┘      (defaults, checks)
//! ```
//! Everything is checked before anything connects or listens.

mod defaults;
mod file;
mod flags;
mod resolve;
mod units;

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use hyper::Uri;
use orfeas_protocol::{Channel, NodeId, Region};
use orfeas_torch::DeviceChoice;
use thiserror::Error;

use crate::pipeline::NeuralConfig;

pub use file::File;
pub use flags::{Flags, NatsFlags};
pub use units::{ByteSize, Span};

/// The resolved configuration of a node.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The deployment region.
    pub region: Region,
    /// This node's name.
    pub node_id: NodeId,
    /// The release channels that this node serves.
    pub channels: Vec<Channel>,
    /// The way to NATS.
    pub nats: NatsConfig,
    /// Where `/metrics`, `/livez` and `/readyz` listen.
    pub admin: SocketAddr,
    /// How work is taken.
    pub work: WorkConfig,
    /// How models are kept.
    pub models: ModelsConfig,
    /// How much of the device's memory is used.
    pub memory: MemoryConfig,
    /// Where this node keeps what it has learned; `None` = nowhere.
    pub state_folder: Option<PathBuf>,
    /// How long things are kept.
    pub retention: Retention,
    /// The inference device.
    pub device: DeviceChoice,
    /// CPU threads of the tensor library; `None` = one per core.
    pub threads: Option<NonZeroUsize>,
    /// Where model folders are, each named as its family; `None` = the usual place.
    pub models_folder: Option<PathBuf>,
    /// Where missing or unusable model folders are fetched from; `None` = nowhere.
    pub models_source: Option<PathBuf>,
    /// Where the CUDA libraries are, if not beside the linked ones.
    pub cuda_folder: Option<PathBuf>,
    /// How the networks run.
    pub neural: NeuralConfig,
    /// Whether there is the family `noop`, for measuring and fault tests.
    pub noop_family: bool,
}

/// The way to NATS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NatsConfig {
    /// Servers, tried in turn. User and password may stand in the URL.
    pub urls: Vec<String>,
    /// A credentials file (JWT and nkey seed).
    pub credentials: Option<PathBuf>,
    /// The server's monitoring port, to see how it stores.
    pub monitor: Option<Uri>,
}

/// How work is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkConfig {
    /// Jobs in the pipeline at one time, of which one is on the device.
    pub concurrency: NonZeroUsize,
    /// How long the queue waits for a sign of life before it gives a job to another node.
    pub ack_wait: Duration,
    /// How often a job is started at most.
    pub attempts_max: u32,
    /// How long running jobs may go on after the node was asked to stop.
    pub drain_limit: Duration,
    /// Bound of the region's queue.
    pub queue_messages_max: u32,
    /// How long one run of the pipeline may take; then it has timed out.
    pub job_limit: Duration,
    /// How long the inference thread may show no sign of life in the middle of a run; then the process is replaced.
    pub stall_limit: Duration,
    /// How long after its submission a job that still waits fails; `None` = it waits for ever.
    pub job_deadline: Option<Duration>,
    /// Whether the node refuses to serve, instead of warning, if the server may lose what it acknowledges.
    pub require_durable: bool,
    /// Messages of each lane (channel and priority) that this node holds at one time, those in work included.
    pub look_ahead: NonZeroUsize,
}

/// How much of the device's memory is used.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MemoryConfig {
    /// The most that is used of the device; `None` = all of an accelerator, half of a machine's main memory.
    pub budget_bytes: Option<u64>,
    /// The part of it that is promised to models and jobs, 0 to 1.
    pub safety_margin: f64,
}

/// How models are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelsConfig {
    /// Families that are loaded at the start and never evicted.
    pub pin: Vec<String>,
    /// Families that are loaded at the start.
    pub preload: Vec<String>,
    /// How long a model is safe from eviction after its last use.
    pub keep_alive: Duration,
    /// How long a job waits for its model.
    pub lease_limit: Duration,
}

impl Default for ModelsConfig {
    fn default() -> Self {
        Self {
            pin: Vec::new(),
            preload: Vec::new(),
            keep_alive: defaults::KEEP_ALIVE,
            lease_limit: defaults::LOAD_LIMIT,
        }
    }
}

/// How long things are kept, and how much of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    /// Uploaded pictures.
    pub uploads: Duration,
    /// Result files.
    pub results: Duration,
    /// Job records, counted from their last change.
    pub records: Duration,
    /// Jobs that were given up.
    pub dead: Duration,
    /// Outcomes.
    pub history: Duration,
    /// Bound of the uploads' store; `None` = the server's own bound.
    pub uploads_bytes_max: Option<u64>,
    /// Bound of the results' store; `None` = the server's own bound.
    pub results_bytes_max: Option<u64>,
}

/// A configuration that cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read config file {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not TOML, has an unknown key or a value of the wrong type.
    #[error("cannot use config file {path}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Why, with line and column.
        source: toml::de::Error,
    },
    /// A value makes no sense.
    #[error("`{key}` {reason}")]
    Value {
        /// The key in the file; the flag has the same name.
        key: &'static str,
        /// What is wrong.
        reason: String,
    },
}

#[cfg(test)]
mod tests;
