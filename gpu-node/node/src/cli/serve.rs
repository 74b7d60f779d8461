//! `serve`: the node as a service, from its configuration to its last job.

use std::num::NonZeroUsize;
use std::sync::Arc;

use anyhow::{Context, bail};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use crate::admin::Admin;
use crate::config::{Config, Flags};
use crate::metrics::Metrics;
use crate::pipeline::{Inference, InferenceConfig};
use crate::service::{CONNECT_LIMIT, Connection, Service, check_durability, provision};

#[derive(Debug, Args)]
pub(super) struct Serve {
    #[command(flatten)]
    flags: Flags,
}

impl Serve {
    pub(super) async fn run(self) -> anyhow::Result<()> {
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
        let service = Service::start(&config, connection, Arc::new(inference), metrics.clone()).await?;

        println!("orfeas-gpu-node serving region {} (admin http://{})", config.region, admin.address());
        let admin = tokio::spawn(admin.serve(metrics, service.readiness()));
        tokio::select! {
            _ = terminate.recv() => tracing::info!("SIGTERM: draining"),
            _ = interrupt.recv() => tracing::info!("interrupted: draining"),
        }
        tokio::select! {
            () = service.drain() => tracing::info!("drained"),
            // Somebody is in a hurry: the ack wait frees what is left.
            _ = interrupt.recv() => tracing::warn!("interrupted again: stopping at once"),
        }
        admin.abort();
        Ok(())
    }
}

fn inference_config(config: &Config) -> InferenceConfig {
    let defaults = InferenceConfig::default();
    InferenceConfig {
        cpu_threads: config.threads.map_or(defaults.cpu_threads, NonZeroUsize::get),
        device: config.device,
        models_folder: config.models_folder.clone(),
        cuda_folder: config.cuda_folder.clone(),
        ..defaults
    }
}
