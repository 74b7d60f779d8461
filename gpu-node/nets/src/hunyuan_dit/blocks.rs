//! The transformer blocks: two streams joined in attention, then one stream.
//!
//! Shapes: `B` batch, `L` latent tokens, `S` context tokens, `D` width, `H` heads, `d = D/H`.

use super::EPSILON;
use super::config::Config;
use super::modulation::{Rows, Triple, adaptive_norm, gated};
use crate::layers::{Linear, attention};
use crate::weights::Weights;
use tch::{Kind, Tensor};

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
        // The scope drops both projections before the MLPs.
        let attended = {
            let (qk, v) = {
                let (txt_qk, txt_v) = self.txt.project(txt, &txt_modulation.0);
                let (img_qk, img_v) = self.img.project(img, &img_modulation.0);
                (Tensor::cat(&[txt_qk, img_qk], 1), Tensor::cat(&[txt_v, img_v], 1))
            };
            joint_attention(&qk, &v, repeats)
        };
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
pub(super) struct SingleBlock {
    heads: i64,
    width: i64,
    linear1: Linear,
    linear2: Linear,
    norm: QkNorm,
}

impl SingleBlock {
    pub(super) fn new(w: &Weights<'_>, config: &Config) -> Self {
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
    pub(super) fn forward(&self, x: &Tensor, modulation: &Triple, repeats: i64) -> Tensor {
        // Scopes drop what the next part has no use for: the projection is seven streams wide.
        let (attended, mlp) = {
            let y = self.linear1.forward(&adaptive_norm(x, &modulation.shift, &modulation.scale));
            let width = 3 * self.width;
            let attended = {
                let (qk, v) = split_heads(&y.narrow(2, 0, width), self.heads, &self.norm);
                joint_attention(&qk, &v, repeats)
            };
            (attended, y.narrow(2, width, y.size()[2] - width).gelu("tanh"))
        };
        let joined = Tensor::cat(&[attended, mlp], 2);
        gated(x, &modulation.gate, &self.linear2.forward(&joined))
    }
}
