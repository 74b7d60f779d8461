//! DINOv2, the picture encoder: a vision transformer whose tokens, class token
//! included, are the denoiser's context.
//!
//! Paper: <https://arxiv.org/abs/2304.07193>. Keys as in Hugging Face's
//! `Dinov2Model`.
//!
//! Shapes: `B` batch, `g` patches to a side, `n = 1 + g²` tokens, `D` width.

use crate::Error;
use crate::error::require;
use crate::layers::{LayerNorm, Linear, Mlp, attention};
use crate::weights::Weights;
use serde::Deserialize;
use std::fmt;
use tch::{Kind, Tensor};

/// Sizes of the network, as in `config.yaml` under the encoder's `config`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Config {
    /// `D`
    pub hidden_size: i64,
    /// Attention heads.
    pub num_attention_heads: i64,
    /// Transformer layers.
    pub num_hidden_layers: i64,
    /// Width of the feed-forward layer over `D`.
    #[serde(default = "default_mlp_ratio")]
    pub mlp_ratio: f64,
    /// Side of the pictures that the position table was trained on, in pixels.
    #[serde(default = "default_image_size")]
    pub image_size: i64,
    /// Side of a patch, in pixels.
    #[serde(default = "default_patch_size")]
    pub patch_size: i64,
    /// ε of the layer norms.
    #[serde(default = "default_epsilon")]
    pub layer_norm_eps: f64,
    /// Whether queries, keys and values have a bias.
    #[serde(default = "default_true")]
    pub qkv_bias: bool,
    /// Whether the feed-forward layer is gated (DINOv2-giant).
    #[serde(default)]
    pub use_swiglu_ffn: bool,
}

fn default_mlp_ratio() -> f64 {
    4.0
}

fn default_image_size() -> i64 {
    518
}

fn default_patch_size() -> i64 {
    14
}

fn default_epsilon() -> f64 {
    1e-6
}

fn default_true() -> bool {
    true
}

impl Config {
    /// DINOv2-giant, the encoder of Hunyuan3D-2.
    pub fn giant() -> Self {
        Self {
            hidden_size: 1536,
            num_attention_heads: 24,
            num_hidden_layers: 40,
            use_swiglu_ffn: true,
            ..Self::large()
        }
    }

    /// DINOv2-large, the encoder of Hunyuan3D-2.1.
    pub fn large() -> Self {
        Self {
            hidden_size: 1024,
            num_attention_heads: 16,
            num_hidden_layers: 24,
            mlp_ratio: default_mlp_ratio(),
            image_size: default_image_size(),
            patch_size: default_patch_size(),
            layer_norm_eps: default_epsilon(),
            qkv_bias: true,
            use_swiglu_ffn: false,
        }
    }

    /// Checks sizes against each other.
    pub fn validate(&self) -> Result<(), Error> {
        let positive =
            [self.hidden_size, self.num_attention_heads, self.image_size, self.patch_size, self.mlp_size()];
        require(
            positive.iter().all(|&size| size > 0) && self.num_hidden_layers >= 0,
            "image encoder",
            || "a size is not positive".to_owned(),
        )?;
        require(self.hidden_size % self.num_attention_heads == 0, "image encoder", || {
            format!(
                "hidden_size {} is not a multiple of {} heads",
                self.hidden_size, self.num_attention_heads
            )
        })?;
        require(self.image_size % self.patch_size == 0, "image encoder", || {
            format!("image_size {} is not a multiple of patch_size {}", self.image_size, self.patch_size)
        })
    }

    /// Tokens of a square picture of `size` pixels.
    pub fn tokens(&self, size: i64) -> i64 {
        1 + (size / self.patch_size).pow(2)
    }

    fn mlp_size(&self) -> i64 {
        (self.hidden_size as f64 * self.mlp_ratio) as i64
    }

    /// Two thirds of the plain width, to the next multiple of 8: the gate has weights too.
    fn swiglu_size(&self) -> i64 {
        ((self.mlp_size() as f64 * 2.0 / 3.0) as i64 + 7) / 8 * 8
    }
}

/// The network.
#[derive(Debug)]
pub struct Dino {
    config: Config,
    cls_token: Tensor,
    /// `[1, 1 + g₀², D]` for the trained picture size.
    position_embeddings: Tensor,
    projection: (Tensor, Tensor),
    layers: Vec<Layer>,
    layernorm: LayerNorm,
}

impl Dino {
    /// Takes the weights from a scope that holds `embeddings`, `encoder` and `layernorm`.
    pub fn new(w: &Weights<'_>, config: &Config) -> Self {
        let width = config.hidden_size;
        let embeddings = w.scope("embeddings");
        let patch = embeddings.scope("patch_embeddings").scope("projection");
        let side = config.patch_size;
        if embeddings.has("mask_token") {
            // For training only; taken, so that it does not count as unexpected.
            let _ = embeddings.tensor("mask_token", &[1, width]);
        }
        Self {
            cls_token: embeddings.tensor("cls_token", &[1, 1, width]),
            position_embeddings: embeddings
                .tensor("position_embeddings", &[1, config.tokens(config.image_size), width]),
            projection: (patch.tensor("weight", &[width, 3, side, side]), patch.tensor("bias", &[width])),
            layers: (0..config.num_hidden_layers)
                .map(|i| Layer::new(&w.scope("encoder").scope("layer").scope(i), config))
                .collect(),
            layernorm: LayerNorm::new(&w.scope("layernorm"), width, config.layer_norm_eps),
            config: config.clone(),
        }
    }

