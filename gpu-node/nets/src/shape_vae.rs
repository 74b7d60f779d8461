//! The decoder half of Hunyuan3D-2's ShapeVAE: latent tokens to field tokens.
//!
//! Paper: Hunyuan3D 2.0, <https://arxiv.org/abs/2501.12202>, §3.1; the set
//! representation is 3DShape2VecSet's, <https://arxiv.org/abs/2301.11445>.
//! What the tokens mean as a field in space is [`crate::geo_decoder`]'s.
//!
//! Shapes: `B` batch, `L` latent tokens, `C` latent channels, `W` width, `H`
//! heads, `d = W/H`.

use crate::Error;
use crate::error::require;
use crate::geo_decoder::{Field, GeoDecoder};
use crate::layers::{LayerNorm, Linear, Mlp, attention};
use crate::weights::Weights;
use serde::Deserialize;
use std::fmt;
use tch::{Device, Kind, Tensor};

const EPSILON: f64 = 1e-6;

/// Sizes of the network, as in `config.yaml` under `vae.params`. What a file
/// leaves out has the class's defaults, which are not the published models' values.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Config {
    /// `L`
    pub num_latents: i64,
    /// `C`
    pub embed_dim: i64,
    /// Octaves of the Fourier features of a point.
    #[serde(default = "default_num_freqs")]
    pub num_freqs: i64,
    /// Whether the octaves start at π instead of 1.
    #[serde(default = "default_true")]
    pub include_pi: bool,
    /// `H`
    pub heads: i64,
    /// `W`
    pub width: i64,
    /// Blocks of the transformer.
    pub num_decoder_layers: i64,
    /// Whether `c_qkv`, `c_q` and `c_kv` have a bias.
    #[serde(default = "default_true")]
    pub qkv_bias: bool,
    /// Whether queries and keys are normalised.
    #[serde(default)]
    pub qk_norm: bool,
    /// Latents are divided by it before decoding.
    #[serde(default = "default_scale_factor")]
    pub scale_factor: f64,
    /// MLP ratio of the geo decoder.
    #[serde(default = "default_mlp_expand_ratio")]
    pub geo_decoder_mlp_expand_ratio: i64,
    /// By how much the geo decoder is narrower than `W` (2 in the turbo decoder).
    #[serde(default = "default_downsample_ratio")]
    pub geo_decoder_downsample_ratio: i64,
    /// Whether the geo decoder ends in a layer norm. Without it, its `qk_norm` is off too.
    #[serde(default = "default_true")]
    pub geo_decoder_ln_post: bool,
}

fn default_true() -> bool {
    true
}

fn default_num_freqs() -> i64 {
    8
}

fn default_scale_factor() -> f64 {
    1.0
}

fn default_mlp_expand_ratio() -> i64 {
    4
}

fn default_downsample_ratio() -> i64 {
    1
}

impl Config {
    /// `hunyuan3d-vae-v2-0`.
    pub fn v2_0() -> Self {
        Self {
            num_latents: 3072,
            embed_dim: 64,
            num_freqs: 8,
            include_pi: false,
            heads: 16,
            width: 1024,
            num_decoder_layers: 16,
            qkv_bias: false,
            qk_norm: true,
            scale_factor: 0.999_094_304_262_252_9,
            geo_decoder_mlp_expand_ratio: 4,
            geo_decoder_downsample_ratio: 1,
            geo_decoder_ln_post: true,
        }
    }

    /// `hunyuan3d-vae-v2-mini`.
    pub fn v2_mini() -> Self {
        Self { num_latents: 512, scale_factor: 1.018_813_714_239_540_4, ..Self::v2_0() }
    }

    /// With the small geo decoder of the `-turbo` VAEs.
    pub fn turbo(self) -> Self {
        Self {
            geo_decoder_mlp_expand_ratio: 1,
            geo_decoder_downsample_ratio: 2,
            geo_decoder_ln_post: false,
            ..self
        }
    }

    /// Checks sizes against each other.
    pub fn validate(&self) -> Result<(), Error> {
        let positive = [
            self.num_latents,
            self.embed_dim,
            self.heads,
            self.width,
            self.geo_decoder_mlp_expand_ratio,
            self.geo_decoder_downsample_ratio,
        ];
        require(positive.iter().all(|&size| size > 0), "vae", || "a size is not positive".to_owned())?;
        require(self.num_decoder_layers >= 0 && (0..=32).contains(&self.num_freqs), "vae", || {
            "num_decoder_layers or num_freqs is out of range".to_owned()
        })?;
        let ratio = self.geo_decoder_downsample_ratio;
        require(
            self.width % self.heads == 0 && self.heads % ratio == 0 && self.width % ratio == 0,
            "vae",
            || {
                format!(
                    "width {}, heads {} and downsample ratio {ratio} do not divide",
                    self.width, self.heads
                )
            },
        )?;
        require(self.scale_factor.is_finite() && self.scale_factor > 0.0, "vae", || {
            format!("scale_factor is {}", self.scale_factor)
        })
    }
}

