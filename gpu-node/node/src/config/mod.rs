//! The node's configuration: what the operator wrote ([`mod@file`], [`flags`]) and what it means ([`Config`]).
//!
//! ```text
//!  --flag, or else $ORFEAS_… ─▶ Flags ─┐
//!                                      ├─▶ Config::resolve ─▶ Config
//!  orfeas.toml ───────────────▶ File ──┘      (defaults, checks)
//! ```
//! Everything is checked before anything connects or listens.

mod file;
mod flags;
mod units;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use hyper::Uri;
use hyper::http::uri::InvalidUri;
use orfeas_protocol::{Channel, NodeId, Region};
use orfeas_torch::{DeviceChoice, ParseDeviceError};
use thiserror::Error;

use crate::pipeline::NeuralConfig;

pub use file::File;
pub use flags::{Flags, NatsFlags};
pub use units::{ByteSize, Span};

/// One minute.
const MINUTE: Duration = Duration::from_secs(60);
/// One day.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// NATS's registered port on this machine.
const NATS_URL_DEFAULT: &str = "nats://127.0.0.1:4222";
/// The port that OpenTelemetry's Prometheus exporters use. Loopback, as metrics and readiness need no password.
const ADMIN_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9464);
/// One job on the device, one that brings its picture, one that stores its result: more would only keep
/// jobs from other nodes.
const CONCURRENCY_DEFAULT: NonZeroUsize = NonZeroUsize::MIN.saturating_add(2);
/// How long a dead node's jobs wait for another. In-progress acknowledgements go out three times as often,
/// so one lost message starts nothing twice.
const ACK_WAIT_DEFAULT: Duration = Duration::from_secs(30);
/// In-progress acknowledgements need room for a round trip.
const ACK_WAIT_MIN: Duration = Duration::from_secs(1);
/// A job that took down or failed on this many starts is the cause, not the victim.
const ATTEMPTS_MAX_DEFAULT: u32 = 5;
/// Kubernetes kills 30 s after it asked nicely.
const DRAIN_LIMIT_DEFAULT: Duration = Duration::from_secs(25);
/// An hour of work for a node that takes 360 ms each; beyond that a caller is better told to come back.
const QUEUE_MESSAGES_MAX_DEFAULT: u32 = 10_000;
/// Messages of one lane that wait on this node, so that its scheduler has something to choose from: a few minutes of
/// work, which another node that has none may ask for.
const LOOK_AHEAD_DEFAULT: NonZeroUsize = NonZeroUsize::MIN.saturating_add(31);
/// The fifth that is left covers fragmentation, the driver, and the largest job yet to come.
const SAFETY_MARGIN_DEFAULT: f64 = 0.8;
/// Long enough to submit the same picture again with other options next week.
const UPLOADS_RETENTION_DEFAULT: Duration = DAY.saturating_mul(7);
/// Results are the bulk of the disk.
const RESULTS_RETENTION_DEFAULT: Duration = DAY.saturating_mul(7);
/// Records outlive results, so that a late caller reads `result_expired`, not `not_found`.
const RECORDS_RETENTION_DEFAULT: Duration = DAY.saturating_mul(14);
/// Time for an operator to look at what was given up.
const DEAD_RETENTION_DEFAULT: Duration = DAY.saturating_mul(30);
/// What predictions learn from; older outcomes are of older models.
const HISTORY_RETENTION_DEFAULT: Duration = DAY.saturating_mul(90);
/// A neural family at its best preset takes a minute on a large card and several on a small one.
const JOB_LIMIT_DEFAULT: Duration = MINUTE.saturating_mul(10);
/// The longest silence of a thread that works: one denoising step, or one chunk, of a neural family on a CPU.
const STALL_LIMIT_DEFAULT: Duration = MINUTE.saturating_mul(5);
/// Below this, ordinary hiccups of a busy machine would count.
const LIMIT_MIN: Duration = Duration::from_millis(100);
/// A job may wait this long in the queue; its picture and its record have to outlive it.
const RETENTION_MIN: Duration = MINUTE.saturating_mul(10);

