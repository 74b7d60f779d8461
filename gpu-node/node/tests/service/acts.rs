//! Failures on demand: what the scripted family `acts` does on its next runs, and the device memory that it holds
//! meanwhile.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use orfeas_node::pipeline::{DeviceMemory, GenerationRequest, Monitor, PipelineError, Settings};
use tokio::sync::watch;

/// What a job of the family holds while it runs.
const JOB_BYTES: u64 = 1 << 30;

/// How one run ends; a run beyond the script ends well.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    /// It reaches a stage and fails there.
    Fails { stage: &'static str, error: PipelineError },
    /// It goes on until it is asked to stop.
    Endless,
    /// It neither ends nor shows a sign of life.
    Hangs,
}

impl Act {
    pub(crate) fn out_of_memory(stage: &'static str) -> Self {
        Self::Fails { stage, error: PipelineError::OutOfMemory("scripted".to_owned()) }
    }
}

/// The script and what is seen of its runs.
#[derive(Default)]
pub(crate) struct Acts {
    script: Mutex<VecDeque<Act>>,
    settings: Mutex<Vec<Settings>>,
    allocated: AtomicU64,
    pub(crate) trims: AtomicUsize,
    /// Turns true when the engine has ended.
    pub(crate) ended: watch::Sender<bool>,
}

impl Acts {
    pub(crate) fn expect(&self, acts: impl IntoIterator<Item = Act>) {
        self.script.lock().unwrap().extend(acts);
    }

    /// The settings of the runs so far, which are forgotten by this.
    pub(crate) fn take_settings(&self) -> Vec<Settings> {
        std::mem::take(&mut self.settings.lock().unwrap())
    }

    pub(crate) fn memory(&self) -> DeviceMemory {
        let allocated_bytes = self.allocated.load(Ordering::SeqCst);
        let (total_bytes, reserved_bytes) = (8 << 30, allocated_bytes);
        let free_bytes = total_bytes - reserved_bytes;
        DeviceMemory { total_bytes, free_bytes, allocated_bytes, reserved_bytes, ..DeviceMemory::default() }
    }

    pub(crate) async fn play(
        &self,
        request: &GenerationRequest,
        monitor: &mut dyn Monitor,
    ) -> Result<(), PipelineError> {
        self.settings.lock().unwrap().push(request.settings.clone());
        let _held = Held::of(&self.allocated);
        let act = self.script.lock().unwrap().pop_front();
        match act {
            None => Ok(()),
            Some(Act::Fails { stage, error }) => {
                monitor.progress(stage, 0.4);
                Err(error)
            }
            Some(Act::Endless) => {
                while !monitor.is_cancelled() {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                Err(PipelineError::Cancelled)
            }
            Some(Act::Hangs) => std::future::pending().await,
        }
    }
}

/// Device memory of a run; given back with it, whatever its end.
struct Held<'a>(&'a AtomicU64);

impl<'a> Held<'a> {
    fn of(allocated: &'a AtomicU64) -> Self {
        allocated.fetch_add(JOB_BYTES, Ordering::SeqCst);
        Self(allocated)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(JOB_BYTES, Ordering::SeqCst);
    }
}
