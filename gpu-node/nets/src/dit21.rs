//! The denoiser of Hunyuan3D-2.1: a plain transformer with cross attention,
//! skip connections across its depth, and a mixture of experts in its last blocks.
//!
//! Paper: Hunyuan3D 2.1, <https://arxiv.org/abs/2506.15442>; the skips are
//! U-ViT's, <https://arxiv.org/abs/2209.12152>, the experts Switch
//! Transformers', <https://arxiv.org/abs/2101.03961>.
//!
//! Shapes: `B` batch, `L` latent tokens, `S` context tokens, `D` width, `H`
//! heads, `d = D/H`, `E` experts.

use crate::Error;
use crate::error::require;
use crate::layers::{LayerNorm, Linear, Mlp, attention, sinusoid_angles};
use crate::sampling::{Denoiser, Velocity, guide, is_guided};
use crate::weights::Weights;
use serde::Deserialize;
use std::fmt;
use tch::{Kind, Tensor};

const EPSILON: f64 = 1e-6;
const TIME_PERIOD: f64 = 10_000.0;

/// Sizes of the network, as in `config.yaml` under `model.params`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Config {
    /// Latent channels.
    pub in_channels: i64,
    /// `D`
    pub hidden_size: i64,
    /// Width of the context.
    pub context_dim: i64,
    /// Blocks.
    pub depth: i64,
    /// `H`
    pub num_heads: i64,
    /// Whether queries and keys are normalised.
    #[serde(default = "default_true")]
    pub qk_norm: bool,
    /// How: only `rms` is known.
    #[serde(default = "default_norm")]
    pub qk_norm_type: String,
    /// Whether queries, keys and values have a bias.
    #[serde(default)]
    pub qkv_bias: bool,
    /// Not supported.
    #[serde(default)]
    pub use_pos_emb: bool,
    /// Not supported.
    #[serde(default)]
    pub use_attention_pooling: bool,
    /// Not supported.
    #[serde(default)]
    pub with_decoupled_ca: bool,
    /// How many of the last blocks have experts.
    #[serde(default = "default_moe_layers")]
    pub num_moe_layers: i64,
    /// `E`
    #[serde(default = "default_experts")]
    pub num_experts: i64,
    /// Experts that a token goes to.
    #[serde(default = "default_top_k")]
    pub moe_top_k: i64,
}

fn default_true() -> bool {
    true
}

fn default_norm() -> String {
    "rms".to_owned()
}

fn default_moe_layers() -> i64 {
    6
}

fn default_experts() -> i64 {
    8
}

fn default_top_k() -> i64 {
    2
}

impl Config {
    /// `hunyuan3d-dit-v2-1`: 3 billion parameters.
    pub fn v2_1() -> Self {
        Self {
            in_channels: 64,
            hidden_size: 2048,
            context_dim: 1024,
            depth: 21,
            num_heads: 16,
            qk_norm: true,
            qk_norm_type: default_norm(),
            qkv_bias: false,
            use_pos_emb: false,
            use_attention_pooling: false,
            with_decoupled_ca: false,
            num_moe_layers: default_moe_layers(),
            num_experts: default_experts(),
            moe_top_k: default_top_k(),
        }
    }

    /// Checks sizes against each other, and that nothing unsupported is on.
    pub fn validate(&self) -> Result<(), Error> {
        let positive = [self.in_channels, self.hidden_size, self.context_dim, self.depth, self.num_heads];
        require(positive.iter().all(|&size| size > 0), "model", || "a size is not positive".to_owned())?;
        require(self.hidden_size % self.num_heads == 0 && self.hidden_size % 2 == 0, "model", || {
            format!("hidden_size {} does not divide into {} heads", self.hidden_size, self.num_heads)
        })?;
        require((0..=self.depth).contains(&self.num_moe_layers), "model", || {
            format!("num_moe_layers is {} of {} blocks", self.num_moe_layers, self.depth)
        })?;
        require((1..=self.num_experts).contains(&self.moe_top_k), "model", || {
            format!("moe_top_k is {} of {} experts", self.moe_top_k, self.num_experts)
        })?;
        let unsupported = [
            (self.use_pos_emb, "use_pos_emb"),
            (self.use_attention_pooling, "use_attention_pooling"),
            (self.with_decoupled_ca, "with_decoupled_ca"),
            (self.qk_norm && self.qk_norm_type != "rms", "qk_norm_type other than rms"),
        ];
        unsupported
            .iter()
            .try_for_each(|(on, name)| require(!on, "model", || format!("{name} is not supported")))
    }

    fn has_skip(&self, block: i64) -> bool {
        block > self.depth / 2
    }

    fn has_experts(&self, block: i64) -> bool {
        block >= self.depth - self.num_moe_layers
    }
}

/// The network.
#[derive(Debug)]
pub struct Dit21 {
    config: Config,
    x_embedder: Linear,
    t_embedder: Mlp,
    blocks: Vec<Block>,
    norm_final: LayerNorm,
    linear: Linear,
    kind: Kind,
}

