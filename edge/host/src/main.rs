//! The edge host: serves the components of a Spin manifest with hyper and wasmtime.
//!
//! ```text
//! cli ─▶ config (limits)        manifest ─▶ App (components, routes)
//!              └──────────┬─────────┘
//!                       guest (engine, compiled components, instances)
//!                         │
//!                       inbound (connections, requests, problems) ── metrics, admin, traces
//! ```
//! Everything is read and checked before anything listens.

mod class;
mod cli;
mod config;
mod guest;
mod inbound;
mod logging;
mod manifest;
mod metrics;
mod outbound;
mod route;
mod signals;

use crate::class::RequestClass;
use crate::cli::Args;
use crate::config::Limits;
use crate::guest::Guest;
use crate::guest::aot::{self, AotCache};
use crate::inbound::Service;
use crate::inbound::dispatch::{Component, Dispatcher};
use crate::manifest::{App, VariableSources};
use crate::metrics::Metrics;
use crate::signals::StopSignals;
use anyhow::Context;
use clap::Parser;
use orfeas_traces::Tracer;
use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::watch;
use wasmtime::Engine;

fn main() -> ExitCode {
    let args = Args::parse();
    match start(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Not through the log, which may be what failed.
            eprintln!("orfeas-edge: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(args: &Args) -> anyhow::Result<()> {
    logging::start(args.log_format, &args.log)?;
    let limits = Limits::resolve(&args.limits)?;
    let flags = args.variables.iter().cloned().collect();
    let environment = |name: &str| std::env::var(name).ok();
    let sources = VariableSources { flags: &flags, environment: &environment };
    let app = manifest::load(&args.manifest, &sources, &args.components)?;
    config::check_listen(args.listen, &app)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the async runtime")?;
    let served = runtime.block_on(serve(args, limits, app));
    // The process ends now. Taking the runtime apart first would drop idle instances in mid-wait,
    // which looks like a crash of each and is reported so.
    std::mem::forget(runtime);
    served
}

async fn serve(args: &Args, limits: Limits, app: App) -> anyhow::Result<()> {
    let mut signals = StopSignals::listen()?;
    let metrics = Arc::new(Metrics::new());
    let tracer = Tracer::from_environment("orfeas-edge", env!("CARGO_PKG_VERSION"))?;
    let service = Arc::new(build_service(args, limits, app, &metrics, tracer.clone())?);
    let public = bind(args.listen).await?;
    let admin = bind(args.admin).await?;
    announce(public.local_addr()?, admin.local_addr()?)?;

    let (stop, stopping) = watch::channel(false);
    tokio::spawn(inbound::admin::serve(admin, metrics, stopping.clone()));
    let serving =
        tokio::spawn(inbound::server::serve(public, service, limits.connections, stopping, limits.drain));
    signals.next().await;
    tracing::info!("draining");
    // An error would mean that nobody serves any more, which the next line notices.
    let _ = stop.send(true);
    tokio::select! {
        served = serving => served.context("the server failed")?,
        () = signals.next() => tracing::warn!("stopping at once"),
    }
    tracer.flush().await;
    Ok(())
}

fn build_service(
    args: &Args,
    limits: Limits,
    app: App,
    metrics: &Arc<Metrics>,
    tracer: Tracer,
) -> anyhow::Result<Service> {
    let engine = guest::engine::start(limits.pool).context("cannot start wasmtime")?;
    let cache = open_cache(args)?;
    let mut components = Vec::new();
    for spec in app.components {
        let compiled = match &cache {
            Some(cache) => cache.load(&engine, &spec.source)?,
            None => aot::compile(&engine, &spec.source)?,
        };
        let pre = guest::linker::link(&engine, &compiled)
            .with_context(|| format!("cannot link component {:?}", spec.id))?;
        components.push(component(&engine, Arc::new(pre), spec, limits, metrics));
    }
    let routes = app.routes.iter().map(|(pattern, _)| pattern.as_str()).collect::<Vec<_>>();
    tracing::info!(application = app.name, routes = routes.join(" "), "loaded");
    Ok(Service {
        dispatcher: Dispatcher::new(components, |class| limits.class(class), limits.queue_wait),
        routes: app.routes,
        metrics: Arc::clone(metrics),
        tracer,
        head_limits: limits.head,
        body_limits: limits.body,
    })
}

fn component(
    engine: &Engine,
    pre: Arc<wasmtime_wasi_http::handler::ProxyPre<guest::instance::Host>>,
    spec: manifest::ComponentSpec,
    limits: Limits,
    metrics: &Arc<Metrics>,
) -> Component {
    let spec = Arc::new(spec);
    let guest = |class: RequestClass| {
        let (counting, failing) = (Arc::clone(metrics), Arc::clone(metrics));
        Guest {
            engine: engine.clone(),
            pre: Arc::clone(&pre),
            spec: Arc::clone(&spec),
            limits: limits.instance(class),
            count_instance: Arc::new(move |by| counting.instances_changed(by)),
            on_failure: Arc::new(move |failure| failing.instance_failed(failure)),
        }
    };
    Component::new(Arc::clone(&spec), guest)
}

/// A cache that was asked for must work; without the default one, each start compiles.
fn open_cache(args: &Args) -> anyhow::Result<Option<AotCache>> {
    let opened = config::cache_dir(args).and_then(|folder| AotCache::open(&folder));
    match opened {
        Ok(cache) => Ok(Some(cache)),
        Err(error) if args.cache_dir.is_some() => Err(error),
        Err(error) => {
            tracing::warn!(error = format!("{error:#}"), "compiled components are not kept");
            Ok(None)
        }
    }
}

async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
}

/// The one line on standard output, which scripts and tests wait for.
fn announce(public: SocketAddr, admin: SocketAddr) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "orfeas-edge listening on http://{public} (admin http://{admin})")
        .and_then(|()| out.flush())
        .context("cannot write to standard output")
}
