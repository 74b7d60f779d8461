//! The denoiser of Hunyuan3D-2: a transformer over latent tokens, with double-
//! and single-stream blocks as in FLUX, that gives the velocity of a rectified
//! flow. Tokens carry no position: latents are a set.
//!
//! Paper: Hunyuan3D 2.0, <https://arxiv.org/abs/2501.12202>, §3.2; adaptive
//! normalisation after DiT, <https://arxiv.org/abs/2212.09748>.
//!
//! ```text
//! t (+ guidance) ─ sinusoid ─ MLP ─▶ vec ─▶ shift, scale, gate of every block
//! x ── latent_in ─▶ img ┐   ┌─ double blocks ─┐                 ┌ single ┐
//! context ─ cond_in ▶ txt ┴▶ │ joint attention │ ▶ [txt ‖ img] ▶ │ blocks │ ▶ img part ▶ final
//!                            └─────────────────┘                 └────────┘
//! ```
//!
//! Shapes: `B` batch, `L` latent tokens, `S` context tokens, `C` latent
//! channels, `D` width, `H` heads, `d = D/H`, `r` MLP ratio.
//!
//! Three savings that change nothing but rounding: all modulations of a step
//! come from one matrix product; the context is projected once for all steps;
//! and since equal tokens stay equal in a network without positions, a context
//! of zeros runs as one token that counts `S` times ([`HunyuanDit::null_context`]).

use crate::Error;
use crate::error::require;
use crate::layers::{Linear, attention, sinusoid_angles};
use crate::sampling::{Denoiser, Velocity, guide, is_guided};
use crate::weights::Weights;
use serde::Deserialize;
use std::fmt;
use tch::{Kind, Tensor};

/// Width of the sinusoidal time embedding.
const TIME_CHANNELS: i64 = 256;
/// Times in 0..1 are embedded as if counted in thousandths.
const TIME_SCALE: f64 = 1000.0;
const EPSILON: f64 = 1e-6;

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

    fn head_dim(&self) -> i64 {
        self.hidden_size / self.num_heads
    }

    fn mlp_size(&self) -> i64 {
        (self.hidden_size as f64 * self.mlp_ratio) as i64
    }
}

/// The network.
#[derive(Debug)]
pub struct HunyuanDit {
    config: Config,
    latent_in: Linear,
    cond_in: Linear,
    time_in: Embedder,
    guidance_in: Option<Embedder>,
    modulation: Modulation,
    double_blocks: Vec<DoubleBlock>,
    single_blocks: Vec<SingleBlock>,
    final_linear: Linear,
}

/// A context that has been projected, once for all steps.
#[derive(Debug)]
pub struct Context {
    /// `[B or 1, S', D]`
    tokens: Tensor,
    /// How often the first token counts; 1 but for a null context.
    repeats: i64,
}

/// Shift, scale and gate of every block at one time.
#[derive(Debug)]
pub struct StepModulation {
    /// `[B or 1, rows · D]`, scales with their 1 added.
    rows: Tensor,
}

