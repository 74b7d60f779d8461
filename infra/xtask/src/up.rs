//! `cargo xtask up`: the whole service on this machine until Ctrl-C.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::Args;

use crate::artifacts::BuildOptions;
use crate::interrupt::Interrupt;
use crate::progress;
use crate::setup;
use crate::stack::{Plan, Port, Stack};
use crate::workspace::Workspace;

const HTTP_PORT: u16 = 8080;
const EDGE_ADMIN_PORT: u16 = 9090;
const NODE_ADMIN_PORT: u16 = 9091;
const NATS_PORT: u16 = 4222;
const NATS_MONITOR_PORT: u16 = 8222;

#[derive(Args)]
pub(crate) struct Options {
    /// Port of the public HTTP endpoint [default: 8080, another one if it is taken; 0: any]
    #[arg(long)]
    http_port: Option<u16>,
    /// Port of the edge's metrics and health [default: 9090, or another one]
    #[arg(long)]
    edge_admin_port: Option<u16>,
    /// Port of the node's metrics and health [default: 9091, or another one]
    #[arg(long)]
    node_admin_port: Option<u16>,
    /// Port of nats-server [default: 4222, or another one]
    #[arg(long)]
    nats_port: Option<u16>,
    /// Port of nats-server's monitor [default: 8222, or another one]
    #[arg(long)]
    nats_monitor_port: Option<u16>,
    /// Region that the node serves
    #[arg(long, default_value = "local")]
    region: String,
    /// Configuration file of the node
    #[arg(long, value_name = "FILE")]
    node_config: Option<PathBuf>,
    #[command(flatten)]
    build: BuildOptions,
}

/// Sets up, builds, starts, and waits for Ctrl-C.
pub(crate) fn command(workspace: &Workspace, options: Options) -> Result<()> {
    let interrupt = Interrupt::install()?;
    let ready = progress::step("set up", || setup::run(workspace))?;
    let artifacts = progress::step("build", || options.build.artifacts(workspace))?;
    interrupt.check()?;
    let plan = Plan {
        artifacts,
        nats_server: ready.nats_server,
        region: options.region,
        node_config: options.node_config,
        folder: workspace.run_dir(),
        http: Port::from_flag(options.http_port, HTTP_PORT),
        edge_admin: Port::from_flag(options.edge_admin_port, EDGE_ADMIN_PORT),
        node_admin: Port::from_flag(options.node_admin_port, NODE_ADMIN_PORT),
        nats: Port::from_flag(options.nats_port, NATS_PORT),
        nats_monitor: Port::from_flag(options.nats_monitor_port, NATS_MONITOR_PORT),
    };
    let mut stack = progress::step("start", || Stack::start(workspace, &plan, &interrupt))?;

    let urls = &stack.urls;
    println!("\nORFEAS is up");
    println!("  API           {}/api/generate-3d", urls.http);
    println!("  service       {}/", urls.http);
    println!("  edge metrics  {}/metrics", urls.edge_admin);
    println!("  node metrics  {}/metrics", urls.node_admin);
    println!("  NATS          {}  (monitor {})", urls.nats, urls.nats_monitor);
    println!("  logs          {}", plan.folder.join("logs").display());
    println!("try  curl -F image=@picture.png {}/api/generate-3d -o model.glb", urls.http);
    println!("stop with Ctrl-C");

    let outcome = loop {
        if interrupt.requested() {
            break Ok(());
        }
        if let Err(death) = stack.check() {
            break Err(death);
        }
        interrupt.wait(Duration::from_millis(200));
    };
    eprintln!("stopping");
    let stopped = stack.stop(&interrupt);
    outcome.and(stopped)
}
