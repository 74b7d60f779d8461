//! The inference thread of a device: it takes one job at a time, and outlives a panic in a job.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use futures::future::BoxFuture;
use orfeas_torch::{Backend, DeviceChoice, TorchError, attempt};
use tch::Device;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;

use super::background::SubjectNetwork;
use super::engine::{DeviceMemory, Engine, LoadedModel, ModelKey, ModelSource, Run};
use super::family::Family;
use super::measure::{Meter, MeteredSource};
use super::models;
use super::neural::NeuralConfig;
use super::registry::{Registry, registry};
use super::run::run;
use super::shelf::Shelf;
use super::{Generated, GenerationRequest, Monitor, PipelineError, Stage};

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
    /// How the networks run.
    pub neural: NeuralConfig,
    /// Whether there is the family `noop`, which makes the same tetrahedron of every picture: for measuring and tests.
    pub noop_family: bool,
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
            neural: NeuralConfig::default(),
            noop_family: false,
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

struct Command {
    key: ModelKey,
    request: GenerationRequest,
    monitor: Box<dyn Monitor>,
    reply: oneshot::Sender<Run>,
}

/// A handle of a device's inference thread. The thread ends after its current job once all handles are gone.
#[derive(Clone)]
pub struct Inference {
    commands: mpsc::Sender<Command>,
    default_family: Arc<str>,
    sources: Arc<[Arc<dyn ModelSource>]>,
    shelf: Arc<Shelf>,
    meter: Arc<Meter>,
}

impl Inference {
    /// Loads the device's libraries and starts the thread.
    ///
    /// # Errors
    /// The device cannot be opened, the default family is unknown, or the system gives no thread.
    pub fn start(config: InferenceConfig) -> Result<Inference, StartError> {
        Self::start_with(config, registry)
    }

    pub(crate) fn start_with(config: InferenceConfig, registry: Registry) -> Result<Inference, StartError> {
        let device = Backend::load(config.cuda_folder.as_deref())?.device(config.device)?;
        let meter = Arc::new(Meter::new(device));
        let sources: Arc<[Arc<dyn ModelSource>]> = registry(device, &config)
            .into_iter()
            .map(|source| Arc::new(MeteredSource { source, meter: meter.clone() }) as Arc<dyn ModelSource>)
            .collect();
        if !sources.iter().any(|source| source.family() == config.default_family) {
            return Err(StartError::UnknownFamily(config.default_family));
        }
        let (commands, inbox) = mpsc::channel(config.queue_depth.max(1));
        let shelf = Arc::new(Shelf::default());
        let device_thread = DeviceThread {
            inbox,
            shelf: shelf.clone(),
            meter: meter.clone(),
            cpu_threads: config.cpu_threads,
            models_folder: config.models_folder.clone().or_else(models::default_folder),
            device,
        };
        thread::Builder::new().name("inference".to_owned()).spawn(move || device_thread.serve())?;
        Ok(Inference { commands, default_family: config.default_family.into(), sources, shelf, meter })
    }
}

impl Engine for Inference {
    fn default_family(&self) -> &str {
        &self.default_family
    }

    fn sources(&self) -> Vec<Arc<dyn ModelSource>> {
        self.sources.to_vec()
    }

    fn install(&self, key: ModelKey, model: LoadedModel) -> Result<(), PipelineError> {
        let family = model.into_family().ok_or_else(|| PipelineError::NotInstalled(key.clone()))?;
        self.meter.note_change();
        drop(self.shelf.put(key, family));
        Ok(())
    }

    fn remove(&self, key: ModelKey) -> BoxFuture<'_, ()> {
        let (shelf, meter) = (self.shelf.clone(), self.meter.clone());
        blocking(move || {
            if let Some(family) = shelf.remove(&key) {
                drop(family);
                meter.note_change();
                meter.trim();
            }
        })
    }

    fn installed(&self) -> Vec<ModelKey> {
        self.shelf.keys()
    }

    fn trim(&self) -> BoxFuture<'_, ()> {
        let meter = self.meter.clone();
        blocking(move || meter.trim())
    }

    fn run(
        &self,
        key: ModelKey,
        request: GenerationRequest,
        monitor: Box<dyn Monitor>,
    ) -> BoxFuture<'_, Run> {
        Box::pin(async move {
            let (reply, answer) = oneshot::channel();
            match self.commands.try_send(Command { key, request, monitor, reply }) {
                Ok(()) => answer.await.unwrap_or_else(|_| Run::failed(PipelineError::Stopped)),
                Err(mpsc::error::TrySendError::Full(_)) => Run::failed(PipelineError::Busy),
                Err(mpsc::error::TrySendError::Closed(_)) => Run::failed(PipelineError::Stopped),
            }
        })
    }

    fn uses_main_memory(&self) -> bool {
        self.meter.is_of_main_memory()
    }

    fn memory(&self) -> DeviceMemory {
        self.meter.memory()
    }

    fn device(&self) -> String {
        self.meter.device_name()
    }

    fn stopped(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.commands.closed())
    }
}

