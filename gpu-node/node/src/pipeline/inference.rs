//! The inference thread of a device: it owns the tensors, takes one job at a time, and outlives a panic in a job.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use orfeas_torch::{Backend, DeviceChoice, TorchError, attempt};
use tch::Device;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use super::family::{Family, registry};
use super::run::run;
use super::{FamilyInfo, Generated, GenerationRequest, Monitor, PipelineError, Stage};

/// How to start an inference thread.
#[derive(Debug, Clone)]
pub struct InferenceConfig {
    /// The family of requests that name none.
    pub default_family: String,
    /// Jobs that may wait for the thread beside the one that runs; more are answered [`PipelineError::Busy`].
    pub queue_depth: usize,
    /// Threads of a tensor operation on the CPU; set once for the process, by the first thread that starts.
    pub cpu_threads: usize,
    /// The device whose tensors the thread owns.
    pub device: DeviceChoice,
    /// Where the CUDA libraries are, if not beside the linked ones.
    pub cuda_folder: Option<PathBuf>,
    /// Where model folders are, each named as its family; `None` for the usual place. The published tools' cache is
    /// looked at after it.
    pub models_folder: Option<PathBuf>,
}

impl Default for InferenceConfig {
    fn default() -> Self {
        // The scheduler in front keeps the real queue; a place or two hide the hand-over.
        Self {
            default_family: "silhouette".to_owned(),
            queue_depth: 2,
            cpu_threads: thread::available_parallelism().map_or(1, usize::from),
            device: DeviceChoice::Auto,
            cuda_folder: None,
            models_folder: None,
        }
    }
}

/// Why no inference thread could be started.
#[derive(Debug, Error)]
pub enum StartError {
    /// The default family is not one of the registry.
    #[error("no model family is called {0}")]
    UnknownFamily(String),
    /// The device is not there, or its libraries do not load.
    #[error("open the device")]
    Device(#[from] TorchError),
    /// The operating system gave no thread.
    #[error("start the inference thread")]
    Thread(#[from] std::io::Error),
}

/// Makes the families of a device, with the folder of their models; called on the thread that is to own their tensors.
type Registry = fn(Device, Option<&Path>) -> Vec<Box<dyn Family>>;

struct Command {
    request: GenerationRequest,
    monitor: Box<dyn Monitor>,
    reply: oneshot::Sender<Result<Generated, PipelineError>>,
}

/// A handle of a device's inference thread. The thread ends after its current job once all handles are gone.
#[derive(Debug, Clone)]
pub struct Inference {
    commands: mpsc::Sender<Command>,
    families: Arc<[FamilyInfo]>,
}

impl Inference {
    /// Loads the device's libraries and starts the thread.
    ///
    /// # Errors
    /// The device cannot be opened, the default family is unknown, or the system gives no thread.
    pub fn start(config: InferenceConfig) -> Result<Inference, StartError> {
        Self::start_with(config, registry)
    }

    fn start_with(config: InferenceConfig, registry: Registry) -> Result<Inference, StartError> {
        let device = Backend::load(config.cuda_folder.as_deref())?.device(config.device)?;
        let families: Arc<[FamilyInfo]> =
            registry(device, config.models_folder.as_deref()).iter().map(|family| family.info()).collect();
        if !families.iter().any(|family| family.name == config.default_family) {
            return Err(StartError::UnknownFamily(config.default_family));
        }
        let (commands, inbox) = mpsc::channel(config.queue_depth.max(1));
        let thread = thread::Builder::new().name("inference".to_owned());
        thread.spawn(move || serve(inbox, device, &config, registry))?;
        Ok(Inference { commands, families })
    }

    /// Runs a job. Dropping the future cancels it, so a deadline around this call is also the job's.
    ///
    /// # Errors
    /// As [`PipelineError`] says; [`PipelineError::Busy`] at once when the thread's queue is full.
    pub async fn generate(
        &self,
        request: GenerationRequest,
        monitor: Box<dyn Monitor>,
    ) -> Result<Generated, PipelineError> {
        let (reply, answer) = oneshot::channel();
        self.commands.try_send(Command { request, monitor, reply }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => PipelineError::Busy,
            mpsc::error::TrySendError::Closed(_) => PipelineError::Stopped,
        })?;
        answer.await.unwrap_or(Err(PipelineError::Stopped))
    }

    /// The families that the thread can run.
    pub fn families(&self) -> &[FamilyInfo] {
        &self.families
    }
}

/// Cancelled also when nobody waits for the answer any more.
struct Caller<'a> {
    monitor: Box<dyn Monitor>,
    reply: &'a oneshot::Sender<Result<Generated, PipelineError>>,
    stage: &'static str,
}

impl Monitor for Caller<'_> {
    fn progress(&mut self, stage: &'static str, fraction: f32) {
        self.stage = stage;
        self.monitor.progress(stage, fraction);
    }

    fn is_cancelled(&self) -> bool {
        self.reply.is_closed() || self.monitor.is_cancelled()
    }
}

fn serve(mut inbox: mpsc::Receiver<Command>, device: Device, config: &InferenceConfig, registry: Registry) {
    tch::set_num_threads(i32::try_from(config.cpu_threads).unwrap_or(1).max(1));
    // Gradients are switched off for each thread by itself.
    let _no_gradients = tch::no_grad_guard();
    let models = config.models_folder.as_deref();
    let mut families = registry(device, models);
    while let Some(Command { request, monitor, reply }) = inbox.blocking_recv() {
        let mut caller = Caller { monitor, reply: &reply, stage: Stage::Decode.as_str() };
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            // Failed tensor operations panic inside of tch; `attempt` makes errors of them.
            attempt(|| run(&mut families, &config.default_family, &request, &mut caller))
        }));
        let outcome = match outcome {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(failed_operation)) => Err(failed_operation.into()),
            Err(payload) => {
                // Whatever a family was in the middle of is lost with the job.
                families = registry(device, models);
                Err(PipelineError::Panicked { stage: caller.stage, message: panic_message(payload.as_ref()) })
            }
        };
        // The caller may have gone; then nobody wants the answer.
        let _ = reply.send(outcome);
    }
}

fn panic_message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message").to_owned()
}

#[cfg(test)]
mod tests;
