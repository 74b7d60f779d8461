//! Faults that no picture brings about, acted out on demand, so that tests see what a real node does about them.
//!
//! The file `noop/fault` in the models folder names one. The next job acts it out and removes the file first, so that
//! the process that comes after this one can do the job.

use std::fs;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::thread;

use super::NOOP_FAMILY;
use crate::pipeline::PipelineError;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    DeviceLost,
    ThreadEnds,
    Hangs,
}

impl Fault {
    /// Where a fault is named.
    pub(super) fn file(models: &Path) -> PathBuf {
        models.join(NOOP_FAMILY).join("fault")
    }

    /// The fault that is named there, once.
    pub(super) fn take(file: &Path) -> Option<Self> {
        let fault = match fs::read_to_string(file).ok()?.trim() {
            "device_lost" => Self::DeviceLost,
            "inference_stopped" => Self::ThreadEnds,
            "inference_stuck" => Self::Hangs,
            unknown => {
                tracing::warn!(fault = unknown, "a fault that is not known is not acted out");
                return None;
            }
        };
        fs::remove_file(file).ok()?;
        Some(fault)
    }

    /// Acts it out.
    ///
    /// # Errors
    /// What a lost device says. The other faults do not return.
    pub(super) fn act_out<T>(self) -> Result<T, PipelineError> {
        match self {
            Self::DeviceLost => Err(PipelineError::DeviceLost("acted out".to_owned())),
            Self::ThreadEnds => resume_unwind(Box::new(Unstoppable)),
            Self::Hangs => loop {
                thread::park();
            },
        }
    }
}

/// A panic that goes on where it is caught: whoever drops it panics.
struct Unstoppable;

impl Drop for Unstoppable {
    fn drop(&mut self) {
        resume_unwind(Box::new("acted out"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_taken_once_and_an_unknown_one_never() {
        let models = tempfile::tempdir().unwrap();
        let file = Fault::file(models.path());
        assert_eq!(Fault::take(&file), None);
        fs::create_dir(file.parent().unwrap()).unwrap();
        fs::write(&file, "device_lost\n").unwrap();
        assert_eq!(Fault::take(&file), Some(Fault::DeviceLost));
        assert_eq!(Fault::take(&file), None);
        fs::write(&file, "boredom").unwrap();
        assert_eq!(Fault::take(&file), None);
    }
}