/// The device may have work to finish before it gives memory back.
fn blocking(work: impl FnOnce() + Send + 'static) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        if let Err(error) = spawn_blocking(work).await {
            tracing::error!(%error, "giving memory back ended badly");
        }
    })
}

/// Cancelled also when nobody waits for the answer any more.
struct Caller<'a> {
    monitor: Box<dyn Monitor>,
    reply: &'a oneshot::Sender<Run>,
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

    fn weights(&self) -> super::StageWeights {
        self.monitor.weights()
    }
}

/// The thread's own side.
struct DeviceThread {
    inbox: mpsc::Receiver<Command>,
    shelf: Arc<Shelf>,
    meter: Arc<Meter>,
    cpu_threads: usize,
    models_folder: Option<PathBuf>,
    device: Device,
}

impl DeviceThread {
    fn serve(mut self) {
        tch::set_num_threads(i32::try_from(self.cpu_threads).unwrap_or(1).max(1));
        // Gradients are switched off for each thread by itself.
        let _no_gradients = tch::no_grad_guard();
        let background = SubjectNetwork::load(self.models_folder.as_deref(), self.device);
        while let Some(Command { key, request, monitor, reply }) = self.inbox.blocking_recv() {
            let mut caller = Caller { monitor, reply: &reply, stage: Stage::Decode.as_str() };
            let run = self.run(&key, &request, background.as_ref(), &mut caller);
            // The caller may have gone; then nobody wants the answer.
            let _ = reply.send(run);
        }
    }

    fn run(
        &self,
        key: &ModelKey,
        request: &GenerationRequest,
        background: Option<&SubjectNetwork>,
        caller: &mut Caller<'_>,
    ) -> Run {
        let Some(family) = self.shelf.take_out(key) else {
            return Run::failed(PipelineError::NotInstalled(key.clone()));
        };
        let baseline = self.meter.begin();
        let outcome = run_job(family.as_ref(), key, request, background, caller);
        let usage = self.meter.end(&baseline);
        if let Some(family) = self.shelf.bring_back(key, family) {
            // It was removed in the meantime.
            drop(family);
            self.meter.note_change();
            self.meter.trim();
        }
        if usage.leaked_bytes > 0 {
            tracing::warn!(model = %key, bytes = usage.leaked_bytes, "a job left memory behind");
        }
        let outcome = match outcome {
            // Work fails in the device's own time: the operation that was told may be another one.
            Err(error) if usage.is_lost => Err(PipelineError::DeviceLost(error.to_string())),
            outcome => outcome,
        };
        Run { outcome, peak_bytes: usage.peak_bytes, leaked_bytes: usage.leaked_bytes }
    }
}

/// Runs a job to an outcome, whatever happens in it. All its tensors are gone when this returns.
fn run_job(
    family: &dyn Family,
    key: &ModelKey,
    request: &GenerationRequest,
    background: Option<&SubjectNetwork>,
    caller: &mut Caller<'_>,
) -> Result<Generated, PipelineError> {
    // Failed tensor operations panic inside of tch; `attempt` makes errors of them. A family is not changed by a job,
    // so there is nothing of it that a panic could leave half done.
    let outcome =
        catch_unwind(AssertUnwindSafe(|| attempt(|| run(family, key, request, background, caller))));
    match outcome {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(failed_operation)) => Err(failed_operation.into()),
        Err(payload) => {
            Err(PipelineError::Panicked { stage: caller.stage, message: panic_message(payload.as_ref()) })
        }
    }
}

fn panic_message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message").to_owned()
}

#[cfg(test)]
mod tests;