/// Whether a checkpoint may have a key that decoding has no use for.
pub fn is_encoder_key(key: &str) -> bool {
    key.starts_with("encoder.") || key.starts_with("pre_kl.")
}

/// The network.
#[derive(Debug)]
pub struct ShapeVae {
    config: Config,
    post_kl: Linear,
    blocks: Vec<Block>,
    geo_decoder: GeoDecoder,
}

impl ShapeVae {
    /// Takes the weights from a scope that holds `post_kl`, `transformer` and `geo_decoder`.
    pub fn new(w: &Weights<'_>, config: &Config) -> Self {
        let blocks = w.scope("transformer").scope("resblocks");
        Self {
            post_kl: Linear::new(&w.scope("post_kl"), config.embed_dim, config.width),
            blocks: (0..config.num_decoder_layers).map(|i| Block::new(&blocks.scope(i), config)).collect(),
            // Small, and run for every chunk of points.
            geo_decoder: GeoDecoder::new(&w.scope("geo_decoder").in_kind(field_kind(w)).converted(), config),
            config: config.clone(),
        }
    }

    /// The network's sizes.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The part that evaluates the field.
    pub fn geo_decoder(&self) -> &GeoDecoder {
        &self.geo_decoder
    }

    /// Latents as the denoiser gives them, `[B, L, C] → [B, L, W]`.
    pub fn decode(&self, latents: &Tensor) -> Tensor {
        self.decode_traced(latents, &mut |_, _| {})
    }

    /// As [`Self::decode`], showing the intermediate tensors.
    pub fn decode_traced(
        &self,
        latents: &Tensor,
        trace: &mut dyn FnMut(fmt::Arguments<'_>, &Tensor),
    ) -> Tensor {
        let unscaled = latents / self.config.scale_factor;
        trace(format_args!("unscaled"), &unscaled);
        let mut x = self.post_kl.forward(&unscaled);
        trace(format_args!("post_kl"), &x);
        for (i, block) in self.blocks.iter().enumerate() {
            x = block.forward(&x);
            trace(format_args!("resblock{i}"), &x);
        }
        x
    }

    /// The field of one shape's tokens `[1, L, W]`.
    pub fn field(&self, tokens: &Tensor) -> Field<'_> {
        self.geo_decoder.field(tokens)
    }
}

/// The type of the field. The eight bits of bf16 say too little about where a surface lies: it comes out rough. f16 has
/// three more, and its range is enough, as the published weights are of that type.
fn field_kind(w: &Weights<'_>) -> Kind {
    if w.kind() == Kind::BFloat16 && w.device() != Device::Cpu { Kind::Half } else { w.kind() }
}

/// A transformer block with the norms in front.
#[derive(Debug)]
struct Block {
    heads: i64,
    ln_1: LayerNorm,
    c_qkv: Linear,
    qk_norm: Option<(LayerNorm, LayerNorm)>,
    c_proj: Linear,
    ln_2: LayerNorm,
    mlp: Mlp,
}

impl Block {
    fn new(w: &Weights<'_>, config: &Config) -> Self {
        let width = config.width;
        let attn = w.scope("attn");
        Self {
            heads: config.heads,
            ln_1: LayerNorm::new(&w.scope("ln_1"), width, EPSILON),
            c_qkv: Linear::with_bias(&attn.scope("c_qkv"), width, 3 * width, config.qkv_bias),
            qk_norm: config.qk_norm.then(|| qk_norm(&attn, width / config.heads)),
            c_proj: Linear::new(&attn.scope("c_proj"), width, width),
            ln_2: LayerNorm::new(&w.scope("ln_2"), width, EPSILON),
            mlp: Mlp::new(&w.scope("mlp"), ("c_fc", "c_proj"), width, 4 * width),
        }
    }

    /// `[B, L, W] → [B, L, W]`
    fn forward(&self, x: &Tensor) -> Tensor {
        let size = x.size();
        // [B, L, 3W], laid out [H][3][d] → three of [B, H, L, d]
        let qkv = self.c_qkv.forward(&self.ln_1.forward(x));
        let qkv = qkv.view([size[0], size[1], self.heads, 3, size[2] / self.heads]).permute([3, 0, 2, 1, 4]);
        let (mut q, mut k, v) = (qkv.get(0), qkv.get(1), qkv.get(2));
        if let Some((q_norm, k_norm)) = &self.qk_norm {
            (q, k) = (q_norm.forward(&q), k_norm.forward(&k));
        }
        let x = x + self.c_proj.forward(&attention(&q, &k, &v));
        let y = self.mlp.forward(&self.ln_2.forward(&x));
        x + y
    }
}

/// The norms of queries and keys, over the head.
pub(crate) fn qk_norm(attn: &Weights<'_>, head_dim: i64) -> (LayerNorm, LayerNorm) {
    let norm = |name| LayerNorm::new(&attn.scope("attention").scope(name), head_dim, EPSILON);
    (norm("q_norm"), norm("k_norm"))
}
