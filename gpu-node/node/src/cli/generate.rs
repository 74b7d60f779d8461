//! `generate`: one picture through the pipeline, with no NATS.

use std::ffi::OsStr;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::Args;
use orfeas_intake::{Declared, Limits, inspect};
use orfeas_nets::precision::Precision;
use orfeas_protocol::ids::InvalidId;
use orfeas_protocol::options::{ModelFormat, RequestOptions};
use orfeas_torch::DeviceChoice;

use crate::pipeline::{
    self, Generated, GenerationRequest, Inference, InferenceConfig, Monitor, NeuralConfig, Offload, Settings,
    Side, Views,
};

/// Width of the bar on a terminal.
const BAR_CELLS: usize = 30;

#[derive(Debug, Args)]
pub(super) struct Generate {
    /// The picture: JPEG, PNG or WebP
    image: PathBuf,
    /// Where the model goes; its ending chooses the format unless --format does
    #[arg(short, long, value_name = "FILE", default_value = "model.glb")]
    output: PathBuf,
    /// Another picture of the subject, for models that take several: left, back or right
    #[arg(long = "view", value_name = "SIDE=FILE", value_parser = view)]
    views: Vec<(Side, PathBuf)>,
    /// Where model folders are, each named as its family
    #[arg(long, env = "ORFEAS_MODELS", value_name = "DIR")]
    models: Option<PathBuf>,
    /// Inference device: auto, cpu, cuda or cuda:N
    #[arg(long, env = "ORFEAS_DEVICE", default_value = "auto")]
    device: DeviceChoice,
    /// In which type the networks compute: auto, fp32, fp16 or bf16
    #[arg(long, env = "ORFEAS_PRECISION", value_name = "TYPE", default_value = "auto")]
    precision: Precision,
    /// When networks that are not in use leave the device: auto, always or never
    #[arg(long, env = "ORFEAS_OFFLOAD", value_name = "WHEN", default_value = "auto")]
    offload: Offload,
    /// Gives shapes the published pipeline's scale, which is off by one cell, for comparison with its results
    #[arg(long)]
    reference_compatible: bool,
    #[command(flatten)]
    options: OptionFlags,
}

/// `SIDE=FILE`
fn view(text: &str) -> Result<(Side, PathBuf), String> {
    let (side, file) = text.split_once('=').ok_or("expected SIDE=FILE")?;
    let side = side.parse().map_err(|error: InvalidId| error.to_string())?;
    Ok((side, file.into()))
}

/// The options of the API under the same names; their ranges are checked in the same place.
#[derive(Debug, Args)]
struct OptionFlags {
    /// 1 to 10: 5 fast, 7 balanced, 9 quality
    #[arg(long, value_name = "1-10")]
    quality: Option<String>,
    /// glb, obj, stl or ply
    #[arg(long)]
    format: Option<String>,
    /// Model family
    #[arg(long, value_name = "FAMILY")]
    model: Option<String>,
    /// Denoising steps
    #[arg(long, value_name = "1-200")]
    steps: Option<String>,
    /// Guidance scale
    #[arg(long, value_name = "0-30")]
    guidance_scale: Option<String>,
    /// Seed
    #[arg(long)]
    seed: Option<String>,
    /// Whether the mesh gets a texture
    #[arg(long, value_name = "BOOL")]
    texture: Option<String>,
    /// Upper bound of the faces
    #[arg(long, value_name = "100-1000000")]
    target_faces: Option<String>,
    /// auto, always or never
    #[arg(long, value_name = "WHEN")]
    remove_background: Option<String>,
}

