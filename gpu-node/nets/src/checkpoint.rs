//! A published model folder: `config.yaml` beside `model[.variant].safetensors`.
//!
//! ```text
//! model.*        the denoiser
//! vae.*          the shape decoder (an encoder may be there, and is left alone)
//! conditioner.*  the picture encoder
//! ```
//!
//! Pickled checkpoints (`.ckpt`) are never read: unpickling runs code.

use crate::Error;
use crate::conditioner::Conditioner;
use crate::config::{Config, Model};
use crate::dit21::Dit21;
use crate::footprint::{Footprint, Job};
use crate::hunyuan_dit::HunyuanDit;
use crate::precision::Precision;
use crate::residence::Residence;
use crate::sampling::{Denoiser, Velocity};
use crate::shape_vae::{self, ShapeVae, is_encoder_key};
use crate::weights::{self, TensorSource, Weights};
use orfeas_torch::WeightsFile;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use tch::{Device, Kind, Tensor};

const CONFIG_FILE: &str = "config.yaml";
/// In the order of preference.
const WEIGHTS_FILES: [&str; 3] = ["model.fp16.safetensors", "model.safetensors", "model.bf16.safetensors"];
const COMPONENTS: [&str; 3] = ["model", "vae", "conditioner"];

/// An open model folder. Nothing but the header of its weights has been read.
#[derive(Debug)]
pub struct Checkpoint {
    /// What the model is made of.
    pub config: Config,
    weights: WeightsFile,
}

/// All networks of a model, loaded at once; [`crate::residence`] decides which of them stay.
#[derive(Debug)]
pub struct Networks {
    /// Pictures to context.
    pub conditioner: Conditioner,
    /// Context and noise to latents.
    pub denoiser: AnyDenoiser,
    /// Latents to a field.
    pub vae: ShapeVae,
}

impl Networks {
    /// Takes the weights from a scope that holds `conditioner`, `model` and `vae`.
    pub fn new(w: &Weights<'_>, config: &Config) -> Self {
        Self {
            conditioner: Conditioner::new(&w.scope("conditioner"), &config.conditioner),
            denoiser: AnyDenoiser::new(&w.scope("model"), &config.model),
            vae: ShapeVae::new(&w.scope("vae"), &config.vae),
        }
    }
}

/// The denoiser of either release.
#[derive(Debug)]
pub enum AnyDenoiser {
    /// Hunyuan3D-2's.
    Hunyuan(HunyuanDit),
    /// Hunyuan3D-2.1's.
    Plain(Dit21),
}

impl AnyDenoiser {
    fn new(w: &Weights<'_>, config: &Model) -> Self {
        match config {
            Model::Hunyuan(config) => Self::Hunyuan(HunyuanDit::new(w, config)),
            Model::Plain(config) => Self::Plain(Dit21::new(w, config)),
        }
    }
}

impl Denoiser for AnyDenoiser {
    fn prepare<'a>(&'a self, context: &Tensor, guidance_scale: f64) -> Velocity<'a> {
        match self {
            Self::Hunyuan(dit) => dit.prepare(context, guidance_scale),
            Self::Plain(dit) => dit.prepare(context, guidance_scale),
        }
    }
}

/// What a folder holds, for an operator.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// The weights file.
    pub weights: PathBuf,
    /// Its length.
    pub file_bytes: u64,
    /// Parameters of each component.
    pub parameters: BTreeMap<String, u64>,
    /// Element types, with how many parameters have each.
    pub types: BTreeMap<String, u64>,
}

