//! The classes of failures: what can be done about one, and where.

use crate::pipeline::PipelineError;

/// What kind of failure ended a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureClass {
    /// The device has too little memory: with less, or after others have made room, it may do.
    OutOfMemory,
    /// The family's weights are not there, or cannot be used.
    WeightsMissing,
    /// Somebody who is needed cannot be reached, or is busy, for the moment.
    Connection,
    /// The run took longer than it may.
    TimeOut,
    /// The picture or the request: the same input fails everywhere.
    BadInput,
    /// A defect of ours. The run is deterministic, so that this process would only repeat it.
    Bug,
    /// The device's context refuses all work: only a new process helps.
    DeviceLost,
}

impl FailureClass {
    /// The class of a pipeline's failure. A cancelled job has not failed: handle it before.
    pub fn of(error: &PipelineError) -> Self {
        match error {
            PipelineError::OutOfMemory(_) => Self::OutOfMemory,
            PipelineError::WeightsMissing(_) | PipelineError::WeightsUnusable { .. } => Self::WeightsMissing,
            PipelineError::Busy | PipelineError::ModelNotReady(_) | PipelineError::NotInstalled(_) => {
                Self::Connection
            }
            PipelineError::TimedOut { .. } => Self::TimeOut,
            PipelineError::NoSubject | PipelineError::InvalidImage(_) | PipelineError::NotSupported(_) => {
                Self::BadInput
            }
            PipelineError::DeviceLost(_) | PipelineError::Stopped | PipelineError::Stuck { .. } => {
                Self::DeviceLost
            }
            _ => Self::Bug,
        }
    }

    /// The name in logs and in a recovery's reason.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OutOfMemory => "out_of_memory",
            Self::WeightsMissing => "weights_missing",
            Self::Connection => "connection",
            Self::TimeOut => "time_out",
            Self::BadInput => "bad_input",
            Self::Bug => "bug",
            Self::DeviceLost => "device_lost",
        }
    }

    /// Whether another start, here later or on another node, may end differently. A run that was too slow at the
    /// cheapest settings is not: the next node would spend the same time for nothing.
    pub const fn may_succeed_elsewhere(self) -> bool {
        match self {
            Self::OutOfMemory | Self::Connection | Self::Bug | Self::DeviceLost => true,
            Self::WeightsMissing | Self::TimeOut | Self::BadInput => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_have_the_class_that_says_what_helps() {
        let text = || "x".to_owned();
        let cases = [
            (PipelineError::OutOfMemory(text()), FailureClass::OutOfMemory),
            (PipelineError::WeightsMissing(text()), FailureClass::WeightsMissing),
            (PipelineError::Busy, FailureClass::Connection),
            (PipelineError::NoSubject, FailureClass::BadInput),
            (PipelineError::NotSupported(text()), FailureClass::BadInput),
            (PipelineError::Tensor(text()), FailureClass::Bug),
            (PipelineError::EmptyMesh, FailureClass::Bug),
            (PipelineError::Panicked { stage: "shape", message: text() }, FailureClass::Bug),
            (PipelineError::DeviceLost(text()), FailureClass::DeviceLost),
            (PipelineError::Stopped, FailureClass::DeviceLost),
        ];
        for (error, class) in cases {
            assert_eq!(FailureClass::of(&error), class, "{error}");
        }
    }

    #[test]
    fn a_lost_device_is_told_from_other_failed_operations_by_libtorchs_text() {
        let of = |message: &str| {
            let error = tch::TchError::Torch(message.to_owned());
            FailureClass::of(&PipelineError::from(orfeas_torch::TorchError::from(error)))
        };
        assert_eq!(of("CUDA error: an illegal memory access was encountered\nat"), FailureClass::DeviceLost);
        assert_eq!(of("CUDA out of memory. Tried to allocate 2.00 GiB"), FailureClass::OutOfMemory);
        assert_eq!(of("shapes cannot be multiplied"), FailureClass::Bug);
    }
}
