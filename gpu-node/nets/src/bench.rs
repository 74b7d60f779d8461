//! Times the networks on tensors from a file, so that another implementation can time the same.
//!
//! A file holds `w.<key>`, `in.*`, and the expected results.
//!
//! `dit`: `in.x [1, L, C]`, `in.context [1, S, Cc]` → `out.step` = x + 0.02·(u + 5·(c − u)),
//! where c and u are the velocities at t = 0.25 for the context and for zeros.
//!
//! `volume`: `in.z [1, L, C]` latents that are already scaled, `in.queries
//! [1, P, 3]` → `mid.decoded`, `out.logits`, and `out.grid`, the dense grid.
//!
//! Sizes are read off the tensors and the header's `config` where there is one;
//! what neither says has the values of the agreed files.

use crate::hunyuan_dit::HunyuanDit;
use crate::sampling::Denoiser;
use crate::shape_vae::ShapeVae;
use crate::volume::{self, DEFAULT_BOUND, Method, Request};
use crate::watch::Unwatched;
use crate::weights::{self, Prefixed, TensorSource};
use crate::{Error, hunyuan_dit, shape_vae};
use orfeas_torch::{TorchError, WeightsFile, attempt};
use serde::Serialize;
use std::path::Path;
use std::time::Instant;
use tch::{Device, Kind, Tensor};

/// The step that is timed.
const TIME: f32 = 0.25;
const STEP: f64 = 0.02;
const GUIDANCE_SCALE: f64 = 5.0;
/// Heads of the agreed files, which no tensor shows.
const HEADS: i64 = 8;

/// Times of one workload, and how right the result is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// `dit` or `volume`.
    pub workload: &'static str,
    /// Repetitions.
    pub reps: usize,
    /// Threads of a tensor operation.
    pub threads: i32,
    /// Median wall seconds of a repetition.
    pub median_seconds: f64,
    /// The least.
    pub min_seconds: f64,
    /// The greatest.
    pub max_seconds: f64,
    /// Processor seconds of all threads for a repetition, on average.
    pub cpu_seconds: f64,
    /// Greatest absolute difference to the file's results.
    pub max_abs_error: f64,
}

/// How to run.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Repetitions that count, at least 1; one more goes ahead of them.
    pub reps: usize,
    /// Where the networks run.
    pub device: Device,
    /// The type in which they run.
    pub kind: Kind,
    /// Points evaluated at once.
    pub chunk_points: i64,
}

/// One guided denoising step, all of it: nothing is prepared outside the time.
pub fn dit(dump: &Path, options: &Options) -> Result<Report, Error> {
    let dump = Dump::open(dump)?;
    let config = dump.dit_config()?;
    config.validate()?;
    let target = (options.device, options.kind);
    let dit = weights::load(&dump.weights(), "", target, |_| false, |w| HunyuanDit::new(w, &config))?;
    let (x, context) = (dump.input("in.x", options)?, dump.input("in.context", options)?);
    let expected = dump.file.view("out.step")?;
    measure("dit", options, &[expected], || {
        Ok(vec![attempt(|| &x + dit.prepare(&context, GUIDANCE_SCALE)(&x, TIME) * STEP)?])
    })
}

/// Latents to a dense grid.
pub fn volume(dump: &Path, options: &Options) -> Result<Report, Error> {
    let dump = Dump::open(dump)?;
    let config = dump.vae_config()?;
    config.validate()?;
    let target = (options.device, options.kind);
    let vae =
        weights::load(&dump.weights(), "", target, shape_vae::is_encoder_key, |w| ShapeVae::new(w, &config))?;
    let (z, queries) =
        (dump.input("in.z", options)?, dump.file.load("in.queries", options.device, Kind::Float)?);
    let grid = dump.file.view("out.grid")?;
    let resolution = grid.size()[grid.dim() - 1] - 1;
    let names = ["mid.decoded", "out.logits"].map(|name| dump.file.view(name));
    let [decoded, logits] = names;
    let expected = [decoded?, logits?.squeeze_dim(-1), grid];
    let request = Request {
        bound: DEFAULT_BOUND,
        resolution,
        level: 0.0,
        chunk_points: options.chunk_points,
        method: Method::Dense,
    };
    // Outside the time: the other side does not time them either.
    let checked = attempt(|| {
        let tokens = vae.decode(&z);
        let logits = vae.field(&tokens).logits(&queries);
        (tokens, logits)
    })?;
    measure("volume", options, &expected, || {
        let tokens = attempt(|| vae.decode(&z))?;
        let field = attempt(|| vae.field(&tokens))?;
        let volume = volume::decode(&field, &request, &mut Unwatched)?;
        Ok(vec![checked.0.shallow_clone(), checked.1.shallow_clone(), volume.logits])
    })
}

