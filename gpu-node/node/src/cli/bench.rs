//! `bench`: times the networks, on the tensors of a file or on random weights of the published sizes, and prints
//! JSON, one line for each measured thing.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, ValueEnum};
use orfeas_nets::bench::{self, Options};
use orfeas_nets::checkpoint::default_kind;
use orfeas_nets::synthetic;
use orfeas_nets::volume::CPU_CHUNK_POINTS;
use orfeas_torch::{Backend, DeviceChoice};
use tch::{Device, Kind};

use distance::surface_distance;

mod distance;

/// Points to a call on a device, where larger calls are better.
const DEVICE_CHUNK_POINTS: i64 = 1 << 16;

#[derive(Debug, Args)]
pub(super) struct Bench {
    /// What to time
    workload: Workload,
    /// Weights, inputs and results, in the form that the networks' documentation gives; not for gpu
    #[arg(long, value_name = "FILE", required_if_eq_any([
        ("workload", "dit"), ("workload", "volume"), ("workload", "coarse"),
    ]))]
    dump: Option<PathBuf>,
    /// CPU threads of the tensor library
    #[arg(long, default_value_t = 1)]
    threads: i32,
    /// Repetitions, after one that does not count
    #[arg(long, default_value_t = 5)]
    reps: usize,
    /// Inference device: auto, cpu, cuda or cuda:N [default: cpu; for gpu, auto]
    #[arg(long)]
    device: Option<DeviceChoice>,
    /// Element type [default: f32 on the CPU, f16 elsewhere; for gpu, f16 and bf16]
    #[arg(long)]
    dtype: Option<ElementType>,
    /// Cells to a side, for coarse
    #[arg(long, default_value_t = 256)]
    octree: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Workload {
    /// One guided denoising step
    Dit,
    /// Latents to a dense grid
    Volume,
    /// Coarse-to-fine beside dense decoding, and how far apart their surfaces are
    Coarse,
    /// Whole models of the published sizes, on random weights; needs an accelerator
    Gpu,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ElementType {
    F32,
    F16,
    Bf16,
}

impl ElementType {
    fn kind(self) -> Kind {
        match self {
            Self::F32 => Kind::Float,
            Self::F16 => Kind::Half,
            Self::Bf16 => Kind::BFloat16,
        }
    }
}

impl Bench {
    pub(super) fn run(self) -> anyhow::Result<()> {
        tch::set_num_threads(self.threads);
        let usual = if self.workload == Workload::Gpu { DeviceChoice::Auto } else { DeviceChoice::Cpu };
        let device = Backend::load(None)?.device(self.device.unwrap_or(usual))?;
        match &self.dump {
            Some(dump) if self.workload != Workload::Gpu => {
                self.dump(dump, device).with_context(|| format!("cannot time {}", dump.display()))
            }
            _ => self.gpu(device),
        }
    }

    fn dump(&self, dump: &Path, device: Device) -> anyhow::Result<()> {
        let kind = self.dtype.map_or(default_kind(device), ElementType::kind);
        let chunk_points = if device == Device::Cpu { CPU_CHUNK_POINTS } else { DEVICE_CHUNK_POINTS };
        let options = Options { reps: self.reps, device, kind, chunk_points };
        let line = match self.workload {
            Workload::Coarse => {
                let report = bench::coarse(dump, &options, self.octree)?;
                let (dense, coarse) = &report.volumes;
                let mut line = serde_json::to_value(&report)?;
                line["hausdorff_cells"] = surface_distance(dense, coarse)?.into();
                line.to_string()
            }
            Workload::Dit => serde_json::to_string(&bench::dit(dump, &options)?)?,
            Workload::Volume | Workload::Gpu => serde_json::to_string(&bench::volume(dump, &options)?)?,
        };
        println!("{line}");
        Ok(())
    }

    fn gpu(&self, device: Device) -> anyhow::Result<()> {
        if device == Device::Cpu {
            println!("{}", serde_json::json!({ "workload": "gpu", "skipped": "there is no accelerator" }));
            return Ok(());
        }
        let kinds = self.dtype.map_or_else(|| vec![Kind::Half, Kind::BFloat16], |dtype| vec![dtype.kind()]);
        for (name, config) in [("v2-0", synthetic::v2_0()), ("v2-mini", synthetic::v2_mini())] {
            for &kind in &kinds {
                let report = bench::device(name, &config, device, kind, self.reps);
                let report = report.with_context(|| format!("cannot time {name} in {kind:?}"))?;
                println!("{}", serde_json::to_string(&report)?);
            }
        }
        Ok(())
    }
}
