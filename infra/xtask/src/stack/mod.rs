//! The whole service on one machine: nats-server, then the node, then the edge.
//!
//! Each is started when the one before it is ready, and they are stopped in the opposite order, so
//! that nobody loses what he depends on. The node makes the streams and buckets that the edge expects.

mod ports;
mod process;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::artifacts::Artifacts;
use crate::http;
use crate::interrupt::Interrupt;
use crate::setup::cache;
use crate::workspace::Workspace;
pub(crate) use ports::Port;
use process::Process;

/// A server that takes longer than this to start is broken; the node may load models.
const START_LIMIT: Duration = Duration::from_secs(60);

/// The edge answers the requests that it has; the node ends or hands back its job.
const EDGE_GRACE: Duration = Duration::from_secs(15);
const NODE_GRACE: Duration = Duration::from_secs(30);
const NATS_GRACE: Duration = Duration::from_secs(15);

/// What to start, where.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) artifacts: Artifacts,
    pub(crate) nats_server: PathBuf,
    pub(crate) region: String,
    pub(crate) node_config: Option<PathBuf>,
    /// Stores, logs and port files of this run.
    pub(crate) folder: PathBuf,
    pub(crate) http: Port,
    pub(crate) edge_admin: Port,
    pub(crate) node_admin: Port,
    pub(crate) nats: Port,
    pub(crate) nats_monitor: Port,
}

/// Where the running servers can be reached.
#[derive(Debug, Clone)]
pub(crate) struct Urls {
    pub(crate) http: String,
    pub(crate) edge_admin: String,
    pub(crate) node_admin: String,
    pub(crate) nats: String,
    pub(crate) nats_monitor: String,
}

/// The three running processes. Dropped without [`Stack::stop`], they are killed, last started first.
pub(crate) struct Stack {
    edge: Process,
    node: Process,
    nats: Process,
    pub(crate) urls: Urls,
    _lock: fs::File,
}

impl Stack {
    /// Starts everything and returns when all of it is ready.
    pub(crate) fn start(workspace: &Workspace, plan: &Plan, interrupt: &Interrupt) -> Result<Self> {
        let lock = lock_folder(&plan.folder)?;
        let logs = plan.folder.join("logs");

        let (nats, (nats_url, nats_monitor)) = start_nats(workspace, plan, &logs, interrupt)?;

        let mut command = Command::new(&plan.artifacts.node);
        command.current_dir(&workspace.root).arg("serve");
        command.args(["--nats", &nats_url, "--nats-monitor", &nats_monitor, "--region", &plan.region]);
        command.args(["--admin", &address(plan.node_admin.resolve("the node's admin")?)]);
        if let Some(config) = &plan.node_config {
            command.arg("--config").arg(config);
        }
        let mut node = Process::spawn("node", command, &logs, "orfeas-gpu-node serving ")?;
        let line = node.await_line(START_LIMIT, interrupt)?;
        let node_admin = url_after(&line, "admin ")?;
        await_ready(&format!("{node_admin}/readyz"), &mut node, interrupt)?;

        let mut command = Command::new(&plan.artifacts.edge);
        command.current_dir(&workspace.root);
        command.arg("--manifest").arg(workspace.root.join("spin.toml"));
        command.arg("--component").arg(&plan.artifacts.component);
        command.args(["--listen", &address(plan.http.resolve("the edge")?)]);
        command.args(["--admin", &address(plan.edge_admin.resolve("the edge's admin")?)]);
        let nats_address = nats_url.trim_start_matches("nats://");
        command.args(["--variable", &format!("nats_address={nats_address}")]);
        command.args(["--variable", &format!("region={}", plan.region)]);
        let mut edge = Process::spawn("edge", command, &logs, "orfeas-edge listening on ")?;
        let line = edge.await_line(START_LIMIT, interrupt)?;
        let http = url_after(&line, "listening on ")?;
        let edge_admin = url_after(&line, "admin ")?;
        await_ready(&format!("{http}/readyz"), &mut edge, interrupt)?;

        Ok(Self {
            edge,
            node,
            nats,
            urls: Urls { http, edge_admin, node_admin, nats: nats_url, nats_monitor },
            _lock: lock,
        })
    }

    /// Fails with the name and the last words of a process that has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        self.nats.check()?;
        self.node.check()?;
        self.edge.check()
    }

    /// Stops everything in order; all are ended when this returns, whatever it returns.
    pub(crate) fn stop(self, interrupt: &Interrupt) -> Result<()> {
        let edge = self.edge.stop(EDGE_GRACE, interrupt);
        let node = self.node.stop(NODE_GRACE, interrupt);
        let nats = self.nats.stop(NATS_GRACE, interrupt);
        edge.and(node).and(nats)
    }
}

