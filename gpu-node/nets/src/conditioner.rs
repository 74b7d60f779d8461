//! Pictures to the denoiser's context: one picture, or several views of the subject.

use crate::Error;
use crate::dino::{self, Dino};
use crate::error::require;
use crate::layers::sinusoid_angles;
use crate::weights::Weights;
use orfeas_torch::attempt;
use serde::Deserialize;
use tch::{Device, Kind, Tensor};

/// ImageNet's mean and standard deviation, by channel.
const MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const DEVIATION: [f32; 3] = [0.229, 0.224, 0.225];
/// Views that a position is known for.
const MAX_VIEWS: usize = 4;
const VIEW_PERIOD: f64 = 10_000.0;

/// The encoder, as in `config.yaml` under `conditioner.params.main_image_encoder`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Config {
    /// The encoder's class.
    #[serde(rename = "type")]
    pub kind: EncoderKind,
    /// Its arguments.
    pub kwargs: EncoderConfig,
}

/// One picture or several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum EncoderKind {
    /// One picture.
    #[serde(rename = "DinoImageEncoder")]
    Single,
    /// Views from the front, left, back and right.
    #[serde(rename = "DinoImageEncoderMV")]
    MultiView,
}

/// Arguments of the encoder.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct EncoderConfig {
    /// The network.
    pub config: dino::Config,
    /// Side to which pictures are resized for it, in pixels.
    pub image_size: i64,
}

impl Config {
    /// Checks sizes against each other.
    pub fn validate(&self) -> Result<(), Error> {
        self.kwargs.config.validate()?;
        let (size, patch) = (self.kwargs.image_size, self.kwargs.config.patch_size);
        require(size > 0 && size % patch == 0, "conditioner", || {
            format!("image_size {size} is not a multiple of the patch size {patch}")
        })?;
        require(
            self.kind == EncoderKind::Single || self.kwargs.config.hidden_size % 2 == 0,
            "conditioner",
            || "several views need an even width".to_owned(),
        )
    }

    /// Context tokens for a number of views.
    pub fn tokens(&self, views: i64) -> i64 {
        views * self.kwargs.config.tokens(self.kwargs.image_size)
    }
}

/// Where a view is seen from, clockwise from above.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum View {
    /// The front.
    Front = 0,
    /// The subject's left, 90° on.
    Left = 1,
    /// The back.
    Back = 2,
    /// The subject's right.
    Right = 3,
}

/// The conditioner.
#[derive(Debug)]
pub struct Conditioner {
    config: Config,
    dino: Dino,
    kind: Kind,
    device: Device,
}

impl Conditioner {
    /// Takes the weights from a scope that holds `main_image_encoder`.
    pub fn new(w: &Weights<'_>, config: &Config) -> Self {
        let scope = w.scope("main_image_encoder").scope("model");
        Self::with_encoder(Dino::new(&scope, &config.kwargs.config), config, w.kind(), w.device())
    }

    /// Around an encoder that has been made.
    pub fn with_encoder(dino: Dino, config: &Config, kind: Kind, device: Device) -> Self {
        Self { config: config.clone(), dino, kind, device }
    }

    /// The conditioner's settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The picture encoder.
    pub fn dino(&self) -> &Dino {
        &self.dino
    }

    /// Pictures of one subject each, `[B, 3, s, s]` in -1..1 → context `[B, S, D]`.
    pub fn encode(&self, images: &Tensor) -> Result<Tensor, Error> {
        let _no_grad = tch::no_grad_guard();
        finite(attempt(|| self.dino.forward(&self.pixels(images)))?)
    }

    /// Views of one subject, `[V, 3, s, s]` in -1..1 → context `[1, V·S, D]`.
    pub fn encode_views(&self, images: &Tensor, views: &[View]) -> Result<Tensor, Error> {
        let _no_grad = tch::no_grad_guard();
        require(
            views.len() as i64 == images.size()[0] && (1..=MAX_VIEWS).contains(&views.len()),
            "views",
            || format!("{} pictures for {} views", images.size()[0], views.len()),
        )?;
        finite(attempt(|| {
            let tokens = self.dino.forward(&self.pixels(images));
            let embedding = self.view_embedding().to_kind(self.kind).to_device(self.device);
            let rows: Vec<i64> = views.iter().map(|&view| view as i64).collect();
            let rows = embedding.index_select(0, &Tensor::from_slice(&rows).to_device(self.device));
            (tokens + rows.unsqueeze(1)).flatten(0, 1).unsqueeze(0)
        })?)
    }

    /// -1..1 → resized with anti-aliasing, normalised, in the network's type.
    pub(crate) fn pixels(&self, images: &Tensor) -> Tensor {
        let size = self.config.kwargs.image_size;
        let channels = |values: [f32; 3]| Tensor::from_slice(&values).view([3, 1, 1]).to_device(self.device);
        // In f32: the CPU has no anti-aliased resize of half types.
        let unit = (images.to_device(self.device).to_kind(Kind::Float) + 1.0) / 2.0;
        let resized = unit.internal_upsample_bilinear2d_aa([size, size], false, None, None);
        ((resized - channels(MEAN)) / channels(DEVIATION)).to_kind(self.kind)
    }

    /// `[4, D]`: sines, then cosines of the view's index, in `f32`.
    pub(crate) fn view_embedding(&self) -> Tensor {
        let half = self.config.kwargs.config.hidden_size / 2;
        let views = Tensor::arange(MAX_VIEWS as i64, (Kind::Double, Device::Cpu));
        let angles = sinusoid_angles(&views, half, VIEW_PERIOD, 1.0);
        Tensor::cat(&[angles.sin(), angles.cos()], -1)
    }
}

fn finite(context: Tensor) -> Result<Tensor, Error> {
    if attempt(|| context.isfinite().all().int64_value(&[]) != 0)? {
        Ok(context)
    } else {
        Err(Error::NonFinite { stage: "the image encoder" })
    }
}
