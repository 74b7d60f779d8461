//! Picture in, model file out: the stages, and the thread that runs them.
//!
//! ```text
//!  service ──GenerationRequest──▶ Inference ──bounded channel──▶ inference thread (one per device)
//!                                                                 │ families (family.rs)
//!     decode ─▶ background ─▶ shape (family) ─▶ surface ─▶ cleanup ─▶ simplify ─▶ texture ─▶ export
//!          ◀──Generated / PipelineError, oneshot── Monitor: progress out, cancel in ◀──┘
//! ```
//!
//! Nothing here knows NATS, HTTP or job records; nothing outside names a tensor.

mod error;
mod family;
mod inference;
mod stage;

use bytes::Bytes;
use orfeas_protocol::options::{JobOptions, JobType};
use orfeas_protocol::view::ModelChoice;

pub use error::PipelineError;
pub use family::FamilyInfo;
pub use inference::{Inference, InferenceConfig, StartError};
pub use stage::Stage;

/// One job for the pipeline.
#[derive(Debug, Clone)]
pub struct GenerationRequest {
    /// The encoded picture, which has passed the upload checks.
    pub image: Bytes,
    /// What to make of it.
    pub job_type: JobType,
    /// How to make it.
    pub options: JobOptions,
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

/// What the mesh is like. Stands here until the geometry crate's report lands.
#[derive(Debug, Clone, PartialEq)]
pub struct MeshReport {
    /// Vertices.
    pub vertices: usize,
    /// Triangles.
    pub faces: usize,
    /// Whether every edge joins exactly two faces.
    pub watertight: bool,
    /// The least corner of the bounding box, in metres.
    pub min: [f32; 3],
    /// The greatest corner of the bounding box, in metres.
    pub max: [f32; 3],
}

/// How a running job talks to whoever waits for it. Called on the inference thread: neither call may block.
pub trait Monitor: Send {
    /// `fraction` of the whole job is done, 0 to 1, and `stage` runs. Never falls within one job.
    fn progress(&mut self, stage: &'static str, fraction: f32);
    /// Whether the job should stop; read between stages and within the long ones.
    fn is_cancelled(&self) -> bool;
}