/// Two stacks on one store would corrupt it.
fn lock_folder(folder: &Path) -> Result<fs::File> {
    fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    let path = folder.join("lock");
    let file = fs::File::create(&path).with_context(|| format!("create {}", path.display()))?;
    if file.try_lock().is_err() {
        bail!("{} is in use: another `cargo xtask` runs the service from this checkout", folder.display());
    }
    Ok(file)
}

/// What nats-server writes beside its store when it listens.
#[derive(Deserialize)]
struct PortsFile {
    nats: Vec<String>,
    monitoring: Vec<String>,
}

fn start_nats(
    workspace: &Workspace,
    plan: &Plan,
    logs: &Path,
    interrupt: &Interrupt,
) -> Result<(Process, (String, String))> {
    let ports = plan.folder.join("ports");
    cache::remove_tree(&ports)?;
    fs::create_dir_all(&ports).with_context(|| format!("create {}", ports.display()))?;
    let mut command = Command::new(&plan.nats_server);
    command
        .arg("-c")
        .arg(workspace.root.join("infra/nats/nats-server.conf"))
        .args(["-a", "127.0.0.1"])
        .args(["-p", &nats_port(plan.nats.resolve("nats-server")?)])
        .args(["-m", &nats_port(plan.nats_monitor.resolve("nats-server's monitor")?)])
        .arg("-sd")
        .arg(plan.folder.join("nats"))
        .arg("--ports_file_dir")
        .arg(&ports);
    let mut nats = Process::spawn("nats-server", command, logs, "Server is ready")?;
    nats.await_line(START_LIMIT, interrupt)?;
    let urls = read_ports(&ports, &mut nats, interrupt)?;
    Ok((nats, urls))
}

/// The file follows the ready line by a moment.
fn read_ports(folder: &Path, nats: &mut Process, interrupt: &Interrupt) -> Result<(String, String)> {
    let deadline = Instant::now() + START_LIMIT;
    loop {
        let text = fs::read_dir(folder)
            .with_context(|| format!("list {}", folder.display()))?
            .find_map(|item| fs::read_to_string(item.ok()?.path()).ok());
        // Caught half-written, it does not parse yet.
        if let Some(ports) = text.and_then(|text| serde_json::from_str::<PortsFile>(&text).ok())
            && let (Some(nats), Some(monitor)) = (ports.nats.first(), ports.monitoring.first())
        {
            return Ok((nats.clone(), monitor.clone()));
        }
        nats.check()?;
        interrupt.check()?;
        if Instant::now() >= deadline {
            bail!("nats-server wrote no ports file into {}", folder.display());
        }
        interrupt.wait(Duration::from_millis(5));
    }
}

/// Waits for a 200 from a readiness address.
fn await_ready(url: &str, process: &mut Process, interrupt: &Interrupt) -> Result<()> {
    let deadline = Instant::now() + START_LIMIT;
    let client = http::Client::new(Duration::from_secs(2));
    loop {
        let answer = client.get(url);
        if answer.as_ref().is_ok_and(|response| response.status == 200) {
            return Ok(());
        }
        process.check()?;
        interrupt.check()?;
        if Instant::now() >= deadline {
            return match answer {
                Ok(response) => bail!("{url} still answers {}: {}", response.status, response.text()),
                Err(error) => Err(error).with_context(|| format!("{url} does not answer")),
            };
        }
        interrupt.wait(Duration::from_millis(100));
    }
}

fn address(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

/// nats-server's word for "any free port" is -1.
fn nats_port(port: u16) -> String {
    if port == 0 { "-1".to_owned() } else { port.to_string() }
}

/// The URL that follows `label` in a ready line.
fn url_after(line: &str, label: &str) -> Result<String> {
    line.split_once(label)
        .and_then(|(_, rest)| rest.split([' ', ')']).next())
        .filter(|url| url.starts_with("http://"))
        .map(|url| url.trim_end_matches('/').to_owned())
        .with_context(|| format!("no URL after `{label}` in the ready line `{line}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_from_the_ready_lines() {
        let edge = "orfeas-edge listening on http://127.0.0.1:8080 (admin http://127.0.0.1:9090)";
        assert_eq!(url_after(edge, "listening on ").unwrap(), "http://127.0.0.1:8080");
        assert_eq!(url_after(edge, "admin ").unwrap(), "http://127.0.0.1:9090");
        let node = "orfeas-gpu-node serving region local (admin http://127.0.0.1:9091/)";
        assert_eq!(url_after(node, "admin ").unwrap(), "http://127.0.0.1:9091");
        url_after("orfeas-edge listening on", "admin ").unwrap_err();
    }

    #[test]
    fn second_stack_in_the_same_folder_is_refused() {
        let scratch = crate::scratch::Scratch::new("stack-lock");
        let first = lock_folder(scratch.path()).unwrap();
        lock_folder(scratch.path()).unwrap_err();
        drop(first);
        lock_folder(scratch.path()).unwrap();
    }
}
