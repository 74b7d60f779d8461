//! The geo decoder: field tokens and a point in space to a logit, positive inside.
//!
//! A point's Fourier features attend once to the tokens. What depends on the
//! tokens alone, their keys and values, is computed once per shape, in a
//! [`Field`]; points then go through in chunks ([`crate::volume`]).
//!
//! Shapes: `P` points, `L` tokens, `W` the VAE's width, `r` down-sampling
//! ratio, `Wg = W/r` width here, `Hg = H/r` heads, `d = Wg/Hg`, `f` features.

use crate::layers::{LayerNorm, Linear, Mlp, attention};
use crate::shape_vae::{Config, qk_norm};
use crate::weights::Weights;
use tch::{Device, Kind, Tensor};

const EPSILON: f64 = 1e-6;
/// The last norm alone has the framework's default.
const LN_POST_EPSILON: f64 = 1e-5;

/// The network.
#[derive(Debug)]
pub struct GeoDecoder {
    heads: i64,
    frequencies: Vec<f32>,
    query_proj: Linear,
    latents_proj: Option<Linear>,
    /// For queries, tokens, and in front of the MLP.
    ln_1: LayerNorm,
    ln_2: LayerNorm,
    ln_3: LayerNorm,
    c_q: Linear,
    c_kv: Linear,
    qk_norm: Option<(LayerNorm, LayerNorm)>,
    c_proj: Linear,
    mlp: Mlp,
    ln_post: Option<LayerNorm>,
    output_proj: Linear,
    width: i64,
    bytes_per_point: u64,
    kind: Kind,
    device: Device,
}

impl GeoDecoder {
    /// Takes the weights from a scope that holds `query_proj`, `cross_attn_decoder`, ….
    pub fn new(w: &Weights<'_>, config: &Config) -> Self {
        let ratio = config.geo_decoder_downsample_ratio;
        let (width, heads) = (config.width / ratio, config.heads / ratio);
        let features = 3 * (2 * config.num_freqs + 1);
        let block = w.scope("cross_attn_decoder");
        let attn = block.scope("attn");
        let norm = |name| LayerNorm::new(&block.scope(name), width, EPSILON);
        let base = if config.include_pi { std::f32::consts::PI } else { 1.0 };
        let mlp_width = width * config.geo_decoder_mlp_expand_ratio;
        Self {
            heads,
            frequencies: (0..config.num_freqs).map(|i| base * (i as f32).exp2()).collect(),
            query_proj: Linear::new(&w.scope("query_proj"), features, width),
            latents_proj: (ratio > 1).then(|| Linear::new(&w.scope("latents_proj"), config.width, width)),
            ln_1: norm("ln_1"),
            ln_2: norm("ln_2"),
            ln_3: norm("ln_3"),
            c_q: Linear::with_bias(&attn.scope("c_q"), width, width, config.qkv_bias),
            c_kv: Linear::with_bias(&attn.scope("c_kv"), width, 2 * width, config.qkv_bias),
            qk_norm: (config.qk_norm && config.geo_decoder_ln_post).then(|| qk_norm(&attn, width / heads)),
            c_proj: Linear::new(&attn.scope("c_proj"), width, width),
            mlp: Mlp::new(&block.scope("mlp"), ("c_fc", "c_proj"), width, mlp_width),
            ln_post: config
                .geo_decoder_ln_post
                .then(|| LayerNorm::new(&w.scope("ln_post"), width, LN_POST_EPSILON)),
            output_proj: Linear::new(&w.scope("output_proj"), width, 1),
            width,
            bytes_per_point: bytes_per_point(config, w.kind()),
            kind: w.kind(),
            device: w.device(),
        }
    }

