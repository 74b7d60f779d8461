//! `bench`: times a network on the tensors of a file, and prints one line of JSON.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, ValueEnum};
use orfeas_nets::bench::{self, Options};
use orfeas_nets::checkpoint::default_kind;
use orfeas_nets::volume::CPU_CHUNK_POINTS;
use orfeas_torch::{Backend, DeviceChoice};
use tch::{Device, Kind};

/// Points to a call on a device, where larger calls are better.
const DEVICE_CHUNK_POINTS: i64 = 1 << 16;

#[derive(Debug, Args)]
pub(super) struct Bench {
    /// What to time
    workload: Workload,
    /// Weights, inputs and results, in the form that the networks' documentation gives
    #[arg(long, value_name = "FILE")]
    dump: PathBuf,
    /// CPU threads of the tensor library
    #[arg(long, default_value_t = 1)]
    threads: i32,
    /// Repetitions, after one that does not count
    #[arg(long, default_value_t = 5)]
    reps: usize,
    /// Inference device: auto, cpu, cuda or cuda:N
    #[arg(long, default_value = "cpu")]
    device: DeviceChoice,
    /// Element type [default: f32 on the CPU, f16 elsewhere]
    #[arg(long)]
    dtype: Option<ElementType>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Workload {
    /// One guided denoising step
    Dit,
    /// Latents to a dense grid
    Volume,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ElementType {
    F32,
    F16,
    Bf16,
}

impl Bench {
    pub(super) fn run(self) -> anyhow::Result<()> {
        tch::set_num_threads(self.threads);
        let device = Backend::load(None)?.device(self.device)?;
        let kind = match self.dtype {
            None => default_kind(device),
            Some(ElementType::F32) => Kind::Float,
            Some(ElementType::F16) => Kind::Half,
            Some(ElementType::Bf16) => Kind::BFloat16,
        };
        let chunk_points = if device == Device::Cpu { CPU_CHUNK_POINTS } else { DEVICE_CHUNK_POINTS };
        let options = Options { reps: self.reps, device, kind, chunk_points };
        let report = match self.workload {
            Workload::Dit => bench::dit(&self.dump, &options),
            Workload::Volume => bench::volume(&self.dump, &options),
        };
        let report = report.with_context(|| format!("cannot time {}", self.dump.display()))?;
        println!("{}", serde_json::to_string(&report)?);
        Ok(())
    }
}
