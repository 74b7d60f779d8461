//! Limits as the parts of the host take them, checked before anything listens.

use crate::class::RequestClass;
use crate::cli::{Args, LimitArgs};
use crate::guest::InstanceLimits;
use crate::guest::engine::PoolLimits;
use crate::inbound::HeadLimits;
use crate::inbound::body::BodyLimits;
use crate::inbound::dispatch::ClassLimits;
use crate::inbound::server::ConnectionLimits;
use crate::manifest::App;
use anyhow::{Context, bail};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Connections to NATS live as long as their instance, so that a quiet second does not cost them.
const INSTANCE_IDLE: Duration = Duration::from_secs(5);
/// Bounds what a slow leak in a component can add up to.
const INSTANCE_REUSE: usize = 1024;
/// A trap ends all requests of its instance, so that few share one where each is worth much.
const SHORTS_PER_INSTANCE: usize = 16;
const UPLOADS_PER_INSTANCE: usize = 8;
const STREAMS_PER_INSTANCE: usize = 64;
/// An instance whose memory grew above this part of its limit is not used again.
const RETIRE_DIVISOR: usize = 4;

/// Slower than any network that could upload an image within its deadline.
const BODY_BYTES_PER_SECOND_MIN: u64 = 1024;
const HEAD_BYTES_MAX: usize = 64 << 10;
const HEADERS_MAX: usize = 100;

/// No single limit is longer than a day; this also keeps clocks from overflowing.
const SECONDS_MAX: f64 = 86_400.0;

/// All limits of the host.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) pool: PoolLimits,
    pub(crate) head: HeadLimits,
    pub(crate) body: BodyLimits,
    pub(crate) connections: ConnectionLimits,
    pub(crate) queue_wait: Duration,
    pub(crate) drain: Duration,
    classes: [(ClassLimits, InstanceLimits); RequestClass::ALL.len()],
}

impl Limits {
    pub(crate) fn class(&self, class: RequestClass) -> ClassLimits {
        self.classes[class as usize].0
    }

    pub(crate) fn instance(&self, class: RequestClass) -> InstanceLimits {
        self.classes[class as usize].1
    }

    pub(crate) fn resolve(args: &LimitArgs) -> anyhow::Result<Self> {
        for (name, count) in [
            ("connections", args.connections),
            ("short-requests", args.short_requests),
            ("upload-requests", args.upload_requests),
            ("stream-requests", args.stream_requests),
            ("instances", args.instances),
            ("instance-memory-mib", args.instance_memory_mib),
        ] {
            if count == 0 {
                bail!("--{name} must not be 0");
            }
        }
        if args.instance_memory_mib > 4096 {
            bail!("--instance-memory-mib must not be more than 4096, the most that wasm32 can address");
        }
        let memory_bytes = usize::try_from(args.instance_memory_mib)? << 20;
        let busy = seconds("busy-seconds", args.busy_seconds)?;
        let class = |requests, concurrency, answer, after_answer| {
            let instance = InstanceLimits {
                memory_bytes,
                retire_above_bytes: memory_bytes / RETIRE_DIVISOR,
                reuse: INSTANCE_REUSE,
                concurrency,
                idle: INSTANCE_IDLE,
                answer,
                after_answer,
                busy,
            };
            (ClassLimits { requests, answer }, instance)
        };
        let answer = seconds("answer-seconds", args.answer_seconds)?;
        let upload_answer = seconds("upload-answer-seconds", args.upload_answer_seconds)?;
        let download = seconds("download-seconds", args.download_seconds)?;
        let stream = seconds("stream-seconds", args.stream_seconds)?;
        let stall = seconds("stall-seconds", args.stall_seconds)?;
        Ok(Self {
            pool: PoolLimits { instances: args.instances, memory_bytes },
            head: HeadLimits { bytes: HEAD_BYTES_MAX, headers: HEADERS_MAX },
            body: BodyLimits {
                bytes: args.body_bytes,
                stall,
                bytes_per_second_min: BODY_BYTES_PER_SECOND_MIN,
            },
            connections: ConnectionLimits {
                connections: usize::try_from(args.connections)?,
                head: seconds("head-seconds", args.head_seconds)?,
                write_stall: stall,
            },
            queue_wait: seconds("queue-seconds", args.queue_seconds)?,
            drain: seconds("drain-seconds", args.drain_seconds)?,
            classes: RequestClass::ALL.map(|kind| match kind {
                RequestClass::Short => class(args.short_requests, SHORTS_PER_INSTANCE, answer, download),
                RequestClass::Upload => {
                    class(args.upload_requests, UPLOADS_PER_INSTANCE, upload_answer, download)
                }
                RequestClass::Stream => class(args.stream_requests, STREAMS_PER_INSTANCE, answer, stream),
            }),
        })
    }
}

fn seconds(name: &str, value: f64) -> anyhow::Result<Duration> {
    if value > 0.0 && value <= SECONDS_MAX {
        Ok(Duration::from_secs_f64(value))
    } else {
        bail!("--{name} must be more than 0 and at most {SECONDS_MAX}");
    }
}

/// Without keys the API is for this machine only.
pub(crate) fn check_listen(listen: SocketAddr, app: &App) -> anyhow::Result<()> {
    let without_keys = app
        .components
        .iter()
        .find(|component| component.variables.get("auth").map(String::as_str) != Some("required"));
    match without_keys {
        None => Ok(()),
        Some(component) if listen.ip().is_loopback() => {
            tracing::info!(component = component.id, "no keys are demanded: answering on loopback only");
            Ok(())
        }
        Some(component) => bail!(
            "refusing to listen on {listen}: component {:?} demands no keys; \
             set its variable \"auth\" to \"required\" (and configure keys), or listen on loopback",
            component.id
        ),
    }
}

/// The cache folder: the one that was asked for, else the user's.
pub(crate) fn cache_dir(args: &Args) -> anyhow::Result<PathBuf> {
    if let Some(folder) = &args.cache_dir {
        return Ok(folder.clone());
    }
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")));
    Ok(base.context("neither XDG_CACHE_HOME nor HOME is set")?.join("orfeas").join("edge"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn resolve(flags: &[&str]) -> anyhow::Result<Limits> {
        let args = Args::parse_from(["orfeas-edge"].iter().chain(flags));
        Limits::resolve(&args.limits)
    }

    #[test]
    fn the_defaults_are_valid() {
        let limits = resolve(&[]).unwrap();
        assert_eq!(limits.body.bytes, 51 * 1024 * 1024);
        assert!(limits.class(RequestClass::Upload).answer >= Duration::from_secs(600));
        assert!(limits.instance(RequestClass::Short).retire_above_bytes > 16 << 20);
    }

    #[test]
    fn limits_that_make_no_sense_are_refused() {
        for flags in [
            ["--instances", "0"],
            ["--short-requests", "0"],
            ["--instance-memory-mib", "5000"],
            ["--answer-seconds", "0"],
            ["--answer-seconds", "-1"],
            ["--drain-seconds", "inf"],
            ["--busy-seconds", "NaN"],
        ] {
            let flag = format!("{}={}", flags[0], flags[1]);
            assert!(resolve(&[&flag]).is_err(), "{flag}");
        }
    }
}