fn measure(
    workload: &'static str,
    options: &Options,
    expected: &[Tensor],
    mut run: impl FnMut() -> Result<Vec<Tensor>, Error>,
) -> Result<Report, Error> {
    let _no_grad = tch::no_grad_guard();
    let settle = || match options.device {
        Device::Cpu => Ok(()),
        device => orfeas_torch::memory::synchronize(device),
    };
    let results = run()?;
    settle()?;
    let errors = results.iter().zip(expected).map(|(ours, theirs)| {
        let difference = || {
            let ours = ours.to_device(Device::Cpu).to_kind(Kind::Double).reshape_as(theirs);
            (ours - theirs.to_kind(Kind::Double)).abs().max().double_value(&[])
        };
        attempt(difference)
    });
    let max_abs_error = errors.collect::<Result<Vec<f64>, TorchError>>()?.into_iter().fold(0.0, f64::max);
    let reps = options.reps.max(1);
    let cpu_before = cpu_seconds();
    let mut seconds = Vec::with_capacity(reps);
    for _ in 0..reps {
        let start = Instant::now();
        drop(run()?);
        settle()?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    let cpu_seconds = (cpu_seconds() - cpu_before) / reps as f64;
    seconds.sort_by(f64::total_cmp);
    Ok(Report {
        workload,
        reps,
        threads: tch::get_num_threads(),
        median_seconds: (seconds[(reps - 1) / 2] + seconds[reps / 2]) / 2.0,
        min_seconds: seconds[0],
        max_seconds: seconds[reps - 1],
        cpu_seconds,
        max_abs_error,
    })
}

/// Processor seconds of this process so far, 0 where the system does not say.
fn cpu_seconds() -> f64 {
    /// `USER_HZ`, fixed at 100 in the Linux ABI.
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Fields 14 and 15 of the line, counted after the name, which may have spaces.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / TICKS_PER_SECOND
}

/// A file of weights, inputs and results.
struct Dump {
    file: WeightsFile,
}

impl Dump {
    fn open(path: &Path) -> Result<Self, Error> {
        Ok(Self { file: WeightsFile::open(path)? })
    }

    fn weights(&self) -> Prefixed<'_> {
        Prefixed { file: &self.file, prefix: "w." }
    }

    fn input(&self, name: &str, options: &Options) -> Result<Tensor, Error> {
        Ok(self.file.load(name, options.device, options.kind)?)
    }

    /// Size `axis` of a weight.
    fn size(&self, key: &str, axis: usize) -> Result<i64, Error> {
        let size = self.weights().info(key).and_then(|info| info.shape.get(axis).copied());
        size.ok_or_else(|| Error::config("bench", format!("{} has no w.{key}", self.weights().name())))
    }

    /// How many of `<prefix>0…`, `<prefix>1…` there are.
    fn count(&self, prefix: &str) -> i64 {
        let present =
            |i: &i64| self.weights().keys().iter().any(|key| key.starts_with(&format!("{prefix}{i}.")));
        (0..).take_while(present).count() as i64
    }

    fn config<T: serde::de::DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_str(self.file.texts()?.get("config")?).ok()
    }

    fn dit_config(&self) -> Result<hunyuan_dit::Config, Error> {
        if let Some(config) = self.config() {
            return Ok(config);
        }
        let hidden_size = self.size("latent_in.weight", 0)?;
        let head = self.size("single_blocks.0.norm.query_norm.scale", 0)?;
        Ok(hunyuan_dit::Config {
            in_channels: self.size("latent_in.weight", 1)?,
            context_in_dim: self.size("cond_in.weight", 1)?,
            hidden_size,
            mlp_ratio: self.size("double_blocks.0.img_mlp.0.weight", 0)? as f64 / hidden_size as f64,
            num_heads: hidden_size / head,
            depth: self.count("double_blocks."),
            depth_single_blocks: self.count("single_blocks."),
            axes_dim: vec![head],
            qkv_bias: self.weights().info("double_blocks.0.img_attn.qkv.bias").is_some(),
            guidance_embed: self.weights().info("guidance_in.in_layer.weight").is_some(),
            ..hunyuan_dit::Config::v2_0()
        })
    }

    fn vae_config(&self) -> Result<shape_vae::Config, Error> {
        if let Some(config) = self.config::<shape_vae::Config>() {
            // The latents in these files are scaled already.
            return Ok(shape_vae::Config { scale_factor: 1.0, ..config });
        }
        let block = "geo_decoder.cross_attn_decoder";
        let (width, geo_width) =
            (self.size("post_kl.weight", 0)?, self.size("geo_decoder.query_proj.weight", 0)?);
        Ok(shape_vae::Config {
            num_latents: self.file.info("in.z").and_then(|info| info.shape.get(1).copied()).unwrap_or(1),
            embed_dim: self.size("post_kl.weight", 1)?,
            num_freqs: (self.size("geo_decoder.query_proj.weight", 1)? / 3 - 1) / 2,
            include_pi: false,
            heads: match self.size("transformer.resblocks.0.attn.attention.q_norm.weight", 0) {
                Ok(head) => width / head,
                Err(_) => HEADS,
            },
            width,
            num_decoder_layers: self.count("transformer.resblocks."),
            qkv_bias: self.weights().info(&format!("{block}.attn.c_q.bias")).is_some(),
            qk_norm: self.weights().info("transformer.resblocks.0.attn.attention.q_norm.weight").is_some(),
            scale_factor: 1.0,
            geo_decoder_mlp_expand_ratio: self.size(&format!("{block}.mlp.c_fc.weight"), 0)? / geo_width,
            geo_decoder_downsample_ratio: width / geo_width,
            geo_decoder_ln_post: self.weights().info("geo_decoder.ln_post.weight").is_some(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::volume::CPU_CHUNK_POINTS;

    const OPTIONS: Options =
        Options { reps: 2, device: Device::Cpu, kind: Kind::Float, chunk_points: CPU_CHUNK_POINTS };

    /// A reference case, as a dump of this module's form.
    fn dump(
        case: &str,
        rename: impl Fn(&str) -> Option<&'static str>,
        more: &[(&str, Tensor)],
    ) -> tempfile::TempDir {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
        let file = WeightsFile::open(&golden.join(format!("{case}.safetensors"))).unwrap();
        let mut tensors: Vec<(String, Tensor)> = Vec::new();
        for (name, _) in file.tensors() {
            let renamed =
                if name.starts_with("w.") { Some(name.clone()) } else { rename(&name).map(str::to_owned) };
            tensors.extend(renamed.map(|renamed| (renamed, file.view(&name).unwrap())));
        }
        tensors.extend(more.iter().map(|(name, tensor)| (name.to_string(), tensor.shallow_clone())));
        let folder = tempfile::tempdir().unwrap();
        Tensor::write_safetensors(&tensors, folder.path().join("dump.safetensors")).unwrap();
        folder
    }

    #[test]
    fn a_volume_dump_is_timed_and_found_right() {
        let folder = dump(
            "vae",
            |name| match name {
                "mid.unscaled" => Some("in.z"),
                "in.queries" => Some("in.queries"),
                "mid.decoded" => Some("mid.decoded"),
                "out.logits" => Some("out.logits"),
                "out.grid_logits" => Some("out.grid"),
                _ => None,
            },
            &[],
        );
        let report = volume(&folder.path().join("dump.safetensors"), &OPTIONS).unwrap();
        assert!(report.max_abs_error < 1e-3, "{report:?}");
        assert!(report.min_seconds > 0.0 && report.min_seconds <= report.median_seconds);
    }

    #[test]
    fn a_dit_dump_is_timed_and_a_wrong_result_shows() {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
        let case = WeightsFile::open(&golden.join("denoise_cfg5.safetensors")).unwrap();
        let (x, context) = (case.view("mid.latents0").unwrap(), case.view("in.context").unwrap());
        let velocity = case.view("mid.velocity1").unwrap();
        let inputs = |step: Tensor| {
            [("in.x", x.shallow_clone()), ("in.context", context.shallow_clone()), ("out.step", step)]
        };
        // The reference run's second step starts at σ = 0.25 with the same guidance.
        let right = dump("dit_plain", |_| None, &inputs(&x + &velocity * STEP));
        let report = dit(&right.path().join("dump.safetensors"), &OPTIONS).unwrap();
        assert!(report.max_abs_error < 1e-5, "{report:?}");
        let wrong = dump("dit_plain", |_| None, &inputs(&x + &velocity));
        let report = dit(&wrong.path().join("dump.safetensors"), &OPTIONS).unwrap();
        assert!(report.max_abs_error > 0.1, "{report:?}");
    }
}