impl Dit21 {
    /// Takes the weights from a scope that holds `x_embedder`, `blocks`, ….
    pub fn new(w: &Weights<'_>, config: &Config) -> Self {
        let width = config.hidden_size;
        let last = w.scope("final_layer");
        Self {
            x_embedder: Linear::new(&w.scope("x_embedder"), config.in_channels, width),
            t_embedder: Mlp::new(&w.scope("t_embedder").scope("mlp"), ("0", "2"), width, 4 * width),
            blocks: (0..config.depth).map(|i| Block::new(&w.scope("blocks").scope(i), config, i)).collect(),
            norm_final: LayerNorm::new(&last.scope("norm_final"), width, EPSILON),
            linear: Linear::new(&last.scope("linear"), width, config.in_channels),
            kind: w.kind(),
            config: config.clone(),
        }
    }

    /// The network's sizes.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// `x [B, L, C]`, `t [B]` in 0..1, `context [B, S, Cc]` → velocity `[B, L, C]`.
    pub fn forward(&self, x: &Tensor, t: &Tensor, context: &Tensor) -> Tensor {
        self.forward_traced(x, t, context, &mut |_, _| {})
    }

    /// As [`Self::forward`], showing the intermediate tensors.
    pub fn forward_traced(
        &self,
        x: &Tensor,
        t: &Tensor,
        context: &Tensor,
        trace: &mut dyn FnMut(fmt::Arguments<'_>, &Tensor),
    ) -> Tensor {
        let angles = sinusoid_angles(t, self.config.hidden_size / 2, TIME_PERIOD, 1.0);
        let embedded = Tensor::cat(&[angles.sin(), angles.cos()], -1).to_kind(self.kind);
        let time = self.t_embedder.forward(&embedded).unsqueeze(1);
        trace(format_args!("t_token"), &time);
        let x = self.x_embedder.forward(x);
        let time = time.expand([x.size()[0], -1, -1], false);
        // The time is a token, in front.
        let mut x = Tensor::cat(&[time, x], 1);
        let mut skips = Vec::new();
        for (i, block) in self.blocks.iter().enumerate() {
            let skip = if block.skip.is_some() { skips.pop() } else { None };
            x = block.forward(&x, context, skip.as_ref());
            trace(format_args!("block{i}"), &x);
            if (i as i64) < self.config.depth / 2 {
                skips.push(x.shallow_clone());
            }
        }
        let latents = x.size()[1] - 1;
        self.linear.forward(&self.norm_final.forward(&x).narrow(1, 1, latents))
    }
}

impl Denoiser for Dit21 {
    fn prepare<'a>(&'a self, context: &Tensor, guidance_scale: f64) -> Velocity<'a> {
        let context = context.shallow_clone();
        // Attention over equal tokens gives their common value, so one zero does for all of them.
        let null = is_guided(guidance_scale).then(|| context.narrow(1, 0, 1).zeros_like());
        Box::new(move |x, t| {
            let t = Tensor::from_slice(&[t]).to_device(x.device());
            let velocity = self.forward(x, &t, &context);
            match &null {
                Some(null) => guide(&velocity, &self.forward(x, &t, null), guidance_scale),
                None => velocity,
            }
        })
    }
}

#[derive(Debug)]
struct Block {
    skip: Option<(Linear, LayerNorm)>,
    norm1: LayerNorm,
    attn1: Attention,
    norm2: LayerNorm,
    attn2: Attention,
    norm3: LayerNorm,
    feed_forward: FeedForward,
}

impl Block {
    fn new(w: &Weights<'_>, config: &Config, index: i64) -> Self {
        let width = config.hidden_size;
        let norm = |name| LayerNorm::new(&w.scope(name), width, EPSILON);
        let skip = || (Linear::new(&w.scope("skip_linear"), 2 * width, width), norm("skip_norm"));
        Self {
            skip: config.has_skip(index).then(skip),
            norm1: norm("norm1"),
            attn1: Attention::new(&w.scope("attn1"), config, width, Layout::SelfAttention),
            norm2: norm("norm2"),
            attn2: Attention::new(&w.scope("attn2"), config, config.context_dim, Layout::Cross),
            norm3: norm("norm3"),
            feed_forward: FeedForward::new(w, config, config.has_experts(index)),
        }
    }

    /// `x [B, 1+L, D]`, `context [B, S, Cc]`, `skip [B, 1+L, D]` → `[B, 1+L, D]`
    fn forward(&self, x: &Tensor, context: &Tensor, skip: Option<&Tensor>) -> Tensor {
        let x = match (&self.skip, skip) {
            (Some((linear, norm)), Some(skip)) => norm.forward(&linear.forward(&Tensor::cat(&[skip, x], -1))),
            _ => x.shallow_clone(),
        };
        let y = self.norm1.forward(&x);
        let x = x + self.attn1.forward(&y, &y);
        let x = &x + self.attn2.forward(&self.norm2.forward(&x), context);
        let y = self.feed_forward.forward(&self.norm3.forward(&x));
        x + y
    }
}

