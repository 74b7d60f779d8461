//! From what was written to what it means: flags over the file over the defaults, and the checks of the whole.

use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use hyper::Uri;
use hyper::http::uri::InvalidUri;
use orfeas_protocol::Channel;
use orfeas_torch::{DeviceChoice, ParseDeviceError};

use super::{
    ByteSize, Config, ConfigError, File, Flags, MemoryConfig, ModelsConfig, NatsConfig, Retention, Span,
    WorkConfig, defaults, units,
};
use crate::pipeline::NeuralConfig;

/// In-progress acknowledgements need room for a round trip.
const ACK_WAIT_MIN: Duration = Duration::from_secs(1);
/// Below this, ordinary hiccups of a busy machine would count.
const LIMIT_MIN: Duration = Duration::from_millis(100);
/// A job may wait this long in the queue; its picture and its record have to outlive it.
const RETENTION_MIN: Duration = Duration::from_secs(10 * 60);

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
            admin: flags.admin.or(file.admin).unwrap_or(defaults::ADMIN),
            work: WorkConfig {
                concurrency: flags.concurrency.or(work.concurrency).unwrap_or(defaults::CONCURRENCY),
                ack_wait: span(flags.ack_wait.or(work.ack_wait), defaults::ACK_WAIT),
                attempts_max: flags.attempts_max.or(work.attempts_max).unwrap_or(defaults::ATTEMPTS_MAX),
                drain_limit: span(flags.drain_limit.or(work.drain_limit), defaults::DRAIN_LIMIT),
                queue_messages_max: work.queue_messages_max.unwrap_or(defaults::QUEUE_MESSAGES_MAX),
                job_limit: span(flags.job_limit.or(work.job_limit), defaults::JOB_LIMIT),
                stall_limit: span(flags.stall_limit.or(work.stall_limit), defaults::STALL_LIMIT),
                job_deadline: flags.job_deadline.or(work.job_deadline).map(Span::duration),
                require_durable: flags.require_durable.or(work.require_durable).unwrap_or(false),
                look_ahead: work.look_ahead.unwrap_or(defaults::LOOK_AHEAD),
            },
            models: ModelsConfig {
                pin: file.models.pin.unwrap_or_default(),
                preload: file.models.preload.unwrap_or_default(),
                keep_alive: span(file.models.keep_alive, defaults::KEEP_ALIVE),
                lease_limit: span(file.models.load_limit, defaults::LOAD_LIMIT),
            },
            memory: MemoryConfig {
                budget_bytes: file.memory.budget.map(ByteSize::bytes),
                safety_margin: file.memory.safety_margin.unwrap_or(defaults::SAFETY_MARGIN),
            },
            state_folder: file.state_folder.or_else(units::usual_state_folder),
            retention: Retention {
                uploads: span(retention.uploads, defaults::UPLOADS_RETENTION),
                results: span(retention.results, defaults::RESULTS_RETENTION),
                records: span(retention.records, defaults::RECORDS_RETENTION),
                dead: span(retention.dead, defaults::DEAD_RETENTION),
                history: span(retention.history, defaults::HISTORY_RETENTION),
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
    T: Default + FromStr<Err: Display>,
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
