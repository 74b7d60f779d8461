//! The transformer blocks: two streams joined in attention, then one stream.
//!
//! Shapes: `B` batch, `L` latent tokens, `S` context tokens, `D` width, `H` heads, `d = D/H`.

use super::EPSILON;
use super::config::Config;
use super::modulation::{Rows, Triple, adaptive_norm, gated};
use crate::layers::{Linear, attention};
use crate::weights::Weights;
use tch::Tensor;

/// RMS normalisation of queries and keys per head, the statistics in `f32`.
#[derive(Debug)]
struct QkNorm {
    /// `[d]` each.
    query: Tensor,
    key: Tensor,
}

impl QkNorm {
    fn new(w: &Weights<'_>, head_dim: i64) -> Self {
        let scale = |name| w.scope(name).tensor("scale", &[head_dim]);
        Self { query: scale("query_norm"), key: scale("key_norm") }
    }
}

/// Queries, keys and values of some tokens, `[B, L, H, d]` each, the first two normalised.
struct Heads {
    query: Tensor,
    key: Tensor,
    value: Tensor,
}

impl Heads {
    /// From `[B, L, 3D]`, laid out `[3][H][d]`.
    fn of(qkv: &Tensor, heads: i64, norm: &QkNorm) -> Self {
        let size = qkv.size();
        let head_dim = size[2] / 3 / heads;
        let qkv = qkv.view([size[0], size[1], 3, heads, head_dim]);
        let normalise =
            |part: i64, scale: &Tensor| qkv.select(2, part).rms_norm([head_dim], Some(scale), EPSILON);
        Self { query: normalise(0, &norm.query), key: normalise(1, &norm.key), value: qkv.select(2, 2) }
    }

    /// These tokens, then others.
    fn join(self, other: Self) -> Self {
        let cat = |first, second| Tensor::cat(&[first, second], 1);
        Self {
            query: cat(self.query, other.query),
            key: cat(self.key, other.key),
            value: cat(self.value, other.value),
        }
    }

    /// Attention of all tokens to all, where the first counts `repeats` times: `[B, L, D]`.
    fn attend(&self, repeats: i64) -> Tensor {
        let heads = |x: &Tensor| x.transpose(1, 2);
        if repeats == 1 {
            return attention(&heads(&self.query), &heads(&self.key), &heads(&self.value));
        }
        let repeat = |x: &Tensor| {
            let size = x.size();
            let first = x.narrow(1, 0, 1).expand([size[0], repeats, size[2], size[3]], false);
            Tensor::cat(&[first, x.narrow(1, 1, size[1] - 1)], 1)
        };
        attention(&heads(&self.query), &heads(&repeat(&self.key)), &heads(&repeat(&self.value)))
    }
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

    fn project(&self, x: &Tensor, modulation: &Triple) -> Heads {
        let y = adaptive_norm(x, &modulation.shift, &modulation.scale);
        Heads::of(&self.qkv.forward(&y), self.heads, &self.norm)
    }

    fn finish(&self, x: &Tensor, attended: &Tensor, attn: &Triple, mlp: &Triple) -> Tensor {
        let x = gated(x, &attn.gate, &self.proj.forward(attended));
        let y = adaptive_norm(&x, &mlp.shift, &mlp.scale);
        let y = self.mlp_out.forward(&self.mlp_in.forward_gelu(&y));
        gated(&x, &mlp.gate, &y)
    }
}

/// Two streams with their own weights, joined in attention.
#[derive(Debug)]
pub(super) struct DoubleBlock {
    txt: Stream,
    img: Stream,
}

impl DoubleBlock {
    pub(super) fn new(w: &Weights<'_>, config: &Config) -> Self {
        Self { txt: Stream::new(w, "txt", config), img: Stream::new(w, "img", config) }
    }

    /// `txt [B, S, D]`, `img [B, L, D]` → the same.
    pub(super) fn forward(
        &self,
        txt: &Tensor,
        img: &Tensor,
        rows: &mut Rows<'_>,
        repeats: i64,
    ) -> (Tensor, Tensor) {
        let txt_modulation = (rows.triple(), rows.triple());
        let img_modulation = (rows.triple(), rows.triple());
        // The joined heads are dropped before the MLPs.
        let attended = self
            .txt
            .project(txt, &txt_modulation.0)
            .join(self.img.project(img, &img_modulation.0))
            .attend(repeats);
        let (tokens, latents) = (txt.size()[1], img.size()[1]);
        let part = |at, length| attended.narrow(1, at, length);
        (
            self.txt.finish(txt, &part(0, tokens), &txt_modulation.0, &txt_modulation.1),
            self.img.finish(img, &part(tokens, latents), &img_modulation.0, &img_modulation.1),
        )
    }
}

/// Attention and MLP side by side on the joined stream. Each of the published two layers, which serve both sides, is
/// two here: their parts are never cut out of a larger tensor, nor put together in one.
#[derive(Debug)]
pub(super) struct SingleBlock {
    heads: i64,
    qkv: Linear,
    mlp_in: Linear,
    proj: Linear,
    mlp_out: Linear,
    norm: QkNorm,
}

impl SingleBlock {
    pub(super) fn new(w: &Weights<'_>, config: &Config) -> Self {
        let (width, mlp) = (config.hidden_size, config.mlp_size());
        let linear1 = Linear::new(&w.scope("linear1"), width, 3 * width + mlp);
        let linear2 = Linear::new(&w.scope("linear2"), width + mlp, width);
        let (qkv, mlp_in) = linear1.split_outputs(3 * width);
        let (proj, mlp_out) = linear2.split_inputs(width);
        let norm = QkNorm::new(&w.scope("norm"), config.head_dim());
        Self { heads: config.num_heads, qkv, mlp_in, proj, mlp_out, norm }
    }

    /// `x [B, S+L, D]` → the same.
    pub(super) fn forward(&self, x: &Tensor, modulation: &Triple, repeats: i64) -> Tensor {
        // The scope drops what the sum has no use for.
        let (attended, hidden) = {
            let y = adaptive_norm(x, &modulation.shift, &modulation.scale);
            let attended = Heads::of(&self.qkv.forward(&y), self.heads, &self.norm).attend(repeats);
            (attended, self.mlp_in.forward_gelu(&y))
        };
        let sum = self.mlp_out.forward_add(&self.proj.forward(&attended), &hidden);
        gated(x, &modulation.gate, &sum)
    }
}
