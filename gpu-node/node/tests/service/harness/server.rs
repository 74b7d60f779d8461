//! A `nats-server` of the test's own.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use async_nats::Client;
use orfeas_node::metrics::Metrics;
use orfeas_node::service::{CONNECT_LIMIT, Connection, check_durability};
use tempfile::TempDir;

use super::{config, until};

/// `nats-server` with JetStream in a folder that outlives it.
pub(crate) struct Server {
    child: Child,
    dir: TempDir,
    port: u16,
    monitor: Option<u16>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::start_with(None).await
    }

    /// With its monitoring port open.
    pub(crate) async fn start_monitored() -> Self {
        Self::start_with(Some(free_port())).await
    }

    async fn start_with(monitor: Option<u16>) -> Self {
        let dir = TempDir::new().unwrap();
        let port = free_port();
        let server = Self { child: spawn_server(dir.path(), port, monitor), dir, port, monitor };
        server.client().await;
        server
    }

    /// The URL of the monitoring port.
    pub(crate) fn monitor(&self) -> String {
        format!("http://127.0.0.1:{}", self.monitor.unwrap())
    }

    /// What the node would warn of at its start; `monitor` is empty or a URL.
    pub(crate) async fn durability_findings(&self, monitor: &str) -> Vec<String> {
        let mut config = config(self, "");
        config.nats.monitor = (!monitor.is_empty()).then(|| monitor.parse().unwrap());
        let metrics = Arc::new(Metrics::new());
        let connection = Connection::open(&config.nats, "test", CONNECT_LIMIT, metrics).await.unwrap();
        check_durability(&connection, &config).await.unwrap()
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    pub(crate) async fn client(&self) -> Client {
        until("nats-server answers", || async { async_nats::connect(self.url()).await.ok() }).await
    }

    /// `kill -9`, then the same server again.
    pub(crate) async fn crash_and_restart(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = spawn_server(self.dir.path(), self.port, self.monitor);
        self.client().await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn spawn_server(dir: &Path, port: u16, monitor: Option<u16>) -> Child {
    let program = std::env::var_os("ORFEAS_NATS_SERVER").map_or_else(|| "nats-server".into(), PathBuf::from);
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../infra/nats/nats-server.conf");
    let mut command = Command::new(program);
    command.arg("-c").arg(config).args(["-a", "127.0.0.1", "-p", &port.to_string(), "-sd"]).arg(dir);
    if let Some(monitor) = monitor {
        command.args(["-m", &monitor.to_string()]);
    }
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("nats-server: run `cargo xtask setup`")
}
