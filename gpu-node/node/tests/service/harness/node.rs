//! A node within the test's process.

use std::sync::Arc;

use orfeas_node::admin::Readiness;
use orfeas_node::metrics::Metrics;
use orfeas_node::recovery::Health;
use orfeas_node::service::{CONNECT_LIMIT, Connection, Service, provision};

use super::{Script, Server, config};

/// A node in a runtime of its own, so that it can be killed like a process.
pub(crate) struct Node {
    runtime: Option<tokio::runtime::Runtime>,
    service: Option<Service>,
    pub(crate) script: Arc<Script>,
    pub(crate) metrics: Arc<Metrics>,
}

impl Node {
    pub(crate) async fn start(server: &Server, toml: &str) -> Self {
        Self::start_with_models(server, toml, "1").await
    }

    /// With models of a version of its own.
    pub(crate) async fn start_with_models(server: &Server, toml: &str, version: &'static str) -> Self {
        let script = Arc::new(Script::of_version(version));
        let metrics = Arc::new(Metrics::new());
        let config = config(server, toml);
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let starting = runtime.spawn({
            let (script, metrics) = (script.clone(), metrics.clone());
            async move {
                let connection = Connection::open(&config.nats, "test node", CONNECT_LIMIT, metrics.clone())
                    .await
                    .unwrap();
                provision(connection.jetstream(), &config).await.unwrap();
                let tracer = orfeas_traces::Tracer::off();
                Service::start(&config, connection, script, metrics, tracer).await.unwrap()
            }
        });
        let service = starting.await.unwrap();
        Self { runtime: Some(runtime), service: Some(service), script, metrics }
    }

    /// `kill -9`: nothing of it runs on.
    pub(crate) fn kill(mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }

    /// The running node's health.
    pub(crate) fn health(&self) -> Health {
        self.service.as_ref().unwrap().health()
    }

    /// Whether the running node can take work.
    pub(crate) fn readiness(&self) -> Arc<dyn Readiness> {
        self.service.as_ref().unwrap().readiness()
    }

    pub(crate) async fn drain(&mut self) {
        let service = self.service.take().unwrap();
        self.runtime.as_ref().unwrap().spawn(service.drain()).await.unwrap();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