impl Generate {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let options = self.options.parse(&self.output)?;
        let image = read_image(&self.image)?;
        let views = self.views.iter().map(|(side, file)| Ok((*side, read_image(file)?)));
        let views = Views::new(views.collect::<anyhow::Result<Vec<_>>>()?)?;
        let neural = NeuralConfig {
            precision: self.precision,
            offload: self.offload,
            reference_compatible: self.reference_compatible,
        };
        let (device, models_folder) = (self.device, self.models.clone());
        let config = InferenceConfig { device, models_folder, neural, ..InferenceConfig::default() };
        let inference = Inference::start(config).context("cannot start inference")?;
        let cancelled = Arc::new(AtomicBool::new(false));
        let interrupt = cancelled.clone();
        tokio::spawn(async move {
            if tokio::signal::ctrl_c().await.is_ok() {
                interrupt.store(true, Ordering::Relaxed);
            }
        });
        let family = options.job.model.clone();
        let settings = Settings { views, ..Settings::decide(&options.job) };
        let request = GenerationRequest { image, job_type: options.job_type, settings };
        let began = Instant::now();
        let console = Console { cancelled, is_terminal: std::io::stderr().is_terminal(), stage: "" };
        let run = pipeline::generate(&inference, family.as_deref(), request, Box::new(console)).await;
        if std::io::stderr().is_terminal() {
            eprintln!();
        }
        let generated = run.outcome.context("cannot make a model of this picture")?;
        write_whole(&self.output, &generated.file)?;
        print_report(&self.output, &generated, began.elapsed().as_secs_f64());
        Ok(())
    }
}

impl OptionFlags {
    fn parse(&self, output: &Path) -> anyhow::Result<RequestOptions> {
        let by_name = output.extension().and_then(OsStr::to_str).map(str::to_ascii_lowercase);
        let by_name = by_name.filter(|ending| ending.parse::<ModelFormat>().is_ok());
        let given = [
            ("quality", &self.quality),
            ("format", if self.format.is_some() { &self.format } else { &by_name }),
            ("model", &self.model),
            ("steps", &self.steps),
            ("guidance_scale", &self.guidance_scale),
            ("seed", &self.seed),
            ("texture", &self.texture),
            ("target_faces", &self.target_faces),
            ("remove_background", &self.remove_background),
        ];
        let mut options = RequestOptions::default();
        for (name, value) in given {
            if let Some(value) = value {
                options.set(name, value)?;
            }
        }
        Ok(options)
    }
}

/// Shows progress on stderr: a bar on a terminal, a line per stage elsewhere.
struct Console {
    cancelled: Arc<AtomicBool>,
    is_terminal: bool,
    stage: &'static str,
}

impl Monitor for Console {
    fn progress(&mut self, stage: &'static str, fraction: f32) {
        let fraction = fraction.clamp(0.0, 1.0);
        if self.is_terminal {
            let filled = (fraction * BAR_CELLS as f32).round() as usize;
            let bar = format!("{:#<filled$}{:-<1$}", "", BAR_CELLS - filled);
            eprint!("\r[{bar}] {:3.0} % {stage:<12}", fraction * 100.0);
            // Nobody misses a frame of the bar.
            let _ = std::io::stderr().flush();
        } else if stage != self.stage {
            eprintln!("{:3.0} % {stage}", fraction * 100.0);
        }
        self.stage = stage;
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}

fn read_image(path: &Path) -> anyhow::Result<Bytes> {
    let limits = Limits::default();
    let size = std::fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
    if size.len() > limits.bytes_max {
        bail!("{} is larger than {} bytes", path.display(), limits.bytes_max);
    }
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let file_name = path.file_name().and_then(OsStr::to_str);
    inspect(&bytes, Declared { file_name, content_type: None }, limits)
        .with_context(|| format!("cannot use {}", path.display()))?;
    Ok(bytes.into())
}

/// A file is there in whole or not at all: the name is given when the bytes are written.
fn write_whole(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".part");
    let partial = PathBuf::from(partial);
    let written = std::fs::write(&partial, bytes).and_then(|()| std::fs::rename(&partial, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&partial);
    }
    written.with_context(|| format!("cannot write {}", path.display()))
}

fn print_report(path: &Path, generated: &Generated, seconds: f64) {
    let report = &generated.report;
    let watertight = if report.watertight { "watertight" } else { "not watertight" };
    println!(
        "{}: {} bytes, {} vertices, {} faces, {watertight}, {seconds:.2} s",
        path.display(),
        generated.file.len(),
        report.vertices,
        report.faces,
    );
    for (stage, seconds) in &generated.stage_seconds {
        println!("  {stage:<12} {seconds:6.3} s");
    }
}