/// Receives named intermediate tensors, for comparison with a reference.
pub type Trace<'a> = &'a mut dyn FnMut(fmt::Arguments<'_>, &Tensor);

impl HunyuanDit {
    /// Takes the weights from a scope that holds `latent_in`, `double_blocks`, ….
    pub fn new(w: &Weights<'_>, config: &Config) -> Self {
        let width = config.hidden_size;
        Self {
            latent_in: Linear::new(&w.scope("latent_in"), config.in_channels, width),
            cond_in: Linear::new(&w.scope("cond_in"), config.context_in_dim, width),
            time_in: Embedder::new(&w.scope("time_in"), width),
            guidance_in: config.guidance_embed.then(|| Embedder::new(&w.scope("guidance_in"), width)),
            modulation: Modulation::new(w, config),
            double_blocks: (0..config.depth)
                .map(|i| DoubleBlock::new(&w.scope("double_blocks").scope(i), config))
                .collect(),
            single_blocks: (0..config.depth_single_blocks)
                .map(|i| SingleBlock::new(&w.scope("single_blocks").scope(i), config))
                .collect(),
            final_linear: Linear::new(&w.scope("final_layer").scope("linear"), width, config.in_channels),
            config: config.clone(),
        }
    }

    /// The network's sizes.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Projects a context `[B, S, context_in_dim]`.
    pub fn embed_context(&self, context: &Tensor) -> Context {
        Context { tokens: self.cond_in.forward(context), repeats: 1 }
    }

    /// The projection of `tokens` zeros, which is the bias in each place, as one token.
    pub fn null_context(&self, tokens: i64) -> Context {
        let zeros = Tensor::zeros([1, 1, self.config.context_in_dim], self.latent_in_options());
        Context { tokens: self.cond_in.forward(&zeros), repeats: tokens }
    }

    /// What a time (and guidance) `[B]` or `[1]` means to each block.
    pub fn modulate(&self, t: &Tensor, guidance: Option<&Tensor>) -> StepModulation {
        self.modulate_traced(t, guidance, &mut |_, _| {})
    }

    /// The velocity, data minus noise: `x [B, L, C] → [B, L, C]`.
    pub fn velocity(&self, x: &Tensor, step: &StepModulation, context: &Context) -> Tensor {
        self.velocity_traced(x, step, context, &mut |_, _| {})
    }

    /// `x [B, L, C]`, `t [B]` in 0..1, `context [B, S, context_in_dim]` and, with
    /// `guidance_embed`, `guidance [B]` → velocity `[B, L, C]`.
    pub fn forward(&self, x: &Tensor, t: &Tensor, context: &Tensor, guidance: Option<&Tensor>) -> Tensor {
        self.forward_traced(x, t, context, guidance, &mut |_, _| {})
    }

    /// As [`Self::forward`], showing the intermediate tensors.
    pub fn forward_traced(
        &self,
        x: &Tensor,
        t: &Tensor,
        context: &Tensor,
        guidance: Option<&Tensor>,
        trace: Trace<'_>,
    ) -> Tensor {
        let step = self.modulate_traced(t, guidance, trace);
        let context = self.embed_context(context);
        trace(format_args!("cond_in"), &context.tokens);
        self.velocity_traced(x, &step, &context, trace)
    }

    fn modulate_traced(&self, t: &Tensor, guidance: Option<&Tensor>, trace: Trace<'_>) -> StepModulation {
        let kind = self.latent_in_options().0;
        let embedded = time_embedding(t, self.config.time_factor);
        trace(format_args!("t_emb256"), &embedded);
        let vec = self.time_in.forward(&embedded.to_kind(kind));
        trace(format_args!("time_in"), &vec);
        let vec = match (&self.guidance_in, guidance) {
            (Some(guidance_in), Some(guidance)) => {
                let embedded = time_embedding(guidance, self.config.time_factor);
                trace(format_args!("g_emb256"), &embedded);
                let guided = guidance_in.forward(&embedded.to_kind(kind));
                trace(format_args!("guidance_in"), &guided);
                vec + guided
            }
            _ => vec,
        };
        StepModulation { rows: self.modulation.forward(&vec) }
    }

    fn velocity_traced(
        &self,
        x: &Tensor,
        step: &StepModulation,
        context: &Context,
        trace: Trace<'_>,
    ) -> Tensor {
        let mut img = self.latent_in.forward(x);
        trace(format_args!("latent_in"), &img);
        let mut txt = expand_batch(&context.tokens, img.size()[0]);
        let mut rows = Rows { rows: &step.rows, width: self.config.hidden_size, next: 0 };
        for (i, block) in self.double_blocks.iter().enumerate() {
            (txt, img) = block.forward(&txt, &img, &mut rows, context.repeats);
            trace(format_args!("double{i}.img"), &img);
            trace(format_args!("double{i}.txt"), &txt);
        }
        let context_tokens = txt.size()[1];
        let mut hidden = Tensor::cat(&[txt, img], 1);
        for (i, block) in self.single_blocks.iter().enumerate() {
            hidden = block.forward(&hidden, &rows.triple(), context.repeats);
            trace(format_args!("single{i}"), &hidden);
        }
        let img = hidden.narrow(1, context_tokens, hidden.size()[1] - context_tokens);
        let (shift, scale) = (rows.row(), rows.row());
        self.final_linear.forward(&adaptive_norm(&img, &shift, &scale))
    }

    fn latent_in_options(&self) -> (Kind, tch::Device) {
        let bias = self.latent_in.bias();
        bias.map_or((Kind::Float, tch::Device::Cpu), |bias| (bias.kind(), bias.device()))
    }
}

impl Denoiser for HunyuanDit {
    fn prepare<'a>(&'a self, context: &Tensor, guidance_scale: f64) -> Velocity<'a> {
        let conditioned = self.embed_context(context);
        let device = context.device();
        let scalar = move |value: f32| Tensor::from_slice(&[value]).to_device(device);
        if self.config.guidance_embed {
            let guidance = scalar(guidance_scale as f32);
            return Box::new(move |x, t| {
                self.velocity(x, &self.modulate(&scalar(t), Some(&guidance)), &conditioned)
            });
        }
        let unconditioned = is_guided(guidance_scale).then(|| self.null_context(context.size()[1]));
        Box::new(move |x, t| {
            let step = self.modulate(&scalar(t), None);
            let velocity = self.velocity(x, &step, &conditioned);
            match &unconditioned {
                Some(context) => guide(&velocity, &self.velocity(x, &step, context), guidance_scale),
                None => velocity,
            }
        })
    }
}

