//! The whole service as real processes: message bus, node and edge, on free ports of the loopback.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::client::Client;
use crate::process::Process;
use crate::wait;

/// The repository's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// A program that `cargo xtask test` built: it lies beside this program, or beside the folder of this test binary.
pub fn program(name: &str) -> PathBuf {
    let this = std::env::current_exe().unwrap();
    let folder = this.parent().unwrap();
    let folder = if folder.ends_with("deps") { folder.parent().unwrap() } else { folder };
    let path = folder.join(name);
    assert!(path.is_file(), "{} is missing: run the tests by `cargo xtask test`", path.display());
    path
}

/// The built component.
pub fn component() -> PathBuf {
    let target = program("orfeas-edge").parent().and_then(Path::parent).unwrap().to_owned();
    let path = target.join("wasm32-wasip2/guest/orfeas_gateway.wasm");
    assert!(path.is_file(), "{} is missing: run the tests by `cargo xtask test`", path.display());
    path
}

fn nats_server() -> PathBuf {
    std::env::var_os("ORFEAS_NATS_SERVER").map_or_else(|| PathBuf::from("nats-server"), PathBuf::from)
}

/// `nats-server` with JetStream on a folder that outlives its restarts.
#[derive(Debug)]
pub struct Bus {
    process: Process,
    port: u16,
    dir: PathBuf,
    store: PathBuf,
}

impl Bus {
    fn start(dir: &Path, store: &Path) -> Self {
        // The server chooses its port, and tells it on its log: one that we chose could be another's by then.
        let mut process = Self::spawn(dir, store, "-1");
        let told = process.logged("Listening for client connections on ");
        let port = told.rsplit(':').next().and_then(|port| port.parse().ok());
        let port = port.unwrap_or_else(|| panic!("unexpected line {told:?}"));
        Self { process, port, dir: dir.to_owned(), store: store.to_owned() }
    }

    fn spawn(dir: &Path, store: &Path, port: &str) -> Process {
        let mut command = Command::new(nats_server());
        command.arg("-c").arg(root().join("infra/nats/nats-server.conf"));
        command.args(["-a", "127.0.0.1", "-p", port, "-sd"]).arg(store.join("jetstream"));
        Process::spawn("nats-server", dir, &mut command)
    }

    /// What the server has written to its log.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Connects a client of somebody else's making.
    pub async fn connect(&self) -> async_nats::Client {
        wait::until("connect to nats-server", wait::PATIENCE, || async {
            async_nats::connect(self.address()).await.ok()
        })
        .await
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts again on the same port and folder.
    pub async fn restart(&mut self) {
        self.process.kill();
        self.process = Self::spawn(&self.dir, &self.store, &self.port.to_string());
        self.connect().await;
    }
}

/// `orfeas-gpu-node serve`.
#[derive(Debug)]
pub struct Node {
    /// The process.
    pub process: Process,
    /// Base URL of the admin port.
    pub admin: String,
}

impl Node {
    fn start(dir: &Path, bus: &str, extra: &[String], environment: &[(String, String)]) -> Self {
        let mut command = Command::new(program("orfeas-gpu-node"));
        command.args(["serve", "--nats", &format!("nats://{bus}"), "--admin", "127.0.0.1:0"]);
        command.args(extra).current_dir(dir);
        // Two cores are shared by all tests: threads that spin while they wait would starve the others.
        command.env("OMP_WAIT_POLICY", "passive").env("GOMP_SPINCOUNT", "0");
        command.envs(environment.iter().cloned());
        let mut process = Process::spawn("orfeas-gpu-node", dir, &mut command);
        let line = process.ready_line("orfeas-gpu-node serving");
        let admin = line.split_once("(admin ").and_then(|(_, rest)| rest.strip_suffix(')'));
        let admin = admin.unwrap_or_else(|| panic!("unexpected ready line {line:?}")).to_owned();
        Self { process, admin }
    }
}

/// `orfeas-edge` with the repository's `spin.toml`.
#[derive(Debug)]
pub struct Edge {
    /// The process.
    pub process: Process,
    /// Base URL of the public port.
    pub url: String,
    /// Base URL of the admin port.
    pub admin: String,
}

impl Edge {
    fn start(dir: &Path, bus: &str, extra: &[&str], environment: &[(String, String)]) -> Self {
        let mut command = Command::new(program("orfeas-edge"));
        command.arg("--manifest").arg(root().join("spin.toml"));
        command.arg("--component").arg(component());
        command.args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        command.args(["--variable", &format!("nats_address={bus}")]);
        command.args(extra).current_dir(dir).envs(environment.iter().cloned());
        let mut process = Process::spawn("orfeas-edge", dir, &mut command);
        let line = process.ready_line("orfeas-edge listening on ");
        let rest = line.trim_start_matches("orfeas-edge listening on ");
        let (url, admin) =
            rest.split_once(" (admin ").unwrap_or_else(|| panic!("unexpected ready line {line:?}"));
        let admin = admin.strip_suffix(')').unwrap_or(admin);
        Self { process, url: url.to_owned(), admin: admin.to_owned() }
    }
}

/// How a stack differs from the usual one.
#[derive(Debug, Clone, Copy, Default)]
pub struct StackOptions<'a> {
    /// Further arguments of the node.
    pub node: &'a [&'a str],
    /// Further arguments of the edge.
    pub edge: &'a [&'a str],
    /// Where JetStream's folder lies; `None` for the stack's own folder.
    pub store: Option<&'a Path>,
    /// Further environment of node and edge.
    pub environment: &'a [(String, String)],
}

