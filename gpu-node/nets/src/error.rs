//! Why a network could not be loaded or run.

use orfeas_torch::TorchError;

/// A failure of loading or running networks.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// libtorch failed; [`TorchError::class`] says what can be done.
    #[error(transparent)]
    Torch(#[from] TorchError),
    /// The caller asked to stop.
    #[error("the work was cancelled")]
    Cancelled,
    /// The weights do not fit the network.
    #[error(transparent)]
    Mismatch(#[from] crate::weights::Mismatch),
    /// A file of a model folder cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A model folder has its weights only as a pickle, which is never executed.
    #[error(
        "{} is a pickle and is not loaded; convert it with `orfeas-gpu-node models convert`, which reads tensors and \
         runs nothing, or in Python: load it with torch.load(…, weights_only=True), flatten {{model, vae, conditioner}} \
         to prefixed keys, and write them with safetensors.torch.save_file as model.fp16.safetensors",
        path.display()
    )]
    Pickled {
        /// The file.
        path: std::path::PathBuf,
    },
    /// A file of PyTorch's own cannot be converted.
    #[error(
        "cannot convert {}: {reason}; where you trust the file, convert it in Python: load it with \
         torch.load(…, weights_only=True), and write its tensors with safetensors.torch.save_file",
        path.display()
    )]
    NotConvertible {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        reason: String,
    },
    /// A model folder has no weights.
    #[error("{} has no model.fp16.safetensors or model.safetensors", folder.display())]
    NoWeights {
        /// The folder.
        folder: std::path::PathBuf,
    },
    /// A weights file is not a whole model's.
    #[error("{} has no tensors under model, vae or conditioner", path.display())]
    NoComponents {
        /// The file.
        path: std::path::PathBuf,
    },
    /// A configuration is contradictory or out of range.
    #[error("invalid {section} configuration: {reason}")]
    Config {
        /// The section of `config.yaml`, or the network.
        section: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A network gave values that are not numbers.
    #[error("{stage} gave values that are not finite")]
    NonFinite {
        /// The stage that gave them.
        stage: &'static str,
    },
    /// The picture is empty, or less than two pixels wide or high.
    #[error("the picture has no subject")]
    NoSubject,
    /// A field has no surface.
    #[error("the field does not cross {level}: its values lie in {least}..={greatest}")]
    EmptyField {
        /// The least value.
        least: f64,
        /// The greatest value.
        greatest: f64,
        /// Where the surface was to be.
        level: f64,
    },
}

impl Error {
    pub(crate) fn config(section: &'static str, reason: impl Into<String>) -> Self {
        Self::Config { section, reason: reason.into() }
    }
}

/// Checks a configuration rule.
pub(crate) fn require(
    holds: bool,
    section: &'static str,
    reason: impl FnOnce() -> String,
) -> Result<(), Error> {
    if holds { Ok(()) } else { Err(Error::Config { section, reason: reason() }) }
}
