//! The config file, as written: TOML, every key optional, unknown keys refused.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use orfeas_protocol::{Channel, NodeId, Region};
use serde::Deserialize;

use super::{ByteSize, ConfigError, Span};

/// The config file. The keys mean what the fields of [`Config`](super::Config) mean.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct File {
    pub(super) region: Option<Region>,
    pub(super) node_id: Option<NodeId>,
    pub(super) channels: Option<Vec<Channel>>,
    pub(super) admin: Option<SocketAddr>,
    pub(super) device: Option<String>,
    pub(super) threads: Option<NonZeroUsize>,
    pub(super) models_folder: Option<PathBuf>,
    pub(super) models_source: Option<PathBuf>,
    pub(super) cuda_folder: Option<PathBuf>,
    pub(super) precision: Option<String>,
    pub(super) offload: Option<String>,
    pub(super) reference_compatible: Option<bool>,
    pub(super) noop_family: Option<bool>,
    pub(super) nats: NatsTable,
    pub(super) work: WorkTable,
    pub(super) models: ModelsTable,
    pub(super) memory: MemoryTable,
    pub(super) state_folder: Option<PathBuf>,
    pub(super) retention: RetentionTable,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct NatsTable {
    pub(super) urls: Option<Vec<String>>,
    pub(super) credentials: Option<PathBuf>,
    pub(super) monitor: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct WorkTable {
    pub(super) concurrency: Option<NonZeroUsize>,
    pub(super) ack_wait: Option<Span>,
    pub(super) attempts_max: Option<u32>,
    pub(super) drain_limit: Option<Span>,
    pub(super) queue_messages_max: Option<u32>,
    pub(super) job_limit: Option<Span>,
    pub(super) stall_limit: Option<Span>,
    pub(super) job_deadline: Option<Span>,
    pub(super) require_durable: Option<bool>,
    pub(super) look_ahead: Option<NonZeroUsize>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct MemoryTable {
    pub(super) budget: Option<ByteSize>,
    pub(super) safety_margin: Option<f64>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ModelsTable {
    pub(super) pin: Option<Vec<String>>,
    pub(super) preload: Option<Vec<String>>,
    pub(super) keep_alive: Option<Span>,
    pub(super) load_limit: Option<Span>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RetentionTable {
    pub(super) uploads: Option<Span>,
    pub(super) results: Option<Span>,
    pub(super) records: Option<Span>,
    pub(super) dead: Option<Span>,
    pub(super) history: Option<Span>,
    pub(super) uploads_bytes_max: Option<ByteSize>,
    pub(super) results_bytes_max: Option<ByteSize>,
}

impl File {
    /// Reads the file.
    ///
    /// # Errors
    /// It cannot be read, is not TOML, or has a key or value that is not known.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        toml::from_str(&text).map_err(|source| ConfigError::Parse { path: path.to_owned(), source })
    }
}
