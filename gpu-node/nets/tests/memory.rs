//! Memory on the CPU, measured in processes of their own: loading, and the estimate against a whole generation.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test's helpers fail as its assertions do"
)]

use orfeas_nets::checkpoint::Checkpoint;
use orfeas_nets::config::Config;
use orfeas_nets::footprint::{Footprint, Job};
use orfeas_nets::residence::{Residence, ResidentNetworks};
use orfeas_nets::sampling::{Start, noise, sample};
use orfeas_nets::synthetic::Synthetic;
use orfeas_nets::volume::{self, CPU_CHUNK_POINTS, Method, Request};
use orfeas_nets::watch::Unwatched;
use std::path::{Path, PathBuf};
use std::process::Command;
use tch::{Device, Kind, Tensor};

/// Tells a test that it is the child, and which folder to use.
const FOLDER: &str = "ORFEAS_TEST_MODEL_FOLDER";
const RESOLUTION: &str = "ORFEAS_TEST_RESOLUTION";

fn miniature() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/mini_checkpoint")
}

/// A configuration in the published form: width, depths, latents, and the picture's side.
fn yaml(width: i64, depth: i64, latents: i64, encoder_width: i64, side: i64) -> String {
    let heads = width / 64;
    format!(
        "model:
  target: hy3dgen.shapegen.models.Hunyuan3DDiT
  params: {{in_channels: 64, context_in_dim: {encoder_width}, hidden_size: {width}, mlp_ratio: 4.0,
    num_heads: {heads}, depth: {depth}, depth_single_blocks: {singles}, axes_dim: [64], theta: 10000, qkv_bias: true}}
vae:
  target: hy3dgen.shapegen.models.ShapeVAE
  params: {{num_latents: {latents}, embed_dim: 64, num_freqs: 8, include_pi: false, heads: {heads}, width: {width},
    num_decoder_layers: {depth}, qkv_bias: false, qk_norm: true, scale_factor: 1.0}}
conditioner:
  target: hy3dgen.shapegen.models.SingleImageEncoder
  params:
    main_image_encoder:
      type: DinoImageEncoder
      kwargs:
        config: {{hidden_size: {encoder_width}, num_attention_heads: {encoder_heads}, num_hidden_layers: {layers},
          mlp_ratio: 4, image_size: {side}, patch_size: 14, layer_norm_eps: 1.0e-6, qkv_bias: true,
          use_swiglu_ffn: true}}
        image_size: {side}
scheduler: {{target: hy3dgen.shapegen.schedulers.FlowMatchEulerDiscreteScheduler, params: {{}}}}
image_processor: {{target: hy3dgen.shapegen.preprocessors.ImageProcessorV2, params: {{size: {side}}}}}
",
        singles = 2 * depth,
        encoder_heads = encoder_width / 64,
        layers = 2 * depth,
    )
}

fn written(yaml: &str, kind: Kind) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.yaml"), yaml).unwrap();
    let source = Synthetic::of(&Config::parse(yaml).unwrap()).unwrap();
    source.write(&folder.path().join("model.fp16.safetensors"), kind, 1).unwrap();
    folder
}

/// Runs a test of this file in a process of its own; the number that it prints behind `measured`.
fn measure(test: &str, folder: &Path, resolution: i64) -> f64 {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--ignored", "--nocapture", "--test-threads=1"]);
    command.env(FOLDER, folder).env(RESOLUTION, resolution.to_string());
    // The estimate counts what tensors hold; by default glibc keeps freed blocks of up to 32 MiB for itself.
    command
        .env("MALLOC_MMAP_THRESHOLD_", "131072")
        .env("OMP_WAIT_POLICY", "passive")
        .env("GOMP_SPINCOUNT", "0");
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find_map(|line| line.split_once("measured "));
    let (_, number) = line.unwrap_or_else(|| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)));
    number.trim().parse().unwrap()
}

fn child() -> (PathBuf, i64) {
    let folder = std::env::var_os(FOLDER).expect("run by another test");
    (folder.into(), std::env::var(RESOLUTION).unwrap().parse().unwrap())
}

/// `VmRSS`, `VmHWM` of this process, in bytes.
fn status(name: &str) -> f64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() * 1024.0
}

/// Starts the highest resident size again from the present one (`clear_refs` in proc(5)).
fn reset_peak() -> f64 {
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    status("VmRSS:")
}

