//! `serve`: the node as a service, from its configuration to its last job.

use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use orfeas_traces::Tracer;
use tokio::signal::unix::{SignalKind, signal};

use crate::admin::Admin;
use crate::config::{Config, Flags};
use crate::metrics::Metrics;
use crate::pipeline::{Inference, InferenceConfig};
use crate::recovery::Fault;
use crate::service::{CONNECT_LIMIT, Connection, Service, check_durability, provision};

/// Closing a healthy device takes a second or two.
const EXIT_LIMIT: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
pub(super) struct Serve {
    #[command(flatten)]
    flags: Flags,
}

impl Serve {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let config = Config::load(self.flags)?;
        let metrics = Arc::new(Metrics::new());
        let admin = Admin::bind(config.admin).await;
        let admin = admin.with_context(|| format!("cannot listen on admin address {}", config.admin))?;
        let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;

        let name = format!("orfeas-gpu-node {}", config.node_id);
        let connection = Connection::open(&config.nats, &name, CONNECT_LIMIT, metrics.clone()).await?;
        let provisioned = provision(connection.jetstream(), &config).await?;
        for stream in &provisioned.created {
            tracing::info!(stream, "stream created");
        }
        for (stream, differences) in &provisioned.updated {
            tracing::warn!(stream, differences, "stream settings changed");
        }
        let findings = check_durability(&connection, &config).await.context("cannot look at the streams")?;
        for finding in &findings {
            tracing::warn!("acknowledged work may be lost: {finding}");
        }
        if config.work.require_durable && !findings.is_empty() {
            bail!(
                "`work.require_durable` is set, and acknowledged work may be lost: {}",
                findings.join("; ")
            );
        }
        let inference = Inference::start(inference_config(&config)).context("cannot start inference")?;
        let tracer = Tracer::from_environment("orfeas-gpu-node", env!("CARGO_PKG_VERSION"))?;
        let engine = Arc::new(inference);
        let service = Service::start(&config, connection, engine, metrics.clone(), tracer.clone()).await?;

        println!("orfeas-gpu-node serving region {} (admin http://{})", config.region, admin.address());
        let admin = tokio::spawn(admin.serve(metrics, service.readiness()));
        let health = service.health();
        tokio::select! {
            _ = terminate.recv() => tracing::info!("SIGTERM: draining"),
            _ = interrupt.recv() => tracing::info!("interrupted: draining"),
            fault = health.failed() => tracing::error!(fault = fault.as_str(), "fault: draining"),
        }
        tokio::select! {
            () = service.drain() => tracing::info!("drained"),
            // Somebody is in a hurry: the ack wait frees what is left.
            _ = interrupt.recv() => tracing::warn!("interrupted again: stopping at once"),
        }
        admin.abort();
        tracer.flush().await;
        Ok(match health.fault() {
            Some(fault) => leave(fault),
            None => ExitCode::SUCCESS,
        })
    }
}

/// The exit of a node whose device or inference thread is out of order. What the process runs at its exit may hang on
/// the device too; then it ends by SIGABRT, which a supervisor takes for the same.
fn leave(fault: Fault) -> ExitCode {
    let guard = std::thread::Builder::new().name("exit".to_owned()).spawn(|| {
        std::thread::sleep(EXIT_LIMIT);
        std::process::abort();
    });
    if let Err(error) = guard {
        tracing::warn!(%error, "nobody watches over the exit");
    }
    ExitCode::from(fault.exit_code())
}

fn inference_config(config: &Config) -> InferenceConfig {
    let defaults = InferenceConfig::default();
    InferenceConfig {
        cpu_threads: config.threads.map_or(defaults.cpu_threads, NonZeroUsize::get),
        device: config.device,
        models_folder: config.models_folder.clone(),
        cuda_folder: config.cuda_folder.clone(),
        neural: config.neural,
        noop_family: config.noop_family,
        ..defaults
    }
}
