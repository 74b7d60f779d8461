//! The seam between those who decide what runs where and the thread that runs it.
//!
//! ```text
//!  ModelSource ──load, on any thread──▶ LoadedModel ──install──▶ Engine ──run(key, request)──▶ Run
//! ```
//! Who holds an [`Engine`] names models by their [`ModelKey`] and never sees a tensor, so the parts in front of it are
//! tested with engines that run scripts.

use std::fmt;
use std::sync::Arc;

use futures::future::BoxFuture;

use super::family::Family;
use super::{Generated, GenerationRequest, Monitor, PipelineError, Settings};

/// Names a model: a family, and the version of its weights (of the code, where there are none).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ModelKey {
    /// The name that requests use.
    pub family: String,
    /// A fingerprint of the content, so that the same files have the same version everywhere.
    pub version: String,
}

impl ModelKey {
    /// Of a family's version.
    pub fn new(family: impl Into<String>, version: impl Into<String>) -> Self {
        Self { family: family.into(), version: version.into() }
    }
}

impl fmt::Display for ModelKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.family, self.version)
    }
}

/// A model that can be loaded, on one device.
pub trait ModelSource: Send + Sync {
    /// The family's name.
    fn family(&self) -> &'static str;

    /// The version that a load would give now. Cheap enough to ask each second: files are read again only when their
    /// sizes or times have changed. It may block on a file system.
    ///
    /// # Errors
    /// There are no weights, or they cannot be used.
    fn fingerprint(&self) -> Result<String, PipelineError>;

    /// Device memory that the loaded weights hold, as far as the version of the last [`Self::fingerprint`] tells.
    fn resident_bytes(&self) -> u64;

    /// The family's own guess of the device memory that one job needs beside the weights.
    fn job_bytes(&self, settings: &Settings) -> u64;

    /// Loads that version onto the device. Takes seconds and blocks: call it on a thread of its own.
    ///
    /// # Errors
    /// As [`Self::fingerprint`]; the version is not there any more; the device has too little memory.
    fn load(&self, version: &str) -> Result<LoadedModel, PipelineError>;
}

/// A model on its way from its loader to the engine.
pub struct LoadedModel {
    family: Option<Box<dyn Family + Send>>,
}

impl LoadedModel {
    pub(crate) fn new(family: impl Family + Send + 'static) -> Self {
        Self { family: Some(Box::new(family)) }
    }

    /// A model that the pipeline cannot run: for engines that run scripts instead.
    pub fn hollow() -> Self {
        Self { family: None }
    }

    pub(crate) fn into_family(self) -> Option<Box<dyn Family + Send>> {
        self.family
    }
}

impl fmt::Debug for LoadedModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadedModel").field("is_hollow", &self.family.is_none()).finish()
    }
}

/// Memory of the device in bytes. All zero where the device does not tell.
///
/// On a CPU the device is the machine and its tensors are the process: `allocated` and `reserved` are its resident
/// set, `peak` the highest that the resident set was since the last run began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeviceMemory {
    /// The device's memory.
    pub total_bytes: u64,
    /// What nobody uses.
    pub free_bytes: u64,
    /// What this process's tensors use.
    pub allocated_bytes: u64,
    /// What this process keeps from others, in use or cached.
    pub reserved_bytes: u64,
    /// The highest `reserved_bytes` since the last run began.
    pub peak_bytes: u64,
}

/// What came of a request, and what it did to the device.
#[derive(Debug)]
pub struct Run {
    /// The model file, or why there is none.
    pub outcome: Result<Generated, PipelineError>,
    /// The most device memory that the job held beside what was there before it. 0 = not measured: the system does
    /// not tell, or models were loaded or removed in the meantime.
    pub peak_bytes: u64,
    /// Device memory that the job's tensors still hold after its end, which should be none. Always 0 on a CPU, whose
    /// allocator does not tell what it keeps for later from what is in use.
    pub leaked_bytes: u64,
}

impl Run {
    /// Of a request that did not reach the device.
    pub fn failed(error: PipelineError) -> Self {
        Self { outcome: Err(error), peak_bytes: 0, leaked_bytes: 0 }
    }
}

/// What runs requests: the device's inference thread, or a script in tests of the parts in front of it.
pub trait Engine: Send + Sync + 'static {
    /// The family of requests that name none.
    fn default_family(&self) -> &str;

    /// The models that this device could run.
    fn sources(&self) -> Vec<Arc<dyn ModelSource>>;

    /// Takes a loaded model over; at once, whatever runs. A model that was there under this key is dropped.
    ///
    /// # Errors
    /// The model is of another engine's making.
    fn install(&self, key: ModelKey, model: LoadedModel) -> Result<(), PipelineError>;

    /// Drops a model and gives its memory back. One that is running goes when its run ends. A key that is not
    /// installed is nothing to do.
    fn remove(&self, key: ModelKey) -> BoxFuture<'_, ()>;

    /// The installed models.
    fn installed(&self) -> Vec<ModelKey>;

    /// Gives cached memory back to the device.
    fn trim(&self) -> BoxFuture<'_, ()>;

    /// Runs a request on an installed model to its end; dropping the future cancels it. Afterwards nothing of the job
    /// is left on the device, whatever its end.
    fn run(&self, key: ModelKey, request: GenerationRequest, monitor: Box<dyn Monitor>)
    -> BoxFuture<'_, Run>;

    /// Whether the device's memory is the machine's, which others live in too.
    fn uses_main_memory(&self) -> bool {
        false
    }

    /// The device's memory now.
    fn memory(&self) -> DeviceMemory;

    /// The device's name: `cpu`, or `cuda:` and its number.
    fn device(&self) -> String {
        "cpu".to_owned()
    }

    /// Waits until nothing can run any more, because what runs requests has ended.
    fn stopped(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::pending())
    }
}