/// How long a model is safe from eviction after its last use: shorter than a lease waits, so that a job which needs
/// the room gets it.
const KEEP_ALIVE_DEFAULT: Duration = Duration::from_secs(30);
/// How long a job waits for its model: 5 GB come off a network mount in this time.
const LOAD_LIMIT_DEFAULT: Duration = MINUTE;

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
            keep_alive: KEEP_ALIVE_DEFAULT,
            lease_limit: LOAD_LIMIT_DEFAULT,
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

impl Config {
    /// Resolves flags and environment over the file that they name over the defaults.
    ///
    /// # Errors
    /// The file cannot be read or has unknown keys; a value is out of range.
    pub fn load(flags: Flags) -> Result<Self, ConfigError> {
        let file = match &flags.config {
            Some(path) => File::read(path)?,
            None => File::default(),
        };
        Self::resolve(file, flags)
    }

    /// Resolves flags over a file over the defaults.
    ///
    /// # Errors
    /// A value is out of range.
    pub fn resolve(file: File, flags: Flags) -> Result<Self, ConfigError> {
        let work = file.work;
        let retention = file.retention;
        let config = Self {
            region: flags.region.or(file.region).unwrap_or_default(),
            node_id: flags.node_id.or(file.node_id).or_else(units::node_id_of_this_machine).ok_or_else(
                || {
                    let reason = "is not set, and the machine has no name to take".to_owned();
                    ConfigError::Value { key: "node_id", reason }
                },
            )?,
            channels: given(flags.channels).or(file.channels).unwrap_or_else(|| vec![Channel::Stable]),
            nats: NatsConfig {
                monitor: match flags.nats_monitor {
                    Some(monitor) => Some(monitor),
                    None => monitor(file.nats.monitor.as_deref())?,
                },
                ..flags.nats.over(file.nats.urls, file.nats.credentials)
            },
            admin: flags.admin.or(file.admin).unwrap_or(ADMIN_DEFAULT),
            work: WorkConfig {
                concurrency: flags.concurrency.or(work.concurrency).unwrap_or(CONCURRENCY_DEFAULT),
                ack_wait: span(flags.ack_wait.or(work.ack_wait), ACK_WAIT_DEFAULT),
                attempts_max: flags.attempts_max.or(work.attempts_max).unwrap_or(ATTEMPTS_MAX_DEFAULT),
                drain_limit: span(flags.drain_limit.or(work.drain_limit), DRAIN_LIMIT_DEFAULT),
                queue_messages_max: work.queue_messages_max.unwrap_or(QUEUE_MESSAGES_MAX_DEFAULT),
                job_limit: span(flags.job_limit.or(work.job_limit), JOB_LIMIT_DEFAULT),
                stall_limit: span(flags.stall_limit.or(work.stall_limit), STALL_LIMIT_DEFAULT),
                job_deadline: flags.job_deadline.or(work.job_deadline).map(Span::duration),
                require_durable: flags.require_durable.or(work.require_durable).unwrap_or(false),
                look_ahead: work.look_ahead.unwrap_or(LOOK_AHEAD_DEFAULT),
            },
            models: ModelsConfig {
                pin: file.models.pin.unwrap_or_default(),
                preload: file.models.preload.unwrap_or_default(),
                keep_alive: span(file.models.keep_alive, KEEP_ALIVE_DEFAULT),
                lease_limit: span(file.models.load_limit, LOAD_LIMIT_DEFAULT),
            },
            memory: MemoryConfig {
                budget_bytes: file.memory.budget.map(ByteSize::bytes),
                safety_margin: file.memory.safety_margin.unwrap_or(SAFETY_MARGIN_DEFAULT),
            },
            state_folder: file.state_folder.or_else(units::usual_state_folder),
            retention: Retention {
                uploads: span(retention.uploads, UPLOADS_RETENTION_DEFAULT),
                results: span(retention.results, RESULTS_RETENTION_DEFAULT),
                records: span(retention.records, RECORDS_RETENTION_DEFAULT),
                dead: span(retention.dead, DEAD_RETENTION_DEFAULT),
                history: span(retention.history, HISTORY_RETENTION_DEFAULT),
                uploads_bytes_max: retention.uploads_bytes_max.map(ByteSize::bytes),
                results_bytes_max: retention.results_bytes_max.map(ByteSize::bytes),
            },
            device: match flags.device {
                Some(device) => device,
                None => device(file.device.as_deref())?,
            },
            threads: flags.threads.or(file.threads),
            models_folder: flags.models_folder.or(file.models_folder),
            models_source: flags.models_source.or(file.models_source),
            cuda_folder: flags.cuda_folder.or(file.cuda_folder),
            neural: NeuralConfig {
                precision: named("precision", flags.precision, file.precision.as_deref())?,
                offload: named("offload", flags.offload, file.offload.as_deref())?,
                reference_compatible: file.reference_compatible.unwrap_or_default(),
            },
            noop_family: flags.noop_family || file.noop_family.unwrap_or(false),
        };
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let refuse = |key, reason: &str| Err(ConfigError::Value { key, reason: reason.to_owned() });
        if self.channels.is_empty() {
            return refuse("channels", "is empty; a node serves at least one");
        }
        if (1..self.channels.len()).any(|at| self.channels[..at].contains(&self.channels[at])) {
            return refuse("channels", "names a channel twice");
        }
        if self.nats.urls.is_empty() {
            return refuse("nats.urls", "is empty");
        }
        let monitor = self.nats.monitor.as_ref();
        if monitor.is_some_and(|uri| uri.scheme_str() != Some("http") || uri.host().is_none()) {
            return refuse("nats.monitor", "is not a URL such as http://127.0.0.1:8222");
        }
        if self.work.ack_wait < ACK_WAIT_MIN {
            return refuse("work.ack_wait", "is under a second");
        }
        if self.work.attempts_max == 0 {
            return refuse("work.attempts_max", "is 0; a job is started at least once");
        }
        if self.work.queue_messages_max == 0 {
            return refuse("work.queue_messages_max", "is 0");
        }
        if self.work.job_limit < LIMIT_MIN {
            return refuse("work.job_limit", "is under 100 ms");
        }
        if self.work.job_deadline.is_some_and(|deadline| deadline < LIMIT_MIN) {
            return refuse("work.job_deadline", "is under 100 ms");
        }
        if self.work.stall_limit < LIMIT_MIN {
            return refuse("work.stall_limit", "is under 100 ms");
        }
        if !(self.memory.safety_margin > 0.0 && self.memory.safety_margin <= 1.0) {
            return refuse("memory.safety_margin", "is not above 0 and at most 1");
        }
        if self.memory.budget_bytes == Some(0) {
            return refuse("memory.budget", "is 0");
        }
        let retention = &self.retention;
        for (key, kept) in [
            ("retention.uploads", retention.uploads),
            ("retention.results", retention.results),
            ("retention.records", retention.records),
            ("retention.dead", retention.dead),
            ("retention.history", retention.history),
        ] {
            if kept < RETENTION_MIN {
                return refuse(key, "is under ten minutes");
            }
        }
        Ok(())
    }
}