    /// The network's sizes.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Normalised pictures `[B, 3, s, s]`, `s` a multiple of the patch → tokens `[B, n, D]`.
    pub fn forward(&self, pixels: &Tensor) -> Tensor {
        self.forward_traced(pixels, &mut |_, _| {})
    }

    /// As [`Self::forward`], showing the intermediate tensors.
    pub fn forward_traced(
        &self,
        pixels: &Tensor,
        trace: &mut dyn FnMut(fmt::Arguments<'_>, &Tensor),
    ) -> Tensor {
        let (batch, side) = (pixels.size()[0], self.config.patch_size);
        let (weight, bias) = (&self.projection.0, &self.projection.1);
        let patches = pixels.conv2d(weight, Some(bias), [side, side], [0, 0], [1, 1], 1);
        let grid = [patches.size()[2], patches.size()[3]];
        // [B, D, g, g] → [B, g², D]
        let patches = patches.flatten(2, 3).transpose(1, 2);
        let cls = self.cls_token.expand([batch, -1, -1], false);
        let positions = self.positions(grid);
        trace(format_args!("position_embedding"), &positions);
        let mut x = Tensor::cat(&[cls, patches], 1) + positions;
        trace(format_args!("embeddings"), &x);
        for (i, layer) in self.layers.iter().enumerate() {
            x = layer.forward(&x);
            trace(format_args!("layer{i}"), &x);
        }
        self.layernorm.forward(&x)
    }

    /// The position table for a grid of patches: as trained, or interpolated in `f32`.
    fn positions(&self, grid: [i64; 2]) -> Tensor {
        let trained = self.config.image_size / self.config.patch_size;
        if grid == [trained, trained] {
            return self.position_embeddings.shallow_clone();
        }
        let (kind, width) = (self.position_embeddings.kind(), self.config.hidden_size);
        let cls = self.position_embeddings.narrow(1, 0, 1);
        let table = self.position_embeddings.narrow(1, 1, trained * trained).to_kind(Kind::Float);
        let table = table.view([1, trained, trained, width]).permute([0, 3, 1, 2]);
        let table = table.upsample_bicubic2d(grid, false, None, None);
        let table = table.permute([0, 2, 3, 1]).reshape([1, grid[0] * grid[1], width]).to_kind(kind);
        Tensor::cat(&[cls, table], 1)
    }
}

/// A transformer layer with the norms in front and scaled residuals.
#[derive(Debug)]
struct Layer {
    heads: i64,
    norm1: LayerNorm,
    query: Linear,
    key: Linear,
    value: Linear,
    dense: Linear,
    lambda1: Tensor,
    norm2: LayerNorm,
    feed_forward: FeedForward,
    lambda2: Tensor,
}

impl Layer {
    fn new(w: &Weights<'_>, config: &Config) -> Self {
        let width = config.hidden_size;
        let attention = w.scope("attention");
        let project = |name| {
            let scope = attention.scope("attention").scope(name);
            Linear::with_bias(&scope, width, width, config.qkv_bias)
        };
        Self {
            heads: config.num_attention_heads,
            norm1: LayerNorm::new(&w.scope("norm1"), width, config.layer_norm_eps),
            query: project("query"),
            key: project("key"),
            value: project("value"),
            dense: Linear::new(&attention.scope("output").scope("dense"), width, width),
            lambda1: w.scope("layer_scale1").tensor("lambda1", &[width]),
            norm2: LayerNorm::new(&w.scope("norm2"), width, config.layer_norm_eps),
            feed_forward: FeedForward::new(&w.scope("mlp"), config),
            lambda2: w.scope("layer_scale2").tensor("lambda1", &[width]),
        }
    }

    /// `[B, n, D] → [B, n, D]`
    fn forward(&self, x: &Tensor) -> Tensor {
        let y = self.norm1.forward(x);
        // [B, n, D] → [B, H, n, d]
        let heads = |project: &Linear| {
            let size = y.size();
            project.forward(&y).view([size[0], size[1], self.heads, -1]).transpose(1, 2)
        };
        let attended = attention(&heads(&self.query), &heads(&self.key), &heads(&self.value));
        let x = x.addcmul(&self.lambda1, &self.dense.forward(&attended));
        x.addcmul(&self.lambda2, &self.feed_forward.forward(&self.norm2.forward(&x)))
    }
}

/// The feed-forward layer, plain or gated.
#[derive(Debug)]
enum FeedForward {
    Plain(Mlp),
    /// <https://arxiv.org/abs/2002.05202>
    SwiGlu {
        weights_in: Linear,
        weights_out: Linear,
    },
}

impl FeedForward {
    fn new(w: &Weights<'_>, config: &Config) -> Self {
        let width = config.hidden_size;
        if !config.use_swiglu_ffn {
            return Self::Plain(Mlp::new(w, ("fc1", "fc2"), width, config.mlp_size()));
        }
        let hidden = config.swiglu_size();
        Self::SwiGlu {
            weights_in: Linear::new(&w.scope("weights_in"), width, 2 * hidden),
            weights_out: Linear::new(&w.scope("weights_out"), hidden, width),
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        match self {
            Self::Plain(mlp) => mlp.forward(x),
            Self::SwiGlu { weights_in, weights_out } => {
                let halves = weights_in.forward(x).chunk(2, -1);
                weights_out.forward(&(halves[0].silu() * &halves[1]))
            }
        }
    }
}
