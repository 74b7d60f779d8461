//! How much device memory generation takes, from the sizes alone.
//!
//! Weights are counted from the file's header; of each stage's intermediate
//! values, those that are alive at its worst moment. Formulas count tensors as
//! the forward passes make them, so a change there belongs here too
//! (`tests/memory.rs` holds both against what a process really takes).

use crate::checkpoint::Checkpoint;
use crate::config::{Config, Model};
use crate::residence::Residence;
use crate::shape_vae::is_encoder_key;
use crate::volume;
use tch::{Device, Kind};

/// What is to be generated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Job {
    /// Shapes at once.
    pub batch: i64,
    /// Pictures of each subject.
    pub views: i64,
    /// How many of them go through the picture encoder at once.
    pub views_at_once: i64,
    /// Cells to a side of the decoded grid.
    pub resolution: i64,
    /// Points of the field evaluated at once.
    pub chunk_points: i64,
}

/// Bytes of device memory, by what holds them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Footprint {
    /// Weights of the picture encoder.
    pub conditioner: u64,
    /// Weights of the denoiser.
    pub denoiser: u64,
    /// Weights of the shape decoder.
    pub vae: u64,
    /// Intermediate values of the picture encoder.
    pub encoding: u64,
    /// Intermediate values of a denoising step.
    pub denoising: u64,
    /// Intermediate values of the shape decoder, with the grid.
    pub decoding: u64,
}

impl Footprint {
    /// For a device and the type in which it computes.
    pub fn of(checkpoint: &Checkpoint, device: Device, kind: Kind, job: &Job) -> Self {
        let weights = |component: &str| component_bytes(checkpoint, component, device, kind);
        let [encoding, denoising, decoding] = values_bytes(&checkpoint.config, kind, job);
        let element = kind.elt_size_in_bytes() as u64;
        // A layer whose weight is mapped in another type is converted for as long as it runs.
        let converted = if device == Device::Cpu { largest_matrix(checkpoint) * element } else { 0 };
        Self {
            conditioner: weights("conditioner"),
            denoiser: weights("model"),
            vae: weights("vae"),
            encoding: encoding + converted,
            denoising: denoising + converted,
            decoding,
        }
    }

    /// All weights.
    pub fn weights(&self) -> u64 {
        self.conditioner + self.denoiser + self.vae
    }

    /// Bytes that stay between jobs.
    pub fn resident(&self, residence: Residence) -> u64 {
        match residence {
            Residence::Together => self.weights(),
            Residence::InTurn => 0,
        }
    }

    /// The most at one time.
    pub fn peak(&self, residence: Residence) -> u64 {
        match residence {
            Residence::Together => self.weights() + self.encoding.max(self.denoising).max(self.decoding),
            Residence::InTurn => (self.conditioner + self.encoding)
                .max(self.denoiser + self.denoising)
                .max(self.vae + self.decoding),
        }
    }

    /// How to keep the networks where this many bytes are free: together if that fits.
    pub fn residence(&self, free_bytes: u64) -> Residence {
        if self.peak(Residence::Together) <= free_bytes { Residence::Together } else { Residence::InTurn }
    }
}

/// Intermediate values of the picture encoder, of a denoising step, and of the shape decoder with the grid.
pub(crate) fn values_bytes(config: &Config, kind: Kind, job: &Job) -> [u64; 3] {
    let element = kind.elt_size_in_bytes() as u64;
    [
        encoding_values(config, job) * element,
        denoising_values(config, job) * element,
        decoding_bytes(config, kind, job),
    ]
}

fn is_used(component: &str, key: &str) -> bool {
    key.strip_prefix(component)
        .and_then(|rest| rest.strip_prefix('.'))
        .is_some_and(|rest| component != "vae" || !is_encoder_key(rest))
}

/// On the CPU weights stay as the file has them; elsewhere they are of one type.
fn component_bytes(checkpoint: &Checkpoint, component: &str, device: Device, kind: Kind) -> u64 {
    let tensors = checkpoint.weights().tensors().filter(|(key, _)| is_used(component, key));
    tensors
        .map(|(key, info)| match device {
            // Converted once, as it runs for every chunk of points.
            Device::Cpu if key.starts_with("vae.geo_decoder.") => {
                elements(&info.shape) * kind.elt_size_in_bytes() as u64
            }
            Device::Cpu => info.bytes,
            _ => elements(&info.shape) * kind.elt_size_in_bytes() as u64,
        })
        .sum()
}

fn largest_matrix(checkpoint: &Checkpoint) -> u64 {
    let half = |info: &orfeas_torch::TensorInfo| matches!(info.kind, Ok(Kind::Half | Kind::BFloat16));
    let tensors = checkpoint.weights().tensors().filter(|(_, info)| half(info));
    tensors.map(|(_, info)| elements(&info.shape)).max().unwrap_or(0)
}

fn elements(shape: &[i64]) -> u64 {
    shape.iter().product::<i64>().unsigned_abs()
}

/// Values while the picture encoder's widest layer runs.
fn encoding_values(config: &Config, job: &Job) -> u64 {
    let encoder = &config.conditioner.kwargs.config;
    let tokens = job.batch * config.conditioner.tokens(job.views.min(job.views_at_once).max(1));
    // The stream and its norm, the hidden layer before and after its activation, and the way back.
    let hidden = if encoder.use_swiglu_ffn { 8.0 / 3.0 * encoder.mlp_ratio } else { 2.0 * encoder.mlp_ratio };
    ((tokens * encoder.hidden_size) as f64 * (4.0 + hidden)) as u64
}

/// Values while the denoiser's widest block runs.
fn denoising_values(config: &Config, job: &Job) -> u64 {
    let (latents, context) = (config.vae.num_latents, config.conditioner.tokens(job.views));
    let kept = job.batch * (2 * context * config.model.context_width() + 4 * latents * config.vae.embed_dim);
    let block = match &config.model {
        Model::Hunyuan(model) => {
            let stream = (job.batch * (latents + context) * model.hidden_size) as f64;
            // A single block where it attends: the stream and its norm, the joint projection, queries and keys again,
            // the attended values in both layouts, and what normalising and attending make for themselves; or where
            // its MLP's hidden layer is added to the attended values, with the stream and the sum. The projected
            // context stays throughout.
            let attending = 2.0 + 3.0 + 2.0 + 2.0 + 2.0;
            let adding = 1.0 + 1.0 + model.mlp_ratio + 2.0;
            let context = (job.batch * context * model.hidden_size) as f64;
            stream * f64::max(attending, adding) + context
        }
        Model::Plain(model) => {
            let width = (job.batch * model.hidden_size) as f64;
            // The skips of half the blocks, and an MLP.
            (latents + 1) as f64 * width * (model.depth as f64 / 2.0 + 11.0) + context as f64 * width * 3.0
        }
    };
    kept.unsigned_abs() + block as u64
}

fn decoding_bytes(config: &Config, kind: Kind, job: &Job) -> u64 {
    /// Bytes for each point of the finest grid: its value, the interpolation it replaces an eighth of, and masks.
    const BYTES_PER_GRID_POINT: u64 = 11;
    let vae = &config.vae;
    let element = kind.elt_size_in_bytes() as u64;
    let transformer = (job.batch * vae.num_latents * vae.width).unsigned_abs() * 12 * element;
    let grid = (job.resolution + 1).pow(3).unsigned_abs() * BYTES_PER_GRID_POINT;
    // The keys and values of the field stay while chunks go through.
    let field = 3 * (vae.num_latents * vae.width).unsigned_abs() * element;
    transformer.max(field + grid + volume::decode_bytes(vae, kind, job.chunk_points))
}
