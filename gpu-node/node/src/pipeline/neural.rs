//! How an operator wants networks to run.

use orfeas_nets::precision::Precision;

/// When networks that are not in use leave the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Offload {
    /// Where the device has not room for all of them at once.
    #[default]
    Auto,
    /// Always: one network at a time.
    Always,
    /// Never.
    Never,
}

/// A text that says of no time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a time to offload: expected auto, always or never")]
pub struct ParseOffloadError(String);

impl std::str::FromStr for Offload {
    type Err = ParseOffloadError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "always" => Ok(Self::Always),
            "never" => Ok(Self::Never),
            _ => Err(ParseOffloadError(text.chars().take(32).collect())),
        }
    }
}

/// How the networks run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NeuralConfig {
    /// The type in which they compute.
    pub precision: Precision,
    /// When those that are not in use leave the device.
    pub offload: Offload,
    /// Gives shapes the published pipeline's scale, which is off by one cell: for comparison with its results.
    pub reference_compatible: bool,
}
