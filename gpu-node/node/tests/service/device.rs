//! The same service on a real accelerator. Where there is none, these tests say so and end.

use std::fs;
use std::io::Cursor;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use image::{ImageFormat, Rgba, RgbaImage};
use orfeas_nets::config::Config;
use orfeas_nets::synthetic::Synthetic;
use orfeas_node::metrics::Metrics;
use orfeas_node::pipeline::{
    Engine, GenerationRequest, Inference, InferenceConfig, Monitor, PipelineError, Run, Settings, generate,
};
use orfeas_node::service::{CONNECT_LIMIT, Connection, Service, provision};
use orfeas_protocol::options::{JobOptions, JobType};
use orfeas_torch::{Backend, DeviceChoice, memory};
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};
use tempfile::TempDir;
use tokio::sync::Mutex;

use crate::harness::{Caller, Server, body, config, until};

const FAMILY: &str = "hunyuan3d-2";
/// Random weights whose field has a surface.
const WEIGHTS_SEED: u64 = 1;
/// How far two views of the card's memory may be apart.
const TOLERANCE: f64 = 0.05;

/// The card is one, and what a test holds of it would be in another's way.
static CARD: Mutex<()> = Mutex::const_new(());

/// The first accelerator. A test without one has nothing to look at.
fn accelerator() -> Option<Device> {
    let device = Backend::load(None).unwrap().device(DeviceChoice::Auto).unwrap();
    if device == Device::Cpu {
        println!("skipped: there is no accelerator");
        return None;
    }
    Some(device)
}

/// Nobody watches.
struct Silent;

impl Monitor for Silent {
    fn progress(&mut self, _stage: &'static str, _fraction: f32) {}

    fn is_cancelled(&self) -> bool {
        false
    }
}

/// Device memory that is taken until this is dropped, by nobody whom the node knows of.
struct Held(Device, Option<Tensor>);

impl Held {
    fn bytes(device: Device, bytes: u64) -> Self {
        let size = [bytes.cast_signed()];
        Self(device, Some(Tensor::empty(size, (Kind::Uint8, device)).fill_(1)))
    }

    /// All but this much.
    fn all_but(device: Device, left_bytes: u64) -> Self {
        memory::empty_cache(device).unwrap();
        Self::bytes(device, memory::stats(device).unwrap().free_bytes - left_bytes)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.1 = None;
        memory::empty_cache(self.0).unwrap();
    }
}

/// A models folder with the miniature checkpoint's sizes and a field that is smooth, as a trained one is.
fn models() -> TempDir {
    let root = std::env::var("CARGO_MANIFEST_DIR").unwrap_or_else(|_| env!("CARGO_MANIFEST_DIR").to_owned());
    let yaml = Path::new(&root).join("../nets/tests/golden/mini_checkpoint/config.yaml");
    let yaml = fs::read_to_string(yaml).unwrap();
    let models = TempDir::new().unwrap();
    let folder = models.path().join(FAMILY);
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("config.yaml"), &yaml).unwrap();
    let weights = Synthetic::of(&Config::parse(&yaml).unwrap()).unwrap();
    weights.write(&folder.join("model.fp16.safetensors"), Kind::Half, WEIGHTS_SEED).unwrap();
    models
}

fn start(device: DeviceChoice, models: &Path) -> Inference {
    let models_folder = Some(models.to_owned());
    Inference::start(InferenceConfig { device, models_folder, ..InferenceConfig::default() }).unwrap()
}

/// A disc, cut out.
fn disc() -> Vec<u8> {
    let picture = RgbaImage::from_fn(256, 256, |x, y| {
        let inside = (x as f32 - 128.0).hypot(y as f32 - 128.0) < 90.0;
        Rgba([20, 160, 60, if inside { 255 } else { 0 }])
    });
    let mut file = Cursor::new(Vec::new());
    picture.write_to(&mut file, ImageFormat::Png).unwrap();
    file.into_inner()
}

async fn run(inference: &Inference, quality: u8) -> Run {
    let options = JobOptions {
        quality: Some(quality),
        steps: Some(3),
        texture: false,
        target_faces: Some(2000),
        ..JobOptions::default()
    };
    let settings = Settings::decide(&options);
    let request = GenerationRequest { image: disc().into(), job_type: JobType::Generation3d, settings };
    generate(inference, Some(FAMILY), request, Box::new(Silent)).await
}

async fn serve(server: &Server, inference: Inference) -> Service {
    let (config, metrics) = (config(server, ""), Arc::new(Metrics::new()));
    let connection =
        Connection::open(&config.nats, "device test", CONNECT_LIMIT, metrics.clone()).await.unwrap();
    provision(connection.jetstream(), &config).await.unwrap();
    let tracer = orfeas_traces::Tracer::off();
    Service::start(&config, connection, Arc::new(inference), metrics, tracer).await.unwrap()
}