fn load(folder: &Path) -> ResidentNetworks {
    let checkpoint = Checkpoint::open(folder).unwrap();
    ResidentNetworks::load(checkpoint, Device::Cpu, Kind::Float, Residence::Together).unwrap()
}

fn job(resolution: i64) -> Job {
    Job { batch: 1, views: 1, views_at_once: 1, resolution, chunk_points: CPU_CHUNK_POINTS }
}

fn generate(networks: &mut ResidentNetworks, job: &Job) {
    let config = networks.checkpoint().config.clone();
    let side = config.picture.size as i64;
    let image = Tensor::zeros([1, 3, side, side], (Kind::Float, Device::Cpu));
    let context = networks.conditioner().unwrap().encode(&image).unwrap();
    let noise = noise(1, &[1, config.vae.num_latents, config.vae.embed_dim]).unwrap();
    let sigmas = config.schedule.sigmas(2);
    let start = Start { noise: &noise, context: &context, sigmas: &sigmas, guidance_scale: 5.0 };
    let latents = sample(networks.denoiser().unwrap(), &start, &mut Unwatched).unwrap();
    let _no_grad = tch::no_grad_guard();
    let vae = networks.vae().unwrap();
    let field = vae.field(&vae.decode(&latents));
    // The surface through the middle of the values, so that there is one.
    let points = Tensor::rand([1, 512, 3], (Kind::Float, Device::Cpu)) * 2.0 - 1.0;
    let request = Request {
        bound: 1.01,
        resolution: job.resolution,
        level: field.logits(&points).median().double_value(&[]),
        chunk_points: job.chunk_points,
        method: Method::Hierarchical { min_resolution: (job.resolution / 4).min(64) },
    };
    volume::decode(&field, &request, &mut Unwatched).unwrap();
}

/// Everything once, on the miniature, so that code and thread pools are there before anything is measured.
fn warm_up() {
    tch::set_num_threads(1);
    generate(&mut load(&miniature()), &job(16));
}

#[test]
#[ignore = "a child of loading_takes_no_more_than_the_file"]
fn load_and_measure() {
    let (folder, _) = child();
    warm_up();
    let before = reset_peak();
    let networks = load(&folder);
    println!("measured {}", status("VmHWM:") - before);
    drop(networks);
}

#[test]
#[ignore = "a child of the_estimate_is_what_a_generation_takes"]
fn generate_and_measure() {
    let (folder, resolution) = child();
    warm_up();
    let before = reset_peak();
    generate(&mut load(&folder), &job(resolution));
    println!("measured {}", status("VmHWM:") - before);
}

fn weights_bytes(folder: &Path) -> f64 {
    std::fs::metadata(folder.join("model.fp16.safetensors")).unwrap().len() as f64
}

#[test]
fn loading_takes_no_more_than_the_file() {
    for kind in [Kind::Half, Kind::Float] {
        let folder = written(&yaml(512, 2, 64, 512, 56), kind);
        let (file, peak) = (weights_bytes(folder.path()), measure("load_and_measure", folder.path(), 16));
        println!("{kind:?}: {:.1} MB of a file of {:.1} MB", peak / 1e6, file / 1e6);
        assert!(peak <= 1.1 * file, "{kind:?}: {:.2} of the file", peak / file);
    }
}

#[test]
fn the_estimate_is_what_a_generation_takes() {
    // Most of it in weights; in a denoising step; in the grid.
    let cases =
        [(yaml(512, 3, 64, 512, 56), 32), (yaml(256, 1, 2048, 128, 448), 32), (yaml(64, 1, 32, 64, 56), 256)];
    for (yaml, resolution) in cases {
        let folder = written(&yaml, Kind::Half);
        let checkpoint = Checkpoint::open(folder.path()).unwrap();
        let footprint = Footprint::of(&checkpoint, Device::Cpu, Kind::Float, &job(resolution));
        let estimate = footprint.peak(Residence::Together) as f64;
        let peak = measure("generate_and_measure", folder.path(), resolution);
        println!("estimate {:.1} MB, measured {:.1} MB, {footprint:?}", estimate / 1e6, peak / 1e6);
        assert!((estimate / peak - 1.0).abs() <= 0.15, "estimate {estimate}, measured {peak}");
    }
}
