//! The files of `dit` and `volume`: weights, inputs and results, with the sizes read off them.

use super::Options;
use crate::hunyuan_dit::HunyuanDit;
use crate::shape_vae::ShapeVae;
use crate::weights::{self, Prefixed, TensorSource};
use crate::{Error, hunyuan_dit, shape_vae};
use orfeas_torch::WeightsFile;
use std::path::Path;
use tch::Tensor;

/// Heads of the agreed files, which no tensor shows.
const HEADS: i64 = 8;

/// A file of weights, inputs and results.
pub(super) struct Dump {
    pub(super) file: WeightsFile,
}

impl Dump {
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        Ok(Self { file: WeightsFile::open(path)? })
    }

    pub(super) fn weights(&self) -> Prefixed<'_> {
        Prefixed { file: &self.file, prefix: "w." }
    }

    pub(super) fn input(&self, name: &str, options: &Options) -> Result<Tensor, Error> {
        Ok(self.file.load(name, options.device, options.kind)?)
    }

    /// Size `axis` of a weight.
    fn size(&self, key: &str, axis: usize) -> Result<i64, Error> {
        let size = self.weights().info(key).and_then(|info| info.shape.get(axis).copied());
        size.ok_or_else(|| Error::config("bench", format!("{} has no w.{key}", self.weights().name())))
    }

    /// How many of `<prefix>0…`, `<prefix>1…` there are.
    fn count(&self, prefix: &str) -> i64 {
        let present =
            |i: &i64| self.weights().keys().iter().any(|key| key.starts_with(&format!("{prefix}{i}.")));
        (0..).take_while(present).count() as i64
    }

    fn config<T: serde::de::DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_str(self.file.texts()?.get("config")?).ok()
    }

    /// The denoiser of these weights.
    pub(super) fn dit(&self, options: &Options) -> Result<HunyuanDit, Error> {
        let config = self.dit_config()?;
        config.validate()?;
        let target = (options.device, options.kind);
        weights::load(&self.weights(), "", target, |_| false, |w| HunyuanDit::new(w, &config))
    }

    /// The decoder of these weights.
    pub(super) fn vae(&self, options: &Options) -> Result<ShapeVae, Error> {
        let config = self.vae_config()?;
        config.validate()?;
        let target = (options.device, options.kind);
        weights::load(&self.weights(), "", target, shape_vae::is_encoder_key, |w| ShapeVae::new(w, &config))
    }

    fn dit_config(&self) -> Result<hunyuan_dit::Config, Error> {
        if let Some(config) = self.config() {
            return Ok(config);
        }
        let hidden_size = self.size("latent_in.weight", 0)?;
        let head = self.size("single_blocks.0.norm.query_norm.scale", 0)?;
        Ok(hunyuan_dit::Config {
            in_channels: self.size("latent_in.weight", 1)?,
            context_in_dim: self.size("cond_in.weight", 1)?,
            hidden_size,
            mlp_ratio: self.size("double_blocks.0.img_mlp.0.weight", 0)? as f64 / hidden_size as f64,
            num_heads: hidden_size / head,
            depth: self.count("double_blocks."),
            depth_single_blocks: self.count("single_blocks."),
            axes_dim: vec![head],
            qkv_bias: self.weights().info("double_blocks.0.img_attn.qkv.bias").is_some(),
            guidance_embed: self.weights().info("guidance_in.in_layer.weight").is_some(),
            ..hunyuan_dit::Config::v2_0()
        })
    }

    fn vae_config(&self) -> Result<shape_vae::Config, Error> {
        if let Some(config) = self.config::<shape_vae::Config>() {
            // The latents in these files are scaled already.
            return Ok(shape_vae::Config { scale_factor: 1.0, ..config });
        }
        let block = "geo_decoder.cross_attn_decoder";
        let (width, geo_width) =
            (self.size("post_kl.weight", 0)?, self.size("geo_decoder.query_proj.weight", 0)?);
        Ok(shape_vae::Config {
            num_latents: self.file.info("in.z").and_then(|info| info.shape.get(1).copied()).unwrap_or(1),
            embed_dim: self.size("post_kl.weight", 1)?,
            num_freqs: (self.size("geo_decoder.query_proj.weight", 1)? / 3 - 1) / 2,
            include_pi: false,
            heads: match self.size("transformer.resblocks.0.attn.attention.q_norm.weight", 0) {
                Ok(head) => width / head,
                Err(_) => HEADS,
            },
            width,
            num_decoder_layers: self.count("transformer.resblocks."),
            qkv_bias: self.weights().info(&format!("{block}.attn.c_q.bias")).is_some(),
            qk_norm: self.weights().info("transformer.resblocks.0.attn.attention.q_norm.weight").is_some(),
            scale_factor: 1.0,
            geo_decoder_mlp_expand_ratio: self.size(&format!("{block}.mlp.c_fc.weight"), 0)? / geo_width,
            geo_decoder_downsample_ratio: width / geo_width,
            geo_decoder_ln_post: self.weights().info("geo_decoder.ln_post.weight").is_some(),
        })
    }
}