/// How the outputs of the projections divide into heads.
#[derive(Debug, Clone, Copy)]
enum Layout {
    /// q, k and v are joined and divided as `[H][3][d]`: head 0's query, key and
    /// value are the first `3d` features of `to_q`.
    SelfAttention,
    /// q as usual; k and v are joined and divided as `[H][2][d]`.
    Cross,
}

#[derive(Debug)]
struct Attention {
    heads: i64,
    layout: Layout,
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    out_proj: Linear,
    /// Scales `[d]` of the RMS norms of queries and keys.
    qk_norm: Option<(Tensor, Tensor)>,
}

impl Attention {
    fn new(w: &Weights<'_>, config: &Config, context_width: i64, layout: Layout) -> Self {
        let (width, bias) = (config.hidden_size, config.qkv_bias);
        let scale = |name| w.scope(name).tensor("weight", &[width / config.num_heads]);
        Self {
            heads: config.num_heads,
            layout,
            to_q: Linear::with_bias(&w.scope("to_q"), width, width, bias),
            to_k: Linear::with_bias(&w.scope("to_k"), context_width, width, bias),
            to_v: Linear::with_bias(&w.scope("to_v"), context_width, width, bias),
            out_proj: Linear::new(&w.scope("out_proj"), width, width),
            qk_norm: config.qk_norm.then(|| (scale("q_norm"), scale("k_norm"))),
        }
    }

    /// `x [B, L, D]`, `context [B, S, ·]` → `[B, L, D]`
    fn forward(&self, x: &Tensor, context: &Tensor) -> Tensor {
        let (q, k, v) = (self.to_q.forward(x), self.to_k.forward(context), self.to_v.forward(context));
        // [B, L, n·D], laid out [H][n][d] → n of [B, L, H, d]
        let split = |joined: &Tensor, parts: i64| {
            let size = joined.size();
            let heads = joined.view([size[0], size[1], self.heads, size[2] / self.heads]);
            heads.chunk(parts, -1)
        };
        let parts = match self.layout {
            Layout::SelfAttention => split(&Tensor::cat(&[q, k, v], -1), 3),
            Layout::Cross => {
                let mut parts = split(&q, 1);
                parts.extend(split(&Tensor::cat(&[k, v], -1), 2));
                parts
            }
        };
        let norm = |x: &Tensor, scale: &Tensor| x.rms_norm(scale.size(), Some(scale), EPSILON);
        let (q, k) = match &self.qk_norm {
            Some((q_scale, k_scale)) => (norm(&parts[0], q_scale), norm(&parts[1], k_scale)),
            None => (parts[0].shallow_clone(), parts[1].shallow_clone()),
        };
        let heads = |x: &Tensor| x.transpose(1, 2);
        self.out_proj.forward(&attention(&heads(&q), &heads(&k), &heads(&parts[2])))
    }
}

#[derive(Debug)]
enum FeedForward {
    Plain(Mlp),
    Experts(Experts),
}

impl FeedForward {
    fn new(w: &Weights<'_>, config: &Config, experts: bool) -> Self {
        let width = config.hidden_size;
        if experts {
            Self::Experts(Experts::new(&w.scope("moe"), config))
        } else {
            Self::Plain(Mlp::new(&w.scope("mlp"), ("fc1", "fc2"), width, 4 * width))
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        match self {
            Self::Plain(mlp) => mlp.forward(x),
            Self::Experts(experts) => experts.forward(x),
        }
    }
}

/// Experts of which each token goes to a few, and one that sees all.
#[derive(Debug)]
struct Experts {
    /// `[E, D]`
    gate: Linear,
    experts: Vec<Mlp>,
    shared: Mlp,
    top_k: i64,
}

impl Experts {
    fn new(w: &Weights<'_>, config: &Config) -> Self {
        let width = config.hidden_size;
        let expert = |w: &Weights<'_>| Mlp::new(&w.scope("net"), ("0.proj", "2"), width, 4 * width);
        Self {
            gate: Linear::with_bias(&w.scope("gate"), width, config.num_experts, false),
            experts: (0..config.num_experts).map(|i| expert(&w.scope("experts").scope(i))).collect(),
            shared: expert(&w.scope("shared_experts")),
            top_k: config.moe_top_k,
        }
    }

    /// `[B, L, D] → [B, L, D]`; the chosen weights are not scaled to add up to 1.
    fn forward(&self, x: &Tensor) -> Tensor {
        let tokens = x.flatten(0, 1);
        let scores = self.gate.forward(&tokens).softmax(-1, Kind::Float);
        let (weights, chosen) = scores.topk(self.top_k, -1, true, false);
        let out = self.shared.forward(&tokens);
        for (i, expert) in self.experts.iter().enumerate() {
            // [n, 2]: token, and its how manieth choice this expert is
            let at = chosen.eq(i as i64).nonzero();
            if at.size()[0] == 0 {
                continue;
            }
            let token = at.select(1, 0);
            let weight = weights.view(-1).index_select(0, &(&token * self.top_k + at.select(1, 1)));
            let part = expert.forward(&tokens.index_select(0, &token));
            let part = part * weight.to_kind(tokens.kind()).unsqueeze(-1);
            let _ = out.shallow_clone().index_add_(0, &token, &part);
        }
        out.view_as(x)
    }
}