impl Checkpoint {
    /// Opens a folder.
    ///
    /// # Errors
    /// The configuration or the weights are missing, unreadable or contradictory;
    /// [`Error::Pickled`] if the weights are there only as a pickle.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let config = Config::read(&folder.join(CONFIG_FILE))?;
        let path = WEIGHTS_FILES.iter().map(|name| folder.join(name)).find(|path| path.is_file());
        let Some(path) = path else {
            return Err(match pickled(folder) {
                Some(path) => Error::Pickled { path },
                None => Error::NoWeights { folder: folder.to_owned() },
            });
        };
        Ok(Self { config, weights: WeightsFile::open(&path)? })
    }

    /// Whether a folder looks like a model.
    pub fn is_at(folder: &Path) -> bool {
        folder.join(CONFIG_FILE).is_file()
    }

    /// The weights file.
    pub fn weights(&self) -> &WeightsFile {
        &self.weights
    }

    /// Sizes and types, from the header.
    pub fn summary(&self) -> Summary {
        let mut parameters: BTreeMap<String, u64> = BTreeMap::new();
        let mut types: BTreeMap<String, u64> = BTreeMap::new();
        for (key, info) in self.weights.tensors() {
            let count = info.shape.iter().product::<i64>().unsigned_abs();
            let component = key.split('.').next().unwrap_or_default();
            *parameters.entry(component.to_owned()).or_default() += count;
            let kind = info.kind.map_or_else(|name| name, |kind| format!("{kind:?}"));
            *types.entry(kind).or_default() += count;
        }
        let (weights, file_bytes) = (self.weights.path().to_owned(), self.weights.file_bytes());
        Summary { weights, file_bytes, parameters, types }
    }

    /// A name for what the folder holds: a digest of the configuration, the
    /// weights' header, and samples of the weights. Reading all of a 5 GB file
    /// would take longer than loading it.
    pub fn fingerprint(&self) -> Result<String, Error> {
        const SAMPLES: u64 = 64;
        const SAMPLE_BYTES: usize = 4096;
        let path = self.weights.path();
        let cannot_read = |source| Error::Read { path: path.to_owned(), source };
        let mut digest = Sha256::new();
        let config = path.with_file_name(CONFIG_FILE);
        digest.update(std::fs::read(&config).map_err(|source| Error::Read { path: config, source })?);
        for (key, info) in self.weights.tensors() {
            digest.update(format!("{key} {:?} {:?};", info.shape, info.kind));
        }
        let file = File::open(path).map_err(cannot_read)?;
        // From the first byte to the last, evenly.
        let last = self.weights.file_bytes().saturating_sub(SAMPLE_BYTES as u64);
        let mut sample = vec![0; SAMPLE_BYTES.min(self.weights.file_bytes() as usize)];
        for i in 0..SAMPLES {
            file.read_exact_at(&mut sample, last * i / (SAMPLES - 1)).map_err(cannot_read)?;
            digest.update(&sample);
        }
        Ok(digest.finalize()[..6].iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// Loads everything; what does not fit is listed in one error.
    pub fn load(&self, device: Device, kind: Kind) -> Result<Networks, Error> {
        let ignored = |key: &str| key.strip_prefix("vae.").is_some_and(is_encoder_key);
        let networks =
            weights::load(&self.weights, "", (device, kind), ignored, |w| Networks::new(w, &self.config));
        networks.map_err(|error| self.explain(error))
    }

    /// Loads the picture encoder alone.
    pub fn load_conditioner(&self, device: Device, kind: Kind) -> Result<Conditioner, Error> {
        let config = &self.config.conditioner;
        weights::load(
            &self.weights,
            "conditioner.",
            (device, kind),
            |_| false,
            |w| Conditioner::new(w, config),
        )
    }

    /// Loads the denoiser alone.
    pub fn load_denoiser(&self, device: Device, kind: Kind) -> Result<AnyDenoiser, Error> {
        let config = &self.config.model;
        weights::load(&self.weights, "model.", (device, kind), |_| false, |w| AnyDenoiser::new(w, config))
    }

    /// Loads the shape decoder alone.
    pub fn load_vae(&self, device: Device, kind: Kind) -> Result<ShapeVae, Error> {
        let config = &self.config.vae;
        weights::load(&self.weights, "vae.", (device, kind), is_encoder_key, |w| ShapeVae::new(w, config))
    }

    /// Device memory that generation takes at its peak, with everything loaded.
    pub fn estimate_bytes(&self, kind: Kind, views: i64, chunk_points: i64) -> u64 {
        let job = Job { batch: 1, views, views_at_once: views, resolution: 256, chunk_points };
        Footprint::of(self, Device::Cuda(0), kind, &job).peak(Residence::Together)
    }

    /// A file without components is not a model's, and its mismatch lists everything.
    fn explain(&self, error: Error) -> Error {
        let has_component = self
            .weights
            .keys()
            .iter()
            .any(|key| COMPONENTS.iter().any(|component| key.starts_with(&format!("{component}."))));
        match error {
            Error::Mismatch(_) if !has_component => {
                Error::NoComponents { path: self.weights.path().to_owned() }
            }
            other => other,
        }
    }
}

/// Loads a VAE that stands in a file of its own, without a prefix.
pub fn load_vae(
    file: &WeightsFile,
    config: &shape_vae::Config,
    device: Device,
    kind: Kind,
) -> Result<ShapeVae, Error> {
    config.validate()?;
    weights::load(file, "", (device, kind), is_encoder_key, |w| ShapeVae::new(w, config))
}

fn pickled(folder: &Path) -> Option<PathBuf> {
    let names = WEIGHTS_FILES.iter().map(|name| folder.join(name).with_extension("ckpt"));
    names.into_iter().find(|path| path.is_file())
}

/// The type to compute in where nobody asks for another.
pub fn default_kind(device: Device) -> Kind {
    Precision::Auto.kind(device)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mini() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/mini_checkpoint")
    }

    /// A copy of the miniature folder whose weights are changed.
    fn damaged(change: impl FnOnce(Vec<u8>) -> Vec<u8>) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::copy(mini().join(CONFIG_FILE), folder.path().join(CONFIG_FILE)).unwrap();
        let weights = std::fs::read(mini().join(WEIGHTS_FILES[0])).unwrap();
        std::fs::write(folder.path().join(WEIGHTS_FILES[0]), change(weights)).unwrap();
        folder
    }

    fn replaced(bytes: Vec<u8>, from: &str, to: &str) -> Vec<u8> {
        assert_eq!(from.len(), to.len());
        let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
        let mut bytes = bytes;
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
        bytes
    }

    fn load_error(folder: &Path) -> Error {
        let outcome = Checkpoint::open(folder).and_then(|model| model.load(Device::Cpu, Kind::Float));
        outcome.map(|_| "it loaded").unwrap_err()
    }

    #[test]
    fn a_folder_of_the_published_layout_loads() {
        let model = Checkpoint::open(&mini()).unwrap();
        assert!(model.load(Device::Cpu, Kind::Float).is_ok());
        let summary = model.summary();
        assert_eq!(summary.types.keys().collect::<Vec<_>>(), ["Half"]);
        assert_eq!(summary.parameters.keys().collect::<Vec<_>>(), ["conditioner", "model", "vae"]);
    }

    #[test]
    fn the_fingerprint_changes_with_the_weights_and_the_configuration() {
        let fingerprint = |folder: &Path| Checkpoint::open(folder).unwrap().fingerprint().unwrap();
        let same = damaged(|weights| weights);
        assert_eq!(fingerprint(same.path()), fingerprint(&mini()));
        let last_bit = |mut weights: Vec<u8>| {
            let last = weights.len() - 1;
            weights[last] ^= 1;
            weights
        };
        let (changed, config) = (damaged(last_bit), same.path().join(CONFIG_FILE));
        assert_ne!(fingerprint(changed.path()), fingerprint(&mini()));
        let text = std::fs::read_to_string(&config).unwrap();
        std::fs::write(&config, text + "\n").unwrap();
        assert_ne!(fingerprint(same.path()), fingerprint(&mini()));
    }

    #[test]
    fn keys_that_do_not_fit_are_listed_in_one_error() {
        let folder = damaged(|weights| {
            let weights = replaced(weights, "model.latent_in.bias", "model.latent_in.bear");
            replaced(weights, "vae.post_kl.bias", "vae.post_kl.bear")
        });
        let Error::Mismatch(mismatch) = load_error(folder.path()) else { panic!("another error") };
        assert_eq!(mismatch.missing, ["model.latent_in.bias", "vae.post_kl.bias"]);
        let mut unexpected = mismatch.unexpected;
        unexpected.sort();
        assert_eq!(unexpected, ["model.latent_in.bear", "vae.post_kl.bear"]);
    }

    #[test]
    fn truncated_weights_are_one_clear_error() {
        let folder = damaged(|weights| weights[..weights.len() - 100].to_vec());
        let text = load_error(folder.path()).to_string();
        assert!(text.contains("cannot read weights") && text.contains("model.fp16.safetensors"), "{text}");
    }

    #[test]
    fn pickled_weights_are_not_read_and_the_error_says_how_to_convert() {
        let folder = damaged(|weights| weights);
        let safetensors = folder.path().join(WEIGHTS_FILES[0]);
        std::fs::rename(&safetensors, safetensors.with_extension("ckpt")).unwrap();
        let error = load_error(folder.path());
        assert!(matches!(error, Error::Pickled { .. }));
        assert!(error.to_string().contains("safetensors"), "{error}");
        std::fs::remove_file(safetensors.with_extension("ckpt")).unwrap();
        assert!(matches!(load_error(folder.path()), Error::NoWeights { .. }));
    }

    #[test]
    fn weights_without_components_are_named_as_such() {
        let folder = damaged(|_| std::fs::read(mini().with_file_name("dit21.safetensors")).unwrap());
        assert!(matches!(load_error(folder.path()), Error::NoComponents { .. }));
    }
}
