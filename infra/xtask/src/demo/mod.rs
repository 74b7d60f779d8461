//! `cargo xtask demo [IMAGE]`: a picture in at the public endpoint, a model out, from nothing.

mod client;
mod picture;
mod summary;

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::artifacts::BuildOptions;
use crate::http;
use crate::interrupt::Interrupt;
use crate::progress;
use crate::setup::{self, cache};
use crate::stack::{Plan, Port, Stack};
use crate::workspace::Workspace;
use client::Api;

/// GLB 2.0, section "Header": the file starts with this.
const GLB_MAGIC: &[u8] = b"glTF";

#[derive(Args)]
pub(crate) struct Options {
    /// A JPEG, PNG or WebP picture [default: one that the demo draws]
    image: Option<PathBuf>,
    /// Where the model goes
    #[arg(long, value_name = "FILE", default_value = "model.glb")]
    out: PathBuf,
    #[command(flatten)]
    build: BuildOptions,
}

/// Sets up, builds, starts a private stack, runs one job through it, and stops it.
pub(crate) fn command(workspace: &Workspace, options: &Options) -> Result<()> {
    let interrupt = Interrupt::install()?;
    // Before the long part: a wrong path should not cost a build.
    let (name, image) = picture(options)?;
    let media_type = client::media_type(&image)?;

    let ready = progress::step("set up", || setup::run(workspace))?;
    let artifacts = progress::step("build", || options.build.artifacts(workspace))?;
    interrupt.check()?;

    // Its own stores and ports: a running `cargo xtask up` is not disturbed. Each demo starts
    // empty, so the summary is about this picture alone.
    let folder = workspace.run_dir().join(format!("demo-{}", std::process::id()));
    let plan = Plan {
        artifacts,
        nats_server: ready.nats_server,
        region: "local".to_owned(),
        node_config: None,
        folder: folder.clone(),
        http: Port::Any,
        edge_admin: Port::Any,
        node_admin: Port::Any,
        nats: Port::Any,
        nats_monitor: Port::Any,
    };
    let mut stack = progress::step("start", || Stack::start(workspace, &plan, &interrupt))?;
    let outcome = generate(&mut stack, &name, media_type, &image, options, &interrupt);
    let stopped = stack.stop(&interrupt);
    outcome.and(stopped)?;
    // Kept when something went wrong: the logs tell why.
    cache::remove_tree(&folder)
}

fn picture(options: &Options) -> Result<(String, Vec<u8>)> {
    let Some(path) = &options.image else {
        return Ok(("rocket.png".to_owned(), picture::rocket_png()?));
    };
    let image = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    let name = path.file_name().map_or_else(|| "picture".to_owned(), |name| name.to_string_lossy().into());
    Ok((name, image))
}

fn generate(
    stack: &mut Stack,
    name: &str,
    media_type: &str,
    image: &[u8],
    options: &Options,
    interrupt: &Interrupt,
) -> Result<()> {
    let api = Api::new(&stack.urls.http);
    eprintln!(
        "\n== {name} ({}) to {}/api/submit-job",
        progress::human_bytes(image.len() as u64),
        stack.urls.http
    );
    let started = Instant::now();
    let submitted = api.submit(name, media_type, image)?;
    let bar = progress::percent("queued");
    let job = api.follow(&submitted.id, interrupt, |job| {
        bar.set_position(job.progress.clamp(0.0, 100.0) as u64);
        let now = job.stage.as_ref().unwrap_or(&job.status);
        if bar.message() != *now {
            progress::rename(&bar, now);
        }
        stack.check()
    });
    bar.finish_and_clear();
    let job = job?;
    let model = api.result(&job.id)?;
    let elapsed = started.elapsed();
    ensure!(model.starts_with(GLB_MAGIC), "the result of job {} is not a GLB file", job.id);
    if let Some(bytes) = job.result.as_ref().and_then(|result| result.bytes) {
        ensure!(bytes == model.len() as u64, "the result has {} bytes, the job says {bytes}", model.len());
    }
    fs::write(&options.out, &model).with_context(|| format!("write {}", options.out.display()))?;

    // This node has run one job: its sums are that job's stages.
    let metrics_url = format!("{}/metrics", stack.urls.node_admin);
    let stages = http::Client::new(Duration::from_secs(5))
        .get(&metrics_url)
        .map_or_else(|_| Vec::new(), |metrics| summary::stage_seconds(&metrics.text()));
    println!("picture in, model out in {}", progress::human_duration(elapsed));
    print!("{}", summary::text(&job, &options.out, model.len() as u64, &stages));
    println!("  again        run `cargo xtask up` and open the address that it prints");
    Ok(())
}
