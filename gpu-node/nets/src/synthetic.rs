//! Random weights for any configuration: for benchmarks and tests, where the published weights cannot be had.
//!
//! Values have the spread of an untrained network, so that activations neither
//! vanish nor overflow a half type. The field's finest octaves are faint, as in
//! trained decoders: its surface is smooth at the scale of a grid.

use crate::Error;
use crate::checkpoint::Networks;
use crate::config::{Config, Model};
use crate::weights::{TensorSource, requests};
use crate::{conditioner, dino, hunyuan_dit, picture, schedule, shape_vae};
use orfeas_torch::{TensorInfo, TorchError, attempt};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use tch::{Device, Kind, Tensor};

/// Spread of scales around one, and of biases around zero.
const SCALE_SPREAD: f64 = 0.2;
const BIAS_SPREAD: f64 = 0.1;
/// Each octave of a point's features is this much fainter than the one before.
const OCTAVE_FALL: f64 = 0.25;

/// Random tensors under a network's keys.
#[derive(Debug)]
pub struct Synthetic {
    shapes: BTreeMap<String, Vec<i64>>,
}

impl Synthetic {
    /// The keys and shapes of a whole model.
    ///
    /// # Errors
    /// The configuration is contradictory.
    pub fn of(config: &Config) -> Result<Self, Error> {
        config.validate()?;
        let shapes = requests(|w| drop(Networks::new(w, config)))?;
        Ok(Self { shapes: shapes.into_iter().collect() })
    }

    /// Keys and shapes.
    pub fn shapes(&self) -> &BTreeMap<String, Vec<i64>> {
        &self.shapes
    }

    /// Writes the tensors as a weights file of the published form.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: &Path, kind: Kind, seed: u64) -> Result<(), Error> {
        let failed = |source| Error::Read { path: path.to_owned(), source };
        let name = match kind {
            Kind::Half => "F16",
            Kind::BFloat16 => "BF16",
            _ => "F32",
        };
        let (mut header, mut end) = (Map::new(), 0_usize);
        for (key, shape) in &self.shapes {
            let start = end;
            end += shape.iter().product::<i64>() as usize * kind.elt_size_in_bytes();
            let entry = serde_json::json!({ "dtype": name, "shape": shape, "data_offsets": [start, end] });
            header.insert(key.clone(), entry);
        }
        let mut header = Value::Object(header).to_string().into_bytes();
        header.resize(header.len().next_multiple_of(8), b' ');
        let mut out = BufWriter::new(File::create(path).map_err(failed)?);
        out.write_all(&(header.len() as u64).to_le_bytes()).map_err(failed)?;
        out.write_all(&header).map_err(failed)?;
        tch::manual_seed(seed.cast_signed());
        for key in self.shapes.keys() {
            let tensor = self.read(key, Device::Cpu, kind)?;
            let bytes = attempt(|| {
                let bytes = tensor.contiguous().view_dtype(Kind::Uint8).view(-1);
                Vec::<u8>::try_from(bytes)
            })?
            .map_err(TorchError::from)?;
            out.write_all(&bytes).map_err(failed)?;
        }
        out.flush().map_err(failed)
    }
}

impl TensorSource for Synthetic {
    fn name(&self) -> String {
        "random weights".to_owned()
    }

    fn keys(&self) -> Vec<String> {
        self.shapes.keys().cloned().collect()
    }

    fn info(&self, key: &str) -> Option<TensorInfo> {
        let shape = self.shapes.get(key)?.clone();
        Some(TensorInfo { shape, kind: Err("random".to_owned()), bytes: 0 })
    }

    fn read(&self, key: &str, device: Device, kind: Kind) -> Result<Tensor, TorchError> {
        let shape = self.shapes.get(key).cloned().unwrap_or_default();
        attempt(|| {
            let random = Tensor::randn(&shape, (Kind::Float, device));
            let tensor = match shape.as_slice() {
                [] | [_] if key.ends_with("bias") => random * BIAS_SPREAD,
                [] | [_] => random * SCALE_SPREAD + 1.0,
                [_, inputs @ ..] => {
                    let spread = (inputs.iter().product::<i64>() as f64).sqrt().recip();
                    let matrix = random * spread;
                    if key.ends_with("geo_decoder.query_proj.weight") {
                        matrix * octaves(inputs, device)
                    } else {
                        matrix
                    }
                }
            };
            tensor.to_kind(kind)
        })
    }
}

/// The weight of each of a point's features `[f]`: the point, then sines and cosines by coordinate and octave.
fn octaves(inputs: &[i64], device: Device) -> Tensor {
    let features: i64 = inputs.iter().product();
    let octaves = (features / 3 - 1) / 2;
    let weight = |feature: i64| {
        if feature < 3 { 1.0 } else { OCTAVE_FALL.powi(((feature - 3) % octaves.max(1)) as i32) as f32 }
    };
    Tensor::from_slice(&(0..features).map(weight).collect::<Vec<f32>>()).to_device(device)
}

/// `hunyuan3d-dit-v2-0`, in all its sizes.
pub fn v2_0() -> Config {
    let encoder = conditioner::EncoderConfig { config: dino::Config::giant(), image_size: 518 };
    Config {
        model: Model::Hunyuan(hunyuan_dit::Config::v2_0()),
        vae: shape_vae::Config::v2_0(),
        conditioner: conditioner::Config { kind: conditioner::EncoderKind::Single, kwargs: encoder },
        schedule: schedule::Schedule::FlowMatchEuler { shift: 1.0 },
        picture: picture::Config { size: 512, border_ratio: None },
    }
}

/// `hunyuan3d-dit-v2-mini`, in all its sizes.
pub fn v2_mini() -> Config {
    Config {
        model: Model::Hunyuan(hunyuan_dit::Config::v2_mini()),
        vae: shape_vae::Config::v2_mini(),
        ..v2_0()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Checkpoint;

    #[test]
    fn the_published_sizes_have_the_published_number_of_parameters() {
        let parameters = |config: &Config, component: &str| -> i64 {
            let source = Synthetic::of(config).unwrap();
            let shapes = source.shapes.iter().filter(|(key, _)| key.starts_with(component));
            shapes.map(|(_, shape)| shape.iter().product::<i64>()).sum()
        };
        // Millions, from the sizes of the published files.
        for (component, millions) in [("model.", 1113), ("conditioner.", 1136), ("vae.", 214)] {
            let ours = parameters(&v2_0(), component) / 1_000_000;
            assert!((ours - millions).abs() <= 1, "{component} has {ours} M");
        }
        assert_eq!(parameters(&v2_mini(), "model.") / 10_000_000, 55);
    }

    #[test]
    fn a_written_checkpoint_is_one_of_the_published_layout() {
        let yaml = include_str!("../tests/golden/mini_checkpoint/config.yaml");
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.yaml"), yaml).unwrap();
        let source = Synthetic::of(&Config::parse(yaml).unwrap()).unwrap();
        source.write(&folder.path().join("model.fp16.safetensors"), Kind::Half, 1).unwrap();
        let checkpoint = Checkpoint::open(folder.path()).unwrap();
        assert!(checkpoint.load(Device::Cpu, Kind::Float).is_ok());
        assert_eq!(
            checkpoint.weights().tensors().count(),
            109,
            "the reference's 110 but for an unused token"
        );
    }
}
