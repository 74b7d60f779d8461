//! Why a job failed, and which problem code that is.

use std::time::Duration;

use orfeas_protocol::problem::Code;
use orfeas_torch::{FailureClass, TorchError};
use thiserror::Error;

use super::ModelKey;

/// Why the pipeline gave no model.
#[derive(Debug, Clone, Error)]
#[non_exhaustive]
pub enum PipelineError {
    /// The monitor asked for it, or nobody waits for the result any more.
    #[error("the job was cancelled")]
    Cancelled,
    /// Every place in the inference thread's queue is taken.
    #[error("the inference queue is full")]
    Busy,
    /// The inference thread has ended.
    #[error("the inference thread has stopped")]
    Stopped,
    /// Nothing in the picture can be told from its background, or the background from the subject.
    #[error("no subject was found in the picture")]
    NoSubject,
    /// The picture cannot be decoded.
    #[error("decode the picture: {0}")]
    InvalidImage(String),
    /// No family here does this.
    #[error("{0} is not supported by this node")]
    NotSupported(String),
    /// The family's weights are not installed.
    #[error("the weights of family {0} are not installed")]
    WeightsMissing(String),
    /// The family's weights are there and cannot be used.
    #[error("the weights of family {family} cannot be used: {reason}")]
    WeightsUnusable {
        /// The family.
        family: &'static str,
        /// What is wrong with them.
        reason: String,
    },
    /// The device has too little memory.
    #[error("out of device memory: {0}")]
    OutOfMemory(String),
    /// The device's context is gone: it refuses all work until the process is started again.
    #[error("the device is lost: {0}")]
    DeviceLost(String),
    /// The engine does not have the model that the job was to run on.
    #[error("model {0} is not installed")]
    NotInstalled(ModelKey),
    /// The model was not loaded within the time that a job waits for it.
    #[error("the model of family {0} is not ready yet")]
    ModelNotReady(String),
    /// The run was stopped because it had had its time.
    #[error("the run took longer than {} s", .limit.as_secs())]
    TimedOut {
        /// Its time.
        limit: Duration,
    },
    /// The inference thread has shown no sign of life for too long; whether it still runs is unknown.
    #[error("the inference thread has been silent for {} s", .silence.as_secs())]
    Stuck {
        /// For how long.
        silence: Duration,
    },
    /// The shape has no inside at this resolution.
    #[error("the shape is empty")]
    EmptyMesh,
    /// A tensor operation failed.
    #[error("tensor operation: {0}")]
    Tensor(String),
    /// The shape cannot be made a mesh.
    #[error("make the mesh: {0}")]
    Geometry(String),
    /// The model file cannot be written.
    #[error("write the model file: {0}")]
    Export(String),
    /// A stage panicked; the job is lost, the thread goes on.
    #[error("the {stage} stage panicked: {message}")]
    Panicked {
        /// The stage that ran.
        stage: &'static str,
        /// The panic's message.
        message: String,
    },
}

impl PipelineError {
    /// The code that callers see. A cancelled job has no problem to show: handle [`Self::Cancelled`] before.
    pub fn code(&self) -> Code {
        match self {
            Self::NoSubject => Code::NoSubject,
            Self::InvalidImage(_) => Code::InvalidImage,
            Self::NotSupported(_) => Code::NotSupported,
            Self::WeightsMissing(_) | Self::WeightsUnusable { .. } => Code::WeightsMissing,
            Self::OutOfMemory(_) => Code::GpuMemoryInsufficient,
            Self::Busy => Code::QueueFull,
            Self::ModelNotReady(_) => Code::UpstreamUnavailable,
            Self::TimedOut { .. } => Code::DeadlineExceeded,
            Self::Cancelled
            | Self::Stopped
            | Self::DeviceLost(_)
            | Self::Stuck { .. }
            | Self::NotInstalled(_)
            | Self::EmptyMesh
            | Self::Tensor(_)
            | Self::Geometry(_)
            | Self::Export(_)
            | Self::Panicked { .. } => Code::Internal,
        }
    }
}

impl From<TorchError> for PipelineError {
    fn from(error: TorchError) -> Self {
        match error.class() {
            FailureClass::OutOfMemory => Self::OutOfMemory(error.to_string()),
            FailureClass::DeviceLost => Self::DeviceLost(error.to_string()),
            FailureClass::Other => Self::Tensor(error.to_string()),
        }
    }
}
