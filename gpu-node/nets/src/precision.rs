//! In which type a model computes, as an operator names it.

use std::fmt;
use std::str::FromStr;
use tch::{Device, Kind};

/// The type of activations, and of weights on an accelerator.
///
/// On the CPU weights stay mapped in their file's type whatever this says, and
/// each is converted while its layer runs; so `fp32` there takes no more memory
/// than the file, and half types, which CPUs compute slowly, gain little.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Precision {
    /// `fp16` on an accelerator, `fp32` on the CPU.
    #[default]
    Auto,
    /// Single precision.
    Fp32,
    /// IEEE half precision: the published files' type.
    Fp16,
    /// Half the width of `fp32` with its range.
    Bf16,
}

/// A text that names no precision.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a precision: expected auto, fp32, fp16 or bf16")]
pub struct ParsePrecisionError(String);

impl Precision {
    /// The type on a device.
    pub fn kind(self, device: Device) -> Kind {
        match self {
            Self::Auto if device == Device::Cpu => Kind::Float,
            Self::Auto | Self::Fp16 => Kind::Half,
            Self::Fp32 => Kind::Float,
            Self::Bf16 => Kind::BFloat16,
        }
    }
}

impl FromStr for Precision {
    type Err = ParsePrecisionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "fp32" => Ok(Self::Fp32),
            "fp16" => Ok(Self::Fp16),
            "bf16" => Ok(Self::Bf16),
            _ => Err(ParsePrecisionError(text.chars().take(32).collect())),
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Fp32 => "fp32",
            Self::Fp16 => "fp16",
            Self::Bf16 => "bf16",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_others_are_refused() {
        for name in ["auto", "fp32", "fp16", "bf16"] {
            assert_eq!(name.parse::<Precision>().unwrap().to_string(), name);
        }
        assert!("f16".parse::<Precision>().is_err());
    }

    #[test]
    fn auto_is_single_on_the_cpu_and_half_elsewhere() {
        assert_eq!(Precision::Auto.kind(Device::Cpu), Kind::Float);
        assert_eq!(Precision::Auto.kind(Device::Cuda(0)), Kind::Half);
        assert_eq!(Precision::Bf16.kind(Device::Cpu), Kind::BFloat16);
    }
}
