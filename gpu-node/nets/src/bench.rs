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
//! `coarse` takes a `volume` file, at any resolution; `device` takes no file: it
//! times whole models of the published sizes on random weights.
//!
//! Sizes are read off the tensors and the header's `config` where there is one;
//! what neither says has the values of the agreed files.

mod device;
mod dump;

use crate::Error;
use crate::sampling::Denoiser;
use crate::volume::{self, DEFAULT_BOUND, Method, Request};
use crate::watch::Unwatched;
use dump::Dump;
use orfeas_torch::{TorchError, attempt};
use serde::Serialize;
use std::path::Path;
use std::time::Instant;
use tch::{Device, Kind, Tensor};

pub use device::{DeviceReport, device};

/// The step that is timed.
const TIME: f32 = 0.25;
const STEP: f64 = 0.02;
const GUIDANCE_SCALE: f64 = 5.0;

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
    let dit = dump.dit(options)?;
    let (x, context) = (dump.input("in.x", options)?, dump.input("in.context", options)?);
    let expected = dump.file.view("out.step")?;
    measure("dit", options, &[expected], || {
        Ok(vec![attempt(|| &x + dit.prepare(&context, GUIDANCE_SCALE)(&x, TIME) * STEP)?])
    })
}

/// Latents to a dense grid.
pub fn volume(dump: &Path, options: &Options) -> Result<Report, Error> {
    let dump = Dump::open(dump)?;
    let vae = dump.vae(options)?;
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

/// Dense and coarse-to-fine decoding of one field.
#[derive(Debug, Serialize)]
pub struct CoarseReport {
    /// `coarse`.
    pub workload: &'static str,
    /// Cells to a side.
    pub resolution: i64,
    /// Threads of a tensor operation.
    pub threads: i32,
    /// Wall seconds of dense decoding, once.
    pub dense_seconds: f64,
    /// Median wall seconds of coarse-to-fine decoding.
    pub coarse_seconds: f64,
    /// The first over the second.
    pub speedup: f64,
    /// Points that coarse-to-fine decoding evaluates.
    pub evaluated_points: u64,
    /// Both grids, for a comparison of their surfaces: dense, and coarse to fine.
    #[serde(skip)]
    pub volumes: (volume::Volume, volume::Volume),
}

/// Coarse-to-fine beside dense decoding of a `volume` file's field, at another resolution.
pub fn coarse(dump: &Path, options: &Options, resolution: i64) -> Result<CoarseReport, Error> {
    /// As the pipeline has it.
    const MIN_RESOLUTION: i64 = 64;
    let _no_grad = tch::no_grad_guard();
    let dump = Dump::open(dump)?;
    let vae = dump.vae(options)?;
    let z = dump.input("in.z", options)?;
    let tokens = attempt(|| vae.decode(&z))?;
    let field = attempt(|| vae.field(&tokens))?;
    let decode = |method| {
        let chunk_points = options.chunk_points;
        let request = Request { bound: DEFAULT_BOUND, resolution, level: 0.0, chunk_points, method };
        let start = Instant::now();
        let volume = volume::decode(&field, &request, &mut Unwatched)?;
        Ok::<_, Error>((start.elapsed().as_secs_f64(), volume))
    };
    let hierarchical = || decode(Method::Hierarchical { min_resolution: MIN_RESOLUTION });
    let (_, fine) = hierarchical()?;
    let mut seconds = Vec::new();
    for _ in 0..options.reps.max(1) {
        seconds.push(hierarchical()?.0);
    }
    seconds.sort_by(f64::total_cmp);
    let coarse_seconds = median(&seconds);
    let (dense_seconds, dense) = decode(Method::Dense)?;
    Ok(CoarseReport {
        workload: "coarse",
        resolution,
        threads: tch::get_num_threads(),
        dense_seconds,
        coarse_seconds,
        speedup: dense_seconds / coarse_seconds,
        evaluated_points: fine.evaluated_points,
        volumes: (dense, fine),
    })
}

/// Of sorted values, at least one.
fn median(sorted: &[f64]) -> f64 {
    let middle = |i: usize| sorted.get(i).copied().unwrap_or(f64::NAN);
    (middle(sorted.len().saturating_sub(1) / 2) + middle(sorted.len() / 2)) / 2.0
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
        median_seconds: median(&seconds),
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

#[cfg(test)]
mod tests;