/// A repeated flag that was not given leaves the word to the file.
fn given<T>(values: Vec<T>) -> Option<Vec<T>> {
    if values.is_empty() { None } else { Some(values) }
}

/// A flag, or else what the file says, or else the default.
fn named<T>(key: &'static str, flag: Option<T>, text: Option<&str>) -> Result<T, ConfigError>
where
    T: Default + std::str::FromStr<Err: std::fmt::Display>,
{
    match (flag, text) {
        (Some(flag), _) => Ok(flag),
        (None, Some(text)) => {
            text.parse().map_err(|error: T::Err| ConfigError::Value { key, reason: error.to_string() })
        }
        (None, None) => Ok(T::default()),
    }
}

fn device(text: Option<&str>) -> Result<DeviceChoice, ConfigError> {
    let Some(text) = text else { return Ok(DeviceChoice::default()) };
    text.parse()
        .map_err(|error: ParseDeviceError| ConfigError::Value { key: "device", reason: error.to_string() })
}

fn monitor(text: Option<&str>) -> Result<Option<Uri>, ConfigError> {
    let refuse = |reason: String| ConfigError::Value { key: "nats.monitor", reason };
    let Some(text) = text else { return Ok(None) };
    let uri: Uri = text.parse().map_err(|error: InvalidUri| refuse(error.to_string()))?;
    Ok(Some(uri))
}

fn span(value: Option<Span>, default: Duration) -> Duration {
    value.map_or(default, Span::duration)
}

#[cfg(test)]
mod tests;
