//! Sizes of the denoiser, with the published models as presets.

use crate::Error;
use crate::error::require;
use serde::Deserialize;

/// Sizes of the network, as in `config.yaml` under `model.params`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Latent channels `C`.
    pub in_channels: i64,
    /// Context channels, the conditioner's width.
    pub context_in_dim: i64,
    /// `D`
    pub hidden_size: i64,
    /// `r`
    pub mlp_ratio: f64,
    /// `H`
    pub num_heads: i64,
    /// Double-stream blocks.
    pub depth: i64,
    /// Single-stream blocks.
    pub depth_single_blocks: i64,
    /// Checked against `d`, otherwise without effect: no positions are encoded.
    pub axes_dim: Vec<i64>,
    /// Whether the `qkv` projections have a bias.
    pub qkv_bias: bool,
    /// The longest period of the time embedding (the published name hides that).
    pub time_factor: f64,
    /// Whether the guidance scale is an input, in place of a second evaluation.
    pub guidance_embed: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self::v2_0()
    }
}

impl Config {
    /// `hunyuan3d-dit-v2-0` and `hunyuan3d-dit-v2-mv`: 1.1 billion parameters.
    pub fn v2_0() -> Self {
        Self {
            in_channels: 64,
            context_in_dim: 1536,
            hidden_size: 1024,
            mlp_ratio: 4.0,
            num_heads: 16,
            depth: 16,
            depth_single_blocks: 32,
            axes_dim: vec![64],
            qkv_bias: true,
            time_factor: 1000.0,
            guidance_embed: false,
        }
    }

    /// `hunyuan3d-dit-v2-mini`: 0.6 billion parameters.
    pub fn v2_mini() -> Self {
        Self { depth: 8, depth_single_blocks: 16, ..Self::v2_0() }
    }

    /// The guidance-distilled variants, `-fast` and `-turbo`.
    pub fn distilled(self) -> Self {
        Self { guidance_embed: true, ..self }
    }

    /// Checks sizes against each other.
    pub fn validate(&self) -> Result<(), Error> {
        let positive = [self.in_channels, self.context_in_dim, self.hidden_size, self.num_heads];
        require(positive.iter().all(|&size| size > 0), "model", || "a size is not positive".to_owned())?;
        require(self.depth >= 0 && self.depth_single_blocks >= 0, "model", || {
            "a depth is negative".to_owned()
        })?;
        require(self.hidden_size % self.num_heads == 0, "model", || {
            format!("hidden_size {} is not a multiple of num_heads {}", self.hidden_size, self.num_heads)
        })?;
        require(self.axes_dim.iter().sum::<i64>() == self.head_dim(), "model", || {
            format!("axes_dim {:?} does not add up to the head size {}", self.axes_dim, self.head_dim())
        })?;
        require(self.time_factor > 1.0 && self.mlp_ratio > 0.0, "model", || {
            "time_factor or mlp_ratio is out of range".to_owned()
        })
    }

    pub(super) fn head_dim(&self) -> i64 {
        self.hidden_size / self.num_heads
    }

    pub(crate) fn mlp_size(&self) -> i64 {
        (self.hidden_size as f64 * self.mlp_ratio) as i64
    }
}
