//! The inference thread of a device: it owns the tensors, takes one job at a time, and outlives a panic in a job.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;

use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use super::{FamilyInfo, Generated, GenerationRequest, Monitor, PipelineError, Stage};

/// How to start an inference thread.
#[derive(Debug, Clone)]
pub struct InferenceConfig {
    /// The family of requests that name none.
    pub default_family: String,
    /// Jobs that may wait for the thread beside the one that runs; more are answered [`PipelineError::Busy`].
    pub queue_depth: usize,
    /// Threads of a tensor operation on the CPU.
    pub cpu_threads: usize,
}

impl Default for InferenceConfig {
    fn default() -> Self {
        // The scheduler in front keeps the real queue; a place or two hide the hand-over.
        Self {
            default_family: "silhouette".to_owned(),
            queue_depth: 2,
            cpu_threads: thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

/// Why no inference thread could be started.
#[derive(Debug, Error)]
pub enum StartError {
    /// The default family is not one of the registry.
    #[error("no model family is called {0}")]
    UnknownFamily(String),
    /// The operating system gave no thread.
    #[error("start the inference thread")]
    Thread(#[from] std::io::Error),
}

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
    /// Starts the thread.
    ///
    /// # Errors
    /// The default family is unknown, or the system gives no thread.
    pub fn start(config: InferenceConfig) -> Result<Inference, StartError> {
        let families: Arc<[FamilyInfo]> = Arc::new([]);
        let (commands, inbox) = mpsc::channel(config.queue_depth.max(1));
        thread::Builder::new().name("inference".to_owned()).spawn(move || serve(inbox))?;
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

fn serve(mut inbox: mpsc::Receiver<Command>) {
    while let Some(Command { request, monitor, reply }) = inbox.blocking_recv() {
        let mut caller = Caller { monitor, reply: &reply, stage: Stage::Decode.as_str() };
        let outcome = catch_unwind(AssertUnwindSafe(|| run(&request, &mut caller)));
        let outcome = outcome.unwrap_or_else(|payload| {
            Err(PipelineError::Panicked { stage: caller.stage, message: panic_message(payload.as_ref()) })
        });
        // The caller may have gone; then nobody wants the answer.
        let _ = reply.send(outcome);
    }
}

fn run(request: &GenerationRequest, monitor: &mut dyn Monitor) -> Result<Generated, PipelineError> {
    if monitor.is_cancelled() {
        return Err(PipelineError::Cancelled);
    }
    Err(PipelineError::NotSupported(request.job_type.to_string()))
}

fn panic_message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message").to_owned()
}
