//! Picture in, model file out: the stages, and the thread that runs them.
//!
//! ```text
//!  models ──ModelSource::load──▶ LoadedModel ──install──▶ Shelf (shelf.rs): the device's models, by ModelKey
//!                                                                 │
//!  service ──GenerationRequest──▶ Inference ──bounded channel──▶ inference thread (one per device)
//!     decode ─▶ background ─▶ shape (family) ─▶ surface ─▶ cleanup ─▶ simplify ─▶ texture ─▶ export
//!          ◀──Run, oneshot── Monitor: progress out, cancel in ◀──┘
//! ```
//!
//! Nothing here knows NATS, HTTP or job records; nothing outside names a tensor.

pub(crate) mod background;
mod decode;
mod direct;
mod distance;
mod engine;
mod error;
mod export;
mod family;
mod hunyuan;
mod inference;
mod measure;
pub(crate) mod models;
mod neural;
mod noop;
mod raster;
mod registry;
mod run;
#[cfg(test)]
mod scripted;
mod settings;
mod shelf;
mod silhouette;
mod stage;
mod texture;
mod views;

use bytes::Bytes;
use orfeas_protocol::options::{BackgroundRemoval, JobType};
use orfeas_protocol::view::ModelChoice;

pub use direct::generate;
pub use engine::{DeviceMemory, Engine, LoadedModel, ModelKey, ModelSource, Run};
pub use error::PipelineError;
pub use inference::{Inference, InferenceConfig, StartError};
pub use neural::{NeuralConfig, Offload, ParseOffloadError};
pub use orfeas_geometry::MeshReport;
pub use orfeas_protocol::Side;
pub use settings::{QualitySource, Settings};
pub use stage::{Stage, StageWeights};
pub use views::{TwicePictured, Views};
#[cfg(test)]
pub(crate) use {
    family::{Family, Shape, Subject, Volume},
    scripted::ScriptedEngine,
    stage::Steps,
};

/// One job for the pipeline.
#[derive(Debug, Clone)]
pub struct GenerationRequest {
    /// The encoded picture, which has passed the upload checks.
    pub image: Bytes,
    /// What to make of it.
    pub job_type: JobType,
    /// How to make it.
    pub settings: Settings,
}

/// A finished model.
#[derive(Debug, Clone)]
pub struct Generated {
    /// The model file.
    pub file: Vec<u8>,
    /// Its media type.
    pub media_type: &'static str,
    /// The family and the settings that made it.
    pub model: ModelChoice,
    /// What the mesh is like.
    pub report: MeshReport,
    /// Wall time of each stage that ran, in order, by the stage's name.
    pub stage_seconds: Vec<(&'static str, f64)>,
}

/// A subject without its background.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CutOut {
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// RGB and straight alpha, row by row.
    pub rgba: Vec<u8>,
}

/// Runs the first two stages alone: decodes a picture and cuts its subject out.
///
/// # Errors
/// The picture cannot be decoded, or has no subject.
pub fn cut_out(file: &[u8], removal: BackgroundRemoval) -> Result<CutOut, PipelineError> {
    let picture = decode::decode(file, &mut |_| Ok(()))?;
    let mask = background::remove(&picture, removal, None, &mut |_| Ok(()))?;
    let (width, height) = (picture.colour.width(), picture.colour.height());
    let mask = mask.resized(width, height);
    let rgba = picture.colour.zip(&mask, |[r, g, b, _], alpha| [r, g, b, (alpha * 255.0).round() as u8]);
    Ok(CutOut { width, height, rgba: rgba.samples().as_flattened().to_vec() })
}

/// How a running job talks to whoever waits for it. Called on the inference thread: neither call may block.
pub trait Monitor: Send {
    /// `fraction` of the whole job is done, 0 to 1, and `stage` runs. Never falls within one job.
    fn progress(&mut self, stage: &'static str, fraction: f32);
    /// Whether the job should stop; read between stages and within the long ones.
    fn is_cancelled(&self) -> bool;
    /// How much of the job each stage is; asked once, before the first stage.
    fn weights(&self) -> StageWeights {
        StageWeights::default()
    }
}

/// Nobody waits for it, and nothing stops it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unwatched;

impl Monitor for Unwatched {
    fn progress(&mut self, _stage: &'static str, _fraction: f32) {}

    fn is_cancelled(&self) -> bool {
        false
    }
}