/// `[B] → [B, 256]`: cosines, then sines.
fn time_embedding(t: &Tensor, period: f64) -> Tensor {
    let angles = sinusoid_angles(t, TIME_CHANNELS / 2, period, TIME_SCALE);
    Tensor::cat(&[angles.cos(), angles.sin()], -1)
}

/// `[1, …] → [batch, …]` without a copy; another batch stays.
fn expand_batch(x: &Tensor, batch: i64) -> Tensor {
    let size = x.size();
    if size[0] == batch { x.shallow_clone() } else { x.expand([batch, size[1], size[2]], false) }
}

/// Linear, SiLU, linear.
#[derive(Debug)]
struct Embedder {
    in_layer: Linear,
    out_layer: Linear,
}

impl Embedder {
    fn new(w: &Weights<'_>, width: i64) -> Self {
        Self {
            in_layer: Linear::new(&w.scope("in_layer"), TIME_CHANNELS, width),
            out_layer: Linear::new(&w.scope("out_layer"), width, width),
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        self.out_layer.forward(&self.in_layer.forward(x).silu())
    }
}

/// Every modulation layer of the network as one: they all take the same vector.
#[derive(Debug)]
struct Modulation {
    /// `[rows · D, D]`, in the order in which the blocks run.
    weight: Tensor,
    bias: Tensor,
    /// `[rows · D]`: 1 where a row is a scale, which multiplies as `1 + scale`.
    ones: Tensor,
}

impl Modulation {
    fn new(w: &Weights<'_>, config: &Config) -> Self {
        let width = config.hidden_size;
        // Rows of a triple are shift, scale, gate; the last pair has no gate.
        let mut layers = Vec::new();
        for i in 0..config.depth {
            let block = w.scope("double_blocks").scope(i);
            layers.push((block.scope("txt_mod").scope("lin"), 6));
            layers.push((block.scope("img_mod").scope("lin"), 6));
        }
        for i in 0..config.depth_single_blocks {
            layers.push((w.scope("single_blocks").scope(i).scope("modulation").scope("lin"), 3));
        }
        layers.push((w.scope("final_layer").scope("adaLN_modulation").scope(1), 2));

        let total: i64 = layers.iter().map(|(_, rows)| rows).sum();
        let options = (w.kind(), w.device());
        let folded = Self {
            weight: Tensor::empty([total * width, width], options),
            bias: Tensor::empty([total * width], options),
            ones: Tensor::zeros([total, width], options),
        };
        let mut row = 0;
        for (layer, rows) in layers {
            let (at, size) = (row * width, rows * width);
            folded.weight.narrow(0, at, size).copy_(&layer.tensor("weight", &[size, width]));
            folded.bias.narrow(0, at, size).copy_(&layer.tensor("bias", &[size]));
            for scale in (row + 1..row + rows).step_by(3) {
                let _ = folded.ones.get(scale).fill_(1.0);
            }
            row += rows;
        }
        Self { ones: folded.ones.flatten(0, 1), ..folded }
    }

    /// `[B, D] → [B, rows · D]`
    fn forward(&self, vec: &Tensor) -> Tensor {
        vec.silu().linear(&self.weight, Some(&self.bias)) + &self.ones
    }
}

/// Hands out the modulation rows in the blocks' order.
struct Rows<'a> {
    rows: &'a Tensor,
    width: i64,
    next: i64,
}

