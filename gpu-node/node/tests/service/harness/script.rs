//! An engine that runs scripts in place of models.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use orfeas_node::pipeline::{
    DeviceMemory, Engine, Generated, GenerationRequest, LoadedModel, MeshReport, ModelKey, ModelSource,
    Monitor, PipelineError, Run, Settings,
};
use orfeas_protocol::preset::Preset;
use orfeas_protocol::view::ModelChoice;
use tokio::sync::watch;

use super::until;
use crate::acts::Acts;

/// The scripted families; runs end as their names say: `gated` when the gate opens.
const FAMILIES: [&str; 7] = ["ok", "gated", "no-subject", "panics", "acts", "huge", "tiered"];

/// A family that is always there and weighs nothing.
struct ScriptedSource {
    family: &'static str,
    version: &'static str,
}

impl ModelSource for ScriptedSource {
    fn family(&self) -> &'static str {
        self.family
    }

    fn fingerprint(&self) -> Result<String, PipelineError> {
        Ok(self.version.to_owned())
    }

    fn resident_bytes(&self) -> u64 {
        0
    }

    fn job_bytes(&self, settings: &Settings) -> u64 {
        let is_huge = match self.family {
            "huge" => true,
            "tiered" => settings.preset == Preset::Quality,
            _ => false,
        };
        // More than the nodes that are given a budget have; the others take everything.
        if is_huge { 2 << 30 } else { 0 }
    }

    fn load(&self, _version: &str) -> Result<LoadedModel, PipelineError> {
        Ok(LoadedModel::hollow())
    }
}

/// Runs end as the request's `model` says.
pub(crate) struct Script {
    /// Of all its models.
    version: &'static str,
    pub(crate) gate: watch::Sender<bool>,
    pub(crate) running: AtomicUsize,
    /// The seeds of the runs, in the order in which they began.
    pub(crate) began: Mutex<Vec<u64>>,
    installed: Mutex<Vec<ModelKey>>,
    mended: AtomicBool,
    /// What the family `acts` does.
    pub(crate) acts: Acts,
}

impl Script {
    pub(super) fn of_version(version: &'static str) -> Self {
        Self {
            version,
            gate: watch::Sender::default(),
            running: AtomicUsize::default(),
            began: Mutex::default(),
            installed: Mutex::default(),
            mended: AtomicBool::default(),
            acts: Acts::default(),
        }
    }

    /// From now on, what panicked goes well.
    pub(crate) fn mend(&self) {
        self.mended.store(true, Ordering::SeqCst);
    }

    pub(crate) fn runs(&self) -> usize {
        self.began.lock().unwrap().len()
    }

    pub(crate) fn installed_families(&self) -> Vec<String> {
        self.installed().into_iter().map(|key| key.family).collect()
    }

    pub(crate) async fn wait_for_runs(&self, count: usize) {
        until("runs begin", || async { (self.runs() >= count).then_some(()) }).await;
    }
}

impl Engine for Script {
    fn default_family(&self) -> &str {
        "ok"
    }

    fn sources(&self) -> Vec<Arc<dyn ModelSource>> {
        let version = self.version;
        FAMILIES.map(|family| Arc::new(ScriptedSource { family, version }) as Arc<dyn ModelSource>).to_vec()
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
        self.acts.trims.fetch_add(1, Ordering::SeqCst);
        Box::pin(async {})
    }

    fn run(
        &self,
        key: ModelKey,
        request: GenerationRequest,
        mut monitor: Box<dyn Monitor>,
    ) -> BoxFuture<'_, Run> {
        Box::pin(async move {
            assert!(self.installed().contains(&key), "{key} is not installed");
            let others = self.running.fetch_add(1, Ordering::SeqCst);
            assert_eq!(others, 0, "one job at a time on the device");
            self.began.lock().unwrap().push(request.settings.seed);
            let running = Running(&self.running);
            let outcome = self.play(&key, &request, monitor.as_mut()).await;
            drop(running);
            Run { outcome, peak_bytes: 0, leaked_bytes: 0 }
        })
    }

    fn memory(&self) -> DeviceMemory {
        self.acts.memory()
    }

    fn stopped(&self) -> BoxFuture<'_, ()> {
        let mut ended = self.acts.ended.subscribe();
        Box::pin(async move { drop(ended.wait_for(|ended| *ended).await) })
    }
}

/// A run that is counted, also one that is dropped in its middle.
struct Running<'a>(&'a AtomicUsize);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Script {
    async fn play(
        &self,
        key: &ModelKey,
        request: &GenerationRequest,
        monitor: &mut dyn Monitor,
    ) -> Result<Generated, PipelineError> {
        monitor.progress("shape", 0.3);
        match key.family.as_str() {
            "no-subject" => return Err(PipelineError::NoSubject),
            "panics" if !self.mended.load(Ordering::SeqCst) => {
                return Err(PipelineError::Panicked { stage: "shape", message: "scripted".to_owned() });
            }
            "acts" => self.acts.play(request, monitor).await?,
            "gated" => {
                let mut gate = self.gate.subscribe();
                // The pipeline's steps: between two of them it looks at its monitor.
                while !*gate.borrow_and_update() {
                    if monitor.is_cancelled() {
                        return Err(PipelineError::Cancelled);
                    }
                    let _ = tokio::time::timeout(Duration::from_millis(5), gate.changed()).await;
                }
            }
            _ => {}
        }
        monitor.progress("export", 0.9);
        Ok(generated(key, request))
    }
}

/// What the script makes: of nothing but the version and the request, so that two runs give the same file.
fn generated(key: &ModelKey, request: &GenerationRequest) -> Generated {
    Generated {
        file: [b"glTF".as_slice(), key.version.as_bytes(), &request.image].concat(),
        media_type: "model/gltf-binary",
        model: ModelChoice {
            family: Some("script".to_owned()),
            version: Some(key.version.clone()),
            ..ModelChoice::default()
        },
        report: MeshReport {
            vertices: 4,
            faces: 4,
            watertight: true,
            manifold: true,
            components: 1,
            degenerate_faces: 0,
            euler_characteristic: 2,
            genus: Some(0),
            volume: 1.0,
            area: 1.0,
            bounds: None,
        },
        stage_seconds: vec![("shape", 0.1)],
    }
}
