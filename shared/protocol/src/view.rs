//! The job object that callers see, exactly as the contract lists it. Fields that do not apply are null.

use serde::{Deserialize, Serialize};

use crate::ids::{JobId, NodeId, Region, Sha256Digest};
use crate::job::JobStatus;
use crate::options::{JobType, Priority};
use crate::problem::Code;
use crate::rollout::Channel;
use crate::timestamp::Timestamp;

/// The job object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// The job's id.
    pub id: JobId,
    /// What it makes.
    #[serde(rename = "type")]
    pub job_type: JobType,
    /// Where it stands.
    pub status: JobStatus,
    /// 0 to 100; never falls.
    pub progress: u8,
    /// The pipeline stage that runs, or ran last.
    pub stage: Option<String>,
    /// 1 to 10; 10 goes first.
    pub priority: Priority,
    /// When it was submitted.
    pub created_at: Timestamp,
    /// When a node first began it.
    pub started_at: Option<Timestamp>,
    /// When it reached a terminal state.
    pub completed_at: Option<Timestamp>,
    /// Median estimate of the seconds until it ends.
    pub eta_seconds: Option<f64>,
    /// The estimate that nine in ten jobs keep.
    pub eta_p90_seconds: Option<f64>,
    /// How many jobs go before it.
    pub queue_position: Option<u64>,
    /// How often a node has begun it.
    pub attempt: u32,
    /// The region it runs in.
    pub region: Region,
    /// The node that runs, or ran, it.
    pub node: Option<NodeId>,
    /// The release channel, kept through retries.
    pub channel: Channel,
    /// What generates it.
    pub model: ModelChoice,
    /// The picture.
    pub input: InputImage,
    /// The recovery steps that were taken, in order.
    pub recoveries: Vec<Recovery>,
    /// Why it failed.
    pub error: Option<JobError>,
    /// What came out.
    pub result: Option<JobResult>,
    /// Where to go from here.
    pub links: Links,
}

/// The model and its settings, filled in by the node as they are decided.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ModelChoice {
    /// The model family.
    pub family: Option<String>,
    /// The fingerprint of its weights.
    pub version: Option<String>,
    /// The seed.
    pub seed: Option<u64>,
    /// Denoising steps.
    pub steps: Option<u16>,
    /// Guidance scale.
    pub guidance_scale: Option<f32>,
    /// The quality level.
    pub quality: Option<u8>,
    /// Who chose the quality: `request`, `history` or `default`.
    pub quality_source: Option<String>,
}

/// The uploaded picture, after the checks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InputImage {
    /// Digest of the file as it was sent; its name in the object store.
    pub sha256: Sha256Digest,
    /// `jpeg`, `png` or `webp`.
    pub format: String,
    /// Width in pixels, as stored in the file.
    pub width: u32,
    /// Height in pixels, as stored in the file.
    pub height: u32,
    /// Size of the file.
    pub bytes: u64,
}

/// One rung of the recovery ladder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovery {
    /// What was done.
    pub strategy: String,
    /// What made it necessary.
    pub reason: String,
}

/// Why a job failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobError {
    /// The code.
    pub code: Code,
    /// For people.
    pub message: String,
    /// Whether the same submission can succeed later.
    pub retryable: bool,
}

impl JobError {
    /// An error with the table's answer to whether a retry can help.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retryable: code.retryable() }
    }
}

/// What came out, and where it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobResult {
    /// Path of the file at the edge.
    pub url: String,
    /// Its media type.
    pub media_type: String,
    /// Its size.
    pub bytes: u64,
    /// Its digest.
    pub sha256: Sha256Digest,
    /// Vertices of the mesh.
    pub vertices: u64,
    /// Triangles of the mesh.
    pub faces: u64,
    /// Whether every edge joins exactly two faces.
    pub watertight: bool,
    /// The axis-aligned bounding box, in metres: glTF axes, +Y up, the picture's front toward +Z.
    pub bounds: Bounds,
}

/// An axis-aligned box.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Bounds {
    /// The least corner.
    pub min: [f32; 3],
    /// The greatest corner.
    pub max: [f32; 3],
}

/// Paths of the job's resources at the edge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Links {
    /// The job; DELETE cancels it.
    #[serde(rename = "self")]
    pub this: String,
    /// Its changes as server-sent events.
    pub events: String,
    /// The result's file.
    pub result: String,
}

impl Links {
    /// The links of a job.
    pub fn of(id: JobId) -> Self {
        let this = format!("/api/job/{id}");
        Self { events: format!("{this}/events"), result: format!("{this}/result"), this }
    }
}