/// Modulation of one sub-layer, each `[B or 1, D]`; the scale has its 1 added.
struct Triple {
    shift: Tensor,
    scale: Tensor,
    gate: Tensor,
}

impl Rows<'_> {
    fn row(&mut self) -> Tensor {
        let row = self.rows.narrow(1, self.next * self.width, self.width);
        self.next += 1;
        row
    }

    fn triple(&mut self) -> Triple {
        Triple { shift: self.row(), scale: self.row(), gate: self.row() }
    }
}

/// `scale · norm(x) + shift`, `x [B, L, D]`. One time for the whole batch, as in
/// sampling, makes it an ordinary layer norm, in one pass.
fn adaptive_norm(x: &Tensor, shift: &Tensor, scale: &Tensor) -> Tensor {
    let width = x.size()[2];
    if shift.size()[0] == 1 {
        let (scale, shift) = (scale.view([width]), shift.view([width]));
        return x.layer_norm([width], Some(&scale), Some(&shift), EPSILON, true);
    }
    let norm = x.layer_norm([width], None::<&Tensor>, None::<&Tensor>, EPSILON, true);
    norm * scale.unsqueeze(1) + shift.unsqueeze(1)
}

/// `x + gate · y`
fn gated(x: &Tensor, gate: &Tensor, y: &Tensor) -> Tensor {
    x.addcmul(&gate.unsqueeze(1), y)
}

/// RMS normalisation of queries and keys per head.
#[derive(Debug)]
struct QkNorm {
    /// `[2, 1, d]`: the queries' scale, the keys' scale.
    scale: Tensor,
}

impl QkNorm {
    fn new(w: &Weights<'_>, head_dim: i64) -> Self {
        let scale = |name| w.scope(name).tensor("scale", &[head_dim]);
        let scale = Tensor::stack(&[scale("query_norm"), scale("key_norm")], 0);
        Self { scale: scale.unsqueeze(1) }
    }

    /// `[B, L, 2, H, d] → [B, L, 2, H, d]`, the statistics in `f32`.
    fn forward(&self, qk: &Tensor) -> Tensor {
        let head_dim = qk.size()[4];
        let exact = qk.to_kind(Kind::Float);
        let norm = exact.rms_norm([head_dim], None::<&Tensor>, EPSILON).to_kind(qk.kind());
        norm * &self.scale
    }
}

/// Attention over `[txt ‖ img]`, where the first token counts `repeats` times.
/// `qk [B, L, 2, H, d]`, `v [B, L, H, d]` → `[B, L, D]`
fn joint_attention(qk: &Tensor, v: &Tensor, repeats: i64) -> Tensor {
    let heads = |x: &Tensor| x.transpose(1, 2);
    let (q, k) = (qk.select(2, 0), qk.select(2, 1));
    if repeats == 1 {
        return attention(&heads(&q), &heads(&k), &heads(v));
    }
    let repeat = |x: &Tensor| {
        let size = x.size();
        let first = x.narrow(1, 0, 1).expand([size[0], repeats, size[2], size[3]], false);
        Tensor::cat(&[first, x.narrow(1, 1, size[1] - 1)], 1)
    };
    attention(&heads(&q), &heads(&repeat(&k)), &heads(&repeat(v)))
}

/// One stream's half of a double block.
#[derive(Debug)]
struct Stream {
    heads: i64,
    qkv: Linear,
    norm: QkNorm,
    proj: Linear,
    mlp_in: Linear,
    mlp_out: Linear,
}

impl Stream {
    /// `name` is `img` or `txt`.
    fn new(w: &Weights<'_>, name: &str, config: &Config) -> Self {
        let (width, mlp) = (config.hidden_size, config.mlp_size());
        let attn = w.scope(format_args!("{name}_attn"));
        let layers = w.scope(format_args!("{name}_mlp"));
        Self {
            heads: config.num_heads,
            qkv: Linear::with_bias(&attn.scope("qkv"), width, 3 * width, config.qkv_bias),
            norm: QkNorm::new(&attn.scope("norm"), config.head_dim()),
            proj: Linear::new(&attn.scope("proj"), width, width),
            mlp_in: Linear::new(&layers.scope(0), width, mlp),
            mlp_out: Linear::new(&layers.scope(2), mlp, width),
        }
    }

