//! A `nats-server` of the test's own.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use async_nats::Client;
use orfeas_node::metrics::Metrics;
use orfeas_node::service::{CONNECT_LIMIT, Connection, check_durability};
use serde_json::Value;
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
        Self::start_with(&[]).await
    }

    /// With its monitoring port open.
    pub(crate) async fn start_monitored() -> Self {
        Self::start_with(&["-m", "-1"]).await
    }

    async fn start_with(arguments: &[&str]) -> Self {
        let dir = TempDir::new().unwrap();
        // The server chooses its ports: one that we chose could be another's by the time it listens.
        let child = spawn_server(dir.path(), &[&["-p", "-1"], arguments].concat());
        let mut server = Self { child, dir, port: 0, monitor: None };
        let told = until("nats-server tells its ports", async || ports(server.dir.path())).await;
        (server.port, server.monitor) = told;
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
        let mut arguments = vec!["-p".to_owned(), self.port.to_string()];
        arguments.extend(self.monitor.into_iter().flat_map(|port| ["-m".to_owned(), port.to_string()]));
        self.child = spawn_server(self.dir.path(), &arguments);
        self.client().await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where the server listens for clients and, if it does, for its monitors: it tells in a file as soon as it does.
fn ports(dir: &Path) -> Option<(u16, Option<u16>)> {
    let is_told = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "ports");
    let file = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).find(is_told)?;
    // Half of the file is no JSON.
    let urls: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).ok()?;
    let port = |kind: &str| urls[kind][0].as_str()?.rsplit(':').next()?.parse().ok();
    Some((port("nats")?, port("monitoring")))
}

fn spawn_server(dir: &Path, arguments: &[impl AsRef<OsStr>]) -> Child {
    let program = std::env::var_os("ORFEAS_NATS_SERVER").map_or_else(|| "nats-server".into(), PathBuf::from);
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../infra/nats/nats-server.conf");
    let mut command = Command::new(program);
    command.arg("-c").arg(config).args(["-a", "127.0.0.1"]).args(arguments);
    command.arg("-sd").arg(dir).arg("--ports_file_dir").arg(dir);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("nats-server: run `cargo xtask setup`")
}
