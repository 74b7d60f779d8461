//! What tests of the parts in front of the pipeline have in its place: an engine without a device.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures::future::BoxFuture;
use tokio::sync::Semaphore;

use super::{
    DeviceMemory, Engine, GenerationRequest, LoadedModel, ModelKey, ModelSource, Monitor, PipelineError, Run,
};

/// Notes which models it holds. A run ends when the test gives a permit for it, and makes nothing.
pub(crate) struct ScriptedEngine {
    sources: Vec<Arc<dyn ModelSource>>,
    memory: DeviceMemory,
    installed: Mutex<Vec<ModelKey>>,
    /// As many runs may end.
    pub(crate) ends: Semaphore,
    /// Runs that have begun and not ended.
    pub(crate) running: AtomicUsize,
    /// What each run says that it took.
    pub(crate) peak_bytes: u64,
    /// What each run says that it left behind.
    pub(crate) leaked_bytes: u64,
}

impl ScriptedEngine {
    /// Of these models, the first of which is the default, on a device of that size.
    pub(crate) fn new(sources: Vec<Arc<dyn ModelSource>>, total_bytes: u64) -> Self {
        Self {
            sources,
            memory: DeviceMemory { total_bytes, free_bytes: total_bytes, ..DeviceMemory::default() },
            installed: Mutex::default(),
            ends: Semaphore::new(0),
            running: AtomicUsize::new(0),
            peak_bytes: 0,
            leaked_bytes: 0,
        }
    }
}

impl Engine for ScriptedEngine {
    fn default_family(&self) -> &str {
        self.sources[0].family()
    }

    fn sources(&self) -> Vec<Arc<dyn ModelSource>> {
        self.sources.clone()
    }

    fn install(&self, key: ModelKey, _model: LoadedModel) -> Result<(), PipelineError> {
        self.installed.lock().unwrap().push(key);
        Ok(())
    }

    fn remove(&self, key: ModelKey) -> BoxFuture<'_, ()> {
        self.installed.lock().unwrap().retain(|installed| *installed != key);
        Box::pin(async {})
    }

    fn installed(&self) -> Vec<ModelKey> {
        self.installed.lock().unwrap().clone()
    }

    fn trim(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }

    fn run(
        &self,
        key: ModelKey,
        _request: GenerationRequest,
        _monitor: Box<dyn Monitor>,
    ) -> BoxFuture<'_, Run> {
        Box::pin(async move {
            assert!(self.installed().contains(&key), "{key} is not installed");
            assert_eq!(self.running.fetch_add(1, Ordering::SeqCst), 0, "one job at a time on the device");
            self.ends.acquire().await.unwrap().forget();
            self.running.fetch_sub(1, Ordering::SeqCst);
            // Its callers look at what it took, not at what came out.
            let outcome = Err(PipelineError::OutOfMemory("scripted".to_owned()));
            Run { outcome, peak_bytes: self.peak_bytes, leaked_bytes: self.leaked_bytes }
        })
    }

    fn memory(&self) -> DeviceMemory {
        self.memory
    }
}
