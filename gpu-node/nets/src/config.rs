//! `config.yaml` of a published model folder: what it is made of, read and checked.
//!
//! Sections name Python classes, `{target, params}`. Only the class's own name
//! counts, as the releases keep the same classes in different packages; a class
//! that is not known here is refused by name.

use crate::conditioner::{self, EncoderKind};
use crate::error::require;
use crate::schedule::Schedule;
use crate::{Error, dit21, hunyuan_dit, picture, shape_vae};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// A whole model.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The denoiser.
    pub model: Model,
    /// The shape decoder.
    pub vae: shape_vae::Config,
    /// The picture encoder.
    pub conditioner: conditioner::Config,
    /// The noise schedule.
    pub schedule: Schedule,
    /// The image front end.
    pub picture: picture::Config,
}

/// Which denoiser, and its sizes.
#[derive(Debug, Clone, PartialEq)]
pub enum Model {
    /// Hunyuan3D-2's.
    Hunyuan(hunyuan_dit::Config),
    /// Hunyuan3D-2.1's.
    Plain(dit21::Config),
}

impl Model {
    /// Channels of a latent.
    pub fn latent_channels(&self) -> i64 {
        match self {
            Self::Hunyuan(config) => config.in_channels,
            Self::Plain(config) => config.in_channels,
        }
    }

    /// Width of the context.
    pub fn context_width(&self) -> i64 {
        match self {
            Self::Hunyuan(config) => config.context_in_dim,
            Self::Plain(config) => config.context_dim,
        }
    }

    /// Whether the guidance scale is an input of the network.
    pub fn is_distilled(&self) -> bool {
        matches!(self, Self::Hunyuan(config) if config.guidance_embed)
    }
}

#[derive(Deserialize)]
struct Section {
    target: String,
    #[serde(default)]
    params: Value,
}

impl Section {
    fn class(&self) -> &str {
        self.target.rsplit('.').next().unwrap_or_default()
    }

    fn params<T: DeserializeOwned>(&self, section: &'static str) -> Result<T, Error> {
        let params =
            if self.params.is_null() { Value::Object(Default::default()) } else { self.params.clone() };
        serde_json::from_value(params).map_err(|error| Error::config(section, error.to_string()))
    }

    fn unknown(&self, section: &'static str) -> Error {
        Error::config(section, format!("the class {} is not supported", self.target))
    }
}

/// `params` of the conditioner section.
#[derive(Deserialize)]
struct ConditionerParams {
    main_image_encoder: conditioner::Config,
}

/// `params` of the scheduler section, for both classes.
#[derive(Deserialize)]
struct SchedulerParams {
    #[serde(default = "default_shift")]
    shift: f64,
    #[serde(default)]
    use_dynamic_shifting: bool,
    #[serde(default = "default_phases")]
    pcm_timesteps: u32,
}

fn default_shift() -> f64 {
    1.0
}

fn default_phases() -> u32 {
    50
}

impl Config {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text =
            std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        Self::parse(&text)
    }

    /// Reads YAML, of which JSON is a part.
    pub fn parse(yaml: &str) -> Result<Self, Error> {
        let sections: BTreeMap<String, Section> =
            serde_saphyr::from_str(yaml).map_err(|error| Error::config("config.yaml", error.to_string()))?;
        let section = |name: &'static str| {
            sections.get(name).ok_or_else(|| Error::config(name, "the section is missing"))
        };
        let config = Self {
            model: model(section("model")?)?,
            vae: vae(section("vae")?)?,
            conditioner: conditioner(section("conditioner")?)?,
            schedule: schedule(section("scheduler")?)?,
            picture: picture(section("image_processor")?)?,
        };
        config.validate()?;
        Ok(config)
    }

    /// Checks the parts, and that they fit each other.
    pub fn validate(&self) -> Result<(), Error> {
        match &self.model {
            Model::Hunyuan(config) => config.validate()?,
            Model::Plain(config) => config.validate()?,
        }
        self.vae.validate()?;
        self.conditioner.validate()?;
        self.schedule.validate()?;
        self.picture.validate()?;
        let (latent, embedded) = (self.model.latent_channels(), self.vae.embed_dim);
        require(latent == embedded, "model", || {
            format!("it makes latents of {latent} channels, and the vae decodes {embedded}")
        })?;
        let (wanted, given) = (self.model.context_width(), self.conditioner.kwargs.config.hidden_size);
        require(wanted == given, "model", || {
            format!("it wants a context {wanted} wide, and the conditioner gives {given}")
        })
    }

    /// Whether the model takes several views of the subject.
    pub fn is_multi_view(&self) -> bool {
        self.conditioner.kind == EncoderKind::MultiView
    }
}