    /// Keys and values of one shape's tokens `[1, L, W]`.
    pub fn field(&self, tokens: &Tensor) -> Field<'_> {
        let tokens = tokens.to_kind(self.kind);
        let tokens = match &self.latents_proj {
            Some(latents_proj) => latents_proj.forward(&tokens),
            None => tokens,
        };
        // [1, L, 2Wg], laid out [Hg][2][d] → two of [1, Hg, L, d]
        let kv = self.c_kv.forward(&self.ln_2.forward(&tokens));
        let kv = kv.view([1, -1, self.heads, 2, self.width / self.heads]).permute([3, 0, 2, 1, 4]);
        let key = match &self.qk_norm {
            Some((_, k_norm)) => k_norm.forward(&kv.get(0)),
            None => kv.get(0),
        };
        Field { decoder: self, key: key.contiguous(), value: kv.get(1).contiguous() }
    }

    /// Fourier features: `[…, 3] → […, f]`, the point, then sines, then cosines, each coordinate by coordinate.
    pub fn features(&self, points: &Tensor) -> Tensor {
        let frequencies = Tensor::from_slice(&self.frequencies).to_device(points.device());
        let angles = (points.unsqueeze(-1) * frequencies).flatten(-2, -1);
        Tensor::cat(&[points, &angles.sin(), &angles.cos()], -1)
    }

    /// Bytes of intermediate values for one point, for choosing how many go through at once.
    pub fn bytes_per_point(&self) -> u64 {
        self.bytes_per_point
    }
}

/// As [`GeoDecoder::bytes_per_point`], from the configuration.
pub fn bytes_per_point(config: &Config, kind: Kind) -> u64 {
    let width = config.width / config.geo_decoder_downsample_ratio;
    let features = 3 * (2 * config.num_freqs + 1);
    // x, its norm, q, its norm, the attended value, a sum and a norm; the MLP before and after GELU.
    let values = 7 * width + 2 * width * config.geo_decoder_mlp_expand_ratio;
    let single = Kind::Float.elt_size_in_bytes() as i64;
    (2 * features * single + values * kind.elt_size_in_bytes() as i64).unsigned_abs()
}

/// The field of one shape.
#[derive(Debug)]
pub struct Field<'a> {
    decoder: &'a GeoDecoder,
    /// `[1, Hg, L, d]`
    pub(crate) key: Tensor,
    /// `[1, Hg, L, d]`
    pub(crate) value: Tensor,
}

impl Field<'_> {
    /// Logits of points `[B, P, 3]` in `f32`: `[B, P]` in `f32`.
    pub fn logits(&self, points: &Tensor) -> Tensor {
        let (x, query) = self.query(points);
        let batch = points.size()[0];
        let expand = |kv: &Tensor| kv.expand([batch, -1, -1, -1], false);
        self.finish(&x, &attention(&query, &expand(&self.key), &expand(&self.value)))
    }

    /// The number of tokens.
    pub fn tokens(&self) -> i64 {
        self.key.size()[2]
    }

    /// The network behind the field.
    pub fn decoder(&self) -> &GeoDecoder {
        self.decoder
    }

    /// Where the weights are.
    pub fn device(&self) -> Device {
        self.decoder.device
    }

    /// Points `[B, P, 3]` → residual stream `[B, P, Wg]` and queries `[B, Hg, P, d]`.
    /// Features are computed in `f32`: the finest of them turns by a radian in 1/128.
    pub(crate) fn query(&self, points: &Tensor) -> (Tensor, Tensor) {
        let decoder = self.decoder;
        let x = decoder.query_proj.forward(&decoder.features(points).to_kind(decoder.kind));
        let query = decoder.c_q.forward(&decoder.ln_1.forward(&x));
        let query = query.view([x.size()[0], -1, decoder.heads, decoder.width / decoder.heads]);
        let query = match &decoder.qk_norm {
            Some((q_norm, _)) => q_norm.forward(&query),
            None => query,
        };
        (x, query.transpose(1, 2))
    }

    /// Residual stream and attended values, both `[B, P, Wg]` → logits `[B, P]` in `f32`.
    pub(crate) fn finish(&self, x: &Tensor, attended: &Tensor) -> Tensor {
        let decoder = self.decoder;
        let x = x + decoder.c_proj.forward(attended);
        let y = decoder.mlp.forward(&decoder.ln_3.forward(&x));
        let mut x = x + y;
        if let Some(ln_post) = &decoder.ln_post {
            x = ln_post.forward(&x);
        }
        decoder.output_proj.forward(&x).squeeze_dim(-1).to_kind(Kind::Float)
    }
}
