//! Whole models of the published sizes on an accelerator, on random weights.

use super::{GUIDANCE_SCALE, TIME, median};
use crate::checkpoint::Networks;
use crate::config::Config;
use crate::footprint::{self, Job};
use crate::geo_decoder::Field;
use crate::sampling::{Denoiser, Start, noise, sample};
use crate::synthetic::Synthetic;
use crate::volume::{self, DEFAULT_BOUND, Method, Request, chunk_points};
use crate::watch::Unwatched;
use crate::{Error, weights};
use orfeas_torch::{attempt, memory};
use serde::Serialize;
use std::time::Instant;
use tch::{Device, Kind, Tensor};

/// Denoising steps of a whole run.
const STEPS: u32 = 50;
/// Cells to a side in a whole run.
const RESOLUTION: i64 = 256;
/// Cells to a side in the finest preset.
const FINEST: i64 = 384;

/// Times and memory of one model in one type.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DeviceReport {
    /// `gpu`.
    pub workload: &'static str,
    /// Which sizes.
    pub model: String,
    /// The type in which it computed.
    pub kind: String,
    /// Seconds to encode one picture.
    pub encode_seconds: f64,
    /// Median seconds of a guided denoising step.
    pub step_seconds: f64,
    /// Seconds from latents to the field's tokens.
    pub tokens_seconds: f64,
    /// Seconds to decode a grid coarse to fine, by its cells to a side.
    pub decode_seconds: Vec<(i64, f64)>,
    /// Seconds from a prepared picture to the grid of the balanced preset: encoding, [`STEPS`] steps, tokens, and
    /// [`RESOLUTION`] cells to a side.
    pub whole_seconds: f64,
    /// Points of the field evaluated at once.
    pub chunk_points: i64,
    /// Device memory of the weights.
    pub weights_bytes: u64,
    /// The most device memory that the footprint says.
    pub estimated_peak_bytes: u64,
    /// The most device memory that tensors took.
    pub peak_allocated_bytes: u64,
    /// The most that the allocator held.
    pub peak_reserved_bytes: u64,
}

/// Runs a model of random weights through its stages.
///
/// # Errors
/// The device has no such memory, or is none that is measured.
pub fn device(
    model: &str,
    config: &Config,
    device: Device,
    kind: Kind,
    reps: usize,
) -> Result<DeviceReport, Error> {
    let _no_grad = tch::no_grad_guard();
    memory::empty_cache(device)?;
    let before = memory::stats(device)?.allocated_bytes;
    let source = Synthetic::of(config)?;
    let networks = weights::load(&source, "", (device, kind), |_| false, |w| Networks::new(w, config))?;
    let weights_bytes = memory::stats(device)?.allocated_bytes.saturating_sub(before);
    memory::reset_peak(device)?;

    let side = config.picture.size as i64;
    let image = attempt(|| Tensor::rand([1, 3, side, side], (Kind::Float, device)) * 2.0 - 1.0)?;
    let encode = || networks.conditioner.encode(&image);
    let context = encode()?;
    let encode_seconds = timed(device, || encode().map(drop))?;

    let latents = noise(1, &[1, config.vae.num_latents, config.vae.embed_dim])?;
    let latents = attempt(|| latents.to_device(device).to_kind(kind))?;
    let velocity = attempt(|| networks.denoiser.prepare(&context, GUIDANCE_SCALE))?;
    let step = || Ok(attempt(|| drop(velocity(&latents, TIME)))?);
    timed(device, step)?;
    let mut steps = Vec::new();
    for _ in 0..reps.max(1) {
        steps.push(timed(device, step)?);
    }
    steps.sort_by(f64::total_cmp);

    let tokens = || Ok(attempt(|| networks.vae.decode(&latents))?);
    let decoded = tokens()?;
    let tokens_seconds = timed(device, || tokens().map(drop))?;
    let field = attempt(|| networks.vae.field(&decoded))?;
    let chunk_points = chunk_points(&field, Some(memory::stats(device)?.free_bytes));
    let grid = |field: &Field<'_>, resolution| {
        let level = level(field)?;
        let method = Method::Hierarchical { min_resolution: 64 };
        let request = Request { bound: DEFAULT_BOUND, resolution, level, chunk_points, method };
        volume::decode(field, &request, &mut Unwatched).map(drop)
    };
    let mut decode_seconds = Vec::new();
    for resolution in [RESOLUTION, FINEST] {
        grid(&field, resolution)?;
        decode_seconds.push((resolution, timed(device, || grid(&field, resolution))?));
    }
    // The schedule's last step has no length, and is left out.
    let sigmas = config.schedule.sigmas(STEPS + 1);
    let noise = attempt(|| latents.to_kind(Kind::Float))?;
    let whole_seconds = timed(device, || {
        let context = encode()?;
        let start =
            Start { noise: &noise, context: &context, sigmas: &sigmas, guidance_scale: GUIDANCE_SCALE };
        let latents = sample(&networks.denoiser, &start, &mut Unwatched)?;
        let field = attempt(|| networks.vae.field(&networks.vae.decode(&latents.to_kind(kind))))?;
        grid(&field, RESOLUTION)
    })?;
    let stats = memory::stats(device)?;
    let finest = Job { batch: 1, views: 1, views_at_once: 1, resolution: FINEST, chunk_points };
    let values = footprint::values_bytes(config, kind, &finest);
    Ok(DeviceReport {
        workload: "gpu",
        model: model.to_owned(),
        kind: format!("{kind:?}"),
        encode_seconds,
        step_seconds: median(&steps),
        tokens_seconds,
        decode_seconds,
        whole_seconds,
        chunk_points,
        weights_bytes,
        estimated_peak_bytes: weights_bytes + values.into_iter().max().unwrap_or(0),
        peak_allocated_bytes: stats.peak_allocated_bytes,
        peak_reserved_bytes: stats.peak_reserved_bytes,
    })
}

/// Random weights have their surface anywhere: the level is where a tenth of the cube is inside.
fn level(field: &Field<'_>) -> Result<f64, Error> {
    Ok(attempt(|| {
        let points = Tensor::rand([1, 8192, 3], (Kind::Float, field.device()));
        let points = points * (2.0 * DEFAULT_BOUND) - DEFAULT_BOUND;
        field.logits(&points).quantile_scalar(0.9, None, false, "linear").double_value(&[])
    })?)
}

fn timed(device: Device, work: impl FnOnce() -> Result<(), Error>) -> Result<f64, Error> {
    memory::synchronize(device)?;
    let start = Instant::now();
    work()?;
    memory::synchronize(device)?;
    Ok(start.elapsed().as_secs_f64())
}