fn model(section: &Section) -> Result<Model, Error> {
    match section.class() {
        "Hunyuan3DDiT" => Ok(Model::Hunyuan(section.params("model")?)),
        "HunYuanDiTPlain" => Ok(Model::Plain(section.params("model")?)),
        _ => Err(section.unknown("model")),
    }
}

fn vae(section: &Section) -> Result<shape_vae::Config, Error> {
    match section.class() {
        "ShapeVAE" => section.params("vae"),
        _ => Err(section.unknown("vae")),
    }
}

fn conditioner(section: &Section) -> Result<conditioner::Config, Error> {
    match section.class() {
        "SingleImageEncoder" => Ok(section.params::<ConditionerParams>("conditioner")?.main_image_encoder),
        _ => Err(section.unknown("conditioner")),
    }
}

fn schedule(section: &Section) -> Result<Schedule, Error> {
    let params: SchedulerParams = section.params("scheduler")?;
    match section.class() {
        "FlowMatchEulerDiscreteScheduler" => {
            require(!params.use_dynamic_shifting, "scheduler", || {
                "use_dynamic_shifting is not supported".to_owned()
            })?;
            Ok(Schedule::FlowMatchEuler { shift: params.shift })
        }
        "ConsistencyFlowMatchEulerDiscreteScheduler" => {
            Ok(Schedule::Consistency { phases: params.pcm_timesteps })
        }
        _ => Err(section.unknown("scheduler")),
    }
}

fn picture(section: &Section) -> Result<picture::Config, Error> {
    match section.class() {
        "ImageProcessorV2" | "MVImageProcessorV2" => section.params("image_processor"),
        _ => Err(section.unknown("image_processor")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINI: &str = include_str!("../tests/golden/mini_checkpoint/config.yaml");

    fn refusal(from: &str, to: &str) -> String {
        let yaml = MINI.replacen(from, to, 1);
        assert_ne!(yaml, MINI, "{from} is not in the file");
        Config::parse(&yaml).unwrap_err().to_string()
    }

    #[test]
    fn the_published_layout_is_read() {
        let config = Config::parse(MINI).unwrap();
        assert_eq!(config.schedule, Schedule::FlowMatchEuler { shift: 1.0 });
        assert_eq!(config.picture, picture::Config { size: 64, border_ratio: None });
        assert_eq!(config.conditioner.kwargs.image_size, 56);
        assert!(!config.is_multi_view() && !config.model.is_distilled());
        assert!((config.vae.scale_factor - 0.999_094_304_262_252_9).abs() < 1e-15);
    }

    #[test]
    fn the_variants_of_the_published_models_are_read() {
        let turbo = MINI
            .replace("FlowMatchEulerDiscreteScheduler", "ConsistencyFlowMatchEulerDiscreteScheduler")
            .replace("num_train_timesteps: 1000", "num_train_timesteps: 1000\n    pcm_timesteps: 100")
            .replace("qkv_bias: true\nvae", "qkv_bias: true\n    guidance_embed: true\nvae")
            .replace("DinoImageEncoder\n", "DinoImageEncoderMV\n")
            .replace(
                "hy3dgen.shapegen.preprocessors.ImageProcessorV2",
                "hy3dshape.preprocessors.MVImageProcessorV2",
            );
        let config = Config::parse(&turbo).unwrap();
        assert_eq!(config.schedule, Schedule::Consistency { phases: 100 });
        assert!(config.is_multi_view() && config.model.is_distilled());
    }

    #[test]
    fn unknown_classes_are_refused_by_name() {
        for class in ["Hunyuan3DDiT", "ShapeVAE", "SingleImageEncoder", "ImageProcessorV2"] {
            let text = refusal(class, "os.system");
            assert!(text.contains("os.system is not supported"), "{text}");
        }
        assert!(refusal("DinoImageEncoder", "CLIPImageEncoder").contains("CLIPImageEncoder"));
    }

    #[test]
    fn sections_that_contradict_each_other_are_refused() {
        assert!(refusal("embed_dim: 8", "embed_dim: 16").contains("16"));
        assert!(refusal("context_in_dim: 32", "context_in_dim: 64").contains("64"));
        assert!(refusal("num_heads: 2", "num_heads: 3").contains("num_heads"));
        assert!(refusal("- 16", "- 12").contains("axes_dim"));
        assert!(refusal("image_size: 56", "image_size: 57").contains("57"));
        assert!(refusal("scale_factor: 0.9990943042622529", "scale_factor: 0").contains("scale_factor"));
    }

    #[test]
    fn texts_that_are_no_configuration_are_refused() {
        for text in ["", "[]", "model: 3", "{", "model: {target: x}", "\u{0}", "a: &a [*a, *a]"] {
            assert!(Config::parse(text).is_err(), "{text:?}");
        }
        assert!(refusal("vae:", "wae:").contains("the section is missing"));
    }
}