/// All three, in one temporary folder.
#[derive(Debug)]
pub struct Stack {
    // Fields drop in this order: edge first, bus last.
    /// The edge.
    pub edge: Edge,
    /// The node; `None` while it is away.
    pub node: Option<Node>,
    /// The message bus.
    pub bus: Bus,
    node_args: Vec<String>,
    environment: Vec<(String, String)>,
    dir: TempDir,
}

impl Stack {
    /// Starts everything with its defaults.
    pub async fn start() -> Self {
        Self::start_with(StackOptions::default()).await
    }

    /// Starts everything.
    pub async fn start_with(options: StackOptions<'_>) -> Self {
        let dir = TempDir::with_prefix("orfeas-test-").unwrap();
        let bus = Bus::start(dir.path(), options.store.unwrap_or(dir.path()));
        bus.connect().await;
        let node_args: Vec<String> = options.node.iter().map(|arg| (*arg).to_owned()).collect();
        let environment = options.environment.to_vec();
        // The node provisions what the edge expects, so it comes first.
        let node = Node::start(dir.path(), &bus.address(), &node_args, &environment);
        let edge = Edge::start(dir.path(), &bus.address(), options.edge, &environment);
        Self { edge, node: Some(node), bus, node_args, environment, dir }
    }

    /// Starts a node in place of one that has gone.
    pub fn start_node(&mut self) {
        let bus = self.bus.address();
        self.node = Some(Node::start(self.dir.path(), &bus, &self.node_args, &self.environment));
    }

    /// Starts a node beside the stack's own, in a folder of its own.
    pub fn another_node(&self, args: &[&str]) -> Node {
        let dir = self.dir.path().join("another");
        std::fs::create_dir_all(&dir).unwrap();
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        Node::start(&dir, &self.bus.address(), &args, &self.environment)
    }

    /// `kill -9` of the node.
    pub fn kill_node(&mut self) {
        if let Some(mut node) = self.node.take() {
            node.process.kill();
        }
    }

    /// The edge's client.
    pub fn client(&self) -> Client {
        Client::new(&self.edge.url)
    }

    /// Runs an `orfeas-gpu-node` command against the stack's bus and returns what it printed.
    ///
    /// # Panics
    /// When it fails.
    pub fn node_command(&self, args: &[&str]) -> String {
        let mut command = Command::new(program("orfeas-gpu-node"));
        command.args(args).args(["--nats", &format!("nats://{}", self.bus.address())]);
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{args:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
        text
    }

    /// A folder that goes with the stack.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
}