    /// Normalised queries and keys `[B, L, 2, H, d]`, values `[B, L, H, d]`.
    fn project(&self, x: &Tensor, modulation: &Triple) -> (Tensor, Tensor) {
        let y = adaptive_norm(x, &modulation.shift, &modulation.scale);
        split_heads(&self.qkv.forward(&y), self.heads, &self.norm)
    }

    fn finish(&self, x: &Tensor, attended: &Tensor, attn: &Triple, mlp: &Triple) -> Tensor {
        let x = gated(x, &attn.gate, &self.proj.forward(attended));
        let y = adaptive_norm(&x, &mlp.shift, &mlp.scale);
        let y = self.mlp_out.forward(&self.mlp_in.forward(&y).gelu("tanh"));
        gated(&x, &mlp.gate, &y)
    }
}

/// `[B, L, 3D]`, laid out `[3][H][d]` → queries and keys `[B, L, 2, H, d]`, values `[B, L, H, d]`.
fn split_heads(qkv: &Tensor, heads: i64, norm: &QkNorm) -> (Tensor, Tensor) {
    let size = qkv.size();
    let qkv = qkv.view([size[0], size[1], 3, heads, size[2] / 3 / heads]);
    (norm.forward(&qkv.narrow(2, 0, 2)), qkv.select(2, 2))
}

/// Two streams with their own weights, joined in attention.
#[derive(Debug)]
struct DoubleBlock {
    txt: Stream,
    img: Stream,
}

impl DoubleBlock {
    fn new(w: &Weights<'_>, config: &Config) -> Self {
        Self { txt: Stream::new(w, "txt", config), img: Stream::new(w, "img", config) }
    }

    /// `txt [B, S, D]`, `img [B, L, D]` → the same.
    fn forward(&self, txt: &Tensor, img: &Tensor, rows: &mut Rows<'_>, repeats: i64) -> (Tensor, Tensor) {
        let txt_modulation = (rows.triple(), rows.triple());
        let img_modulation = (rows.triple(), rows.triple());
        let (txt_qk, txt_v) = self.txt.project(txt, &txt_modulation.0);
        let (img_qk, img_v) = self.img.project(img, &img_modulation.0);
        let qk = Tensor::cat(&[txt_qk, img_qk], 1);
        let v = Tensor::cat(&[txt_v, img_v], 1);
        let attended = joint_attention(&qk, &v, repeats);
        let (tokens, latents) = (txt.size()[1], img.size()[1]);
        let part = |at, length| attended.narrow(1, at, length);
        (
            self.txt.finish(txt, &part(0, tokens), &txt_modulation.0, &txt_modulation.1),
            self.img.finish(img, &part(tokens, latents), &img_modulation.0, &img_modulation.1),
        )
    }
}

/// Attention and MLP side by side on the joined stream.
#[derive(Debug)]
struct SingleBlock {
    heads: i64,
    width: i64,
    linear1: Linear,
    linear2: Linear,
    norm: QkNorm,
}

impl SingleBlock {
    fn new(w: &Weights<'_>, config: &Config) -> Self {
        let (width, mlp) = (config.hidden_size, config.mlp_size());
        Self {
            heads: config.num_heads,
            width,
            linear1: Linear::new(&w.scope("linear1"), width, 3 * width + mlp),
            linear2: Linear::new(&w.scope("linear2"), width + mlp, width),
            norm: QkNorm::new(&w.scope("norm"), config.head_dim()),
        }
    }

    /// `x [B, S+L, D]` → the same.
    fn forward(&self, x: &Tensor, modulation: &Triple, repeats: i64) -> Tensor {
        let y = self.linear1.forward(&adaptive_norm(x, &modulation.shift, &modulation.scale));
        let attended = 3 * self.width;
        let mlp = y.narrow(2, attended, y.size()[2] - attended).gelu("tanh");
        let (qk, v) = split_heads(&y.narrow(2, 0, attended), self.heads, &self.norm);
        let attended = joint_attention(&qk, &v, repeats);
        gated(x, &modulation.gate, &self.linear2.forward(&Tensor::cat(&[attended, mlp], 2)))
    }
}
