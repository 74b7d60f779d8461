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