/// Total and used megabytes.
fn nvidia_smi() -> (f64, f64) {
    let query = ["--query-gpu=memory.total,memory.used", "--format=csv,noheader,nounits", "--id=0"];
    let output = Command::new("nvidia-smi").args(query).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (total, used) = text.trim().split_once(", ").unwrap_or_else(|| panic!("nvidia-smi says {text:?}"));
    (total.parse().unwrap(), used.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gpu_answer_agrees_with_nvidia_smi() {
    let _card = CARD.lock().await;
    let Some(device) = accelerator() else { return };
    let (server, models) = (Server::start().await, models());
    let service = serve(&server, start(DeviceChoice::Auto, models.path())).await;
    let caller = Caller::of(&server).await;
    let held = Held::bytes(device, 16 << 30);
    let figures = until("the node reports the memory that is held", async || {
        let figures: Value = body(&caller.ask("gpu", None, Vec::new()).await);
        (figures["allocated_mb"].as_u64()? >= 16 << 10).then_some(figures)
    })
    .await;
    let (total, used) = nvidia_smi();
    let figure = |name: &str| figures[name].as_f64().unwrap();
    let ours = (figure("total_vram_mb"), figure("total_vram_mb") - figure("free_vram_mb"));
    println!("MiB total and used: nvidia-smi {total} {used}, node {} {}", ours.0, ours.1);
    for (ours, theirs) in [(ours.0, total), (ours.1, used)] {
        assert!((ours / theirs - 1.0).abs() <= TOLERANCE, "{ours} and {theirs}: {figures}");
    }
    assert!(figure("reserved_mb") >= figure("allocated_mb") && ours.1 >= figure("reserved_mb"), "{figures}");
    drop(held);
    service.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_that_runs_out_fails_that_run_alone_and_comes_back() {
    let _card = CARD.lock().await;
    let Some(device) = accelerator() else { return };
    let models = models();
    let inference = start(DeviceChoice::Auto, models.path());
    let made = run(&inference, 7).await;
    let file = made.outcome.unwrap().file;
    let (before, refusals) = (inference.memory().allocated_bytes, memory::stats(device).unwrap().num_ooms);
    let held = Held::all_but(device, made.peak_bytes / 4);
    let short = run(&inference, 7).await;
    assert!(matches!(short.outcome, Err(PipelineError::OutOfMemory(_))), "{:?}", short.outcome.map(|_| ()));
    assert_eq!(short.leaked_bytes, 0);
    assert!(memory::stats(device).unwrap().num_ooms > refusals, "the allocator refused nothing");
    drop(held);
    assert_eq!(inference.memory().allocated_bytes, before);
    let again = run(&inference, 7).await.outcome.unwrap();
    assert!(again.file == file, "the same seed gives the same model as before");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_for_which_memory_runs_out_is_completed_in_a_lower_preset() {
    let _card = CARD.lock().await;
    let Some(device) = accelerator() else { return };
    let (server, models) = (Server::start().await, models());
    let inference = start(DeviceChoice::Auto, models.path());
    let (fast, fine) = (run(&inference, 5).await.peak_bytes, run(&inference, 9).await.peak_bytes);
    println!("peak bytes: fast {fast}, quality {fine}");
    let service = serve(&server, inference.clone()).await;
    let caller = Caller::of(&server).await;
    let options = json!({"model": FAMILY, "quality": 9, "steps": 3, "texture": false, "target_faces": 2000});
    let first = caller.job_ended(&submit(&caller, &options).await).await;
    assert_eq!((&first["status"], &first["recoveries"]), (&json!("completed"), &json!([])), "{first}");

    let before = inference.memory().allocated_bytes;
    let refusals = memory::stats(device).unwrap().num_ooms;
    let held = Held::all_but(device, fast + (fine - fast) / 4);
    let job = caller.job_ended(&submit(&caller, &options).await).await;
    println!("recoveries: {}", job["recoveries"]);
    assert_eq!(job["status"], "completed", "{job}");
    let strategies: Vec<&str> =
        job["recoveries"].as_array().unwrap().iter().map(|step| step["strategy"].as_str().unwrap()).collect();
    assert_eq!(strategies, ["empty_cache", "evict_idle", "halve_batch", "lower_preset"], "{job}");
    assert!(memory::stats(device).unwrap().num_ooms > refusals, "the allocator refused nothing");
    drop(held);
    assert_eq!(inference.memory().allocated_bytes, before, "memory returns to the baseline");
    service.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_card_makes_the_shape_that_the_cpu_makes() {
    if accelerator().is_none() {
        return;
    }
    let _card = CARD.lock().await;
    let models = models();
    let cpu = run(&start(DeviceChoice::Cpu, models.path()), 5).await.outcome.unwrap().report;
    assert!(cpu.watertight, "{cpu:?}");
    let card = run(&start(DeviceChoice::Auto, models.path()), 5).await.outcome.unwrap().report;
    assert!(card.watertight, "{card:?}");
    let (ours, theirs) = (card.volume, cpu.volume);
    println!("volume on the card {ours}, on the CPU {theirs}");
    // Half types on the card, single on the CPU.
    assert!((ours / theirs - 1.0).abs() < 0.02, "{ours} and {theirs}");
}

async fn submit(caller: &Caller, options: &Value) -> String {
    let reply = body(&caller.ask("submit", Some(options.clone()), disc()).await);
    reply["id"].as_str().unwrap_or_else(|| panic!("{reply}")).to_owned()
}
