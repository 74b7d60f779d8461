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

mod blocks;
mod config;
mod modulation;

use crate::layers::Linear;
use crate::sampling::{Denoiser, Velocity, guide, is_guided};
use crate::weights::Weights;
use blocks::{DoubleBlock, SingleBlock};
use modulation::{Embedder, Modulation, Rows, adaptive_norm, time_embedding};
use std::fmt;
use tch::{Kind, Tensor};

pub use config::Config;

/// Times in 0..1 are embedded as if counted in thousandths.
const TIME_SCALE: f64 = 1000.0;
const EPSILON: f64 = 1e-6;

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
        let mut rows = Rows::new(&step.rows, self.config.hidden_size);
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

/// `[1, …] → [batch, …]` without a copy; another batch stays.
fn expand_batch(x: &Tensor, batch: i64) -> Tensor {
    let size = x.size();
    if size[0] == batch { x.shallow_clone() } else { x.expand([batch, size[1], size[2]], false) }
}
