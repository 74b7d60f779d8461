use std::sync::Condvar;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures::future::BoxFuture;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;
use crate::models::room::{NoRoom, Unlimited};
use crate::models::view::ModelState;
use crate::pipeline::{LoadedModel, ScriptedEngine, Settings};

/// Long enough for two busy cores.
const PATIENCE: Duration = Duration::from_secs(20);
const BYTES: u64 = 100;

/// A family whose disk and whose loads are the test's.
struct Source {
    on_disk: Mutex<Option<String>>,
    is_broken: AtomicBool,
    loads: AtomicUsize,
    /// Loads wait until it is true.
    gate: (Mutex<bool>, Condvar),
}

impl Source {
    fn put(&self, version: &str) {
        *self.on_disk.lock().unwrap() = Some(version.to_owned());
    }

    fn gate(&self, is_open: bool) {
        *self.gate.0.lock().unwrap() = is_open;
        self.gate.1.notify_all();
    }

    fn loads(&self) -> usize {
        self.loads.load(Ordering::SeqCst)
    }
}

impl ModelSource for Source {
    fn family(&self) -> &'static str {
        "a"
    }

    fn fingerprint(&self) -> Result<String, PipelineError> {
        self.on_disk.lock().unwrap().clone().ok_or_else(|| PipelineError::WeightsMissing("a".to_owned()))
    }

    fn resident_bytes(&self) -> u64 {
        BYTES
    }

    fn job_bytes(&self, _settings: &Settings) -> u64 {
        0
    }

    fn load(&self, _version: &str) -> Result<LoadedModel, PipelineError> {
        self.loads.fetch_add(1, Ordering::SeqCst);
        let gate = self.gate.0.lock().unwrap();
        drop(self.gate.1.wait_while(gate, |is_open| !*is_open).unwrap());
        if self.is_broken.load(Ordering::SeqCst) {
            return Err(PipelineError::WeightsUnusable { family: "a", reason: "scripted".to_owned() });
        }
        Ok(LoadedModel::hollow())
    }
}

/// The cache over a scripted source, driven until it is dropped.
struct Fixture {
    cache: ModelCache,
    source: Arc<Source>,
    engine: Arc<ScriptedEngine>,
    metrics: Arc<Metrics>,
    driver: JoinHandle<()>,
}

impl Drop for Fixture {
    fn drop(&mut self) {
        // A loader that waits would keep the runtime from ending.
        self.source.gate(true);
        self.driver.abort();
    }
}

fn fixture(config: ModelsConfig, room: Arc<dyn Room>) -> Fixture {
    let source = Arc::new(Source {
        on_disk: Mutex::new(Some("1".to_owned())),
        is_broken: AtomicBool::new(false),
        loads: AtomicUsize::new(0),
        gate: (Mutex::new(true), Condvar::new()),
    });
    let engine = Arc::new(ScriptedEngine::new(vec![source.clone()], 0));
    let metrics = Arc::new(Metrics::new());
    let cache = ModelCache::new(engine.clone(), config, metrics.clone());
    let driver = tokio::spawn(cache.clone().drive(room));
    Fixture { cache, source, engine, metrics, driver }
}

fn plain() -> Fixture {
    fixture(ModelsConfig::default(), Arc::new(Unlimited))
}

fn key(version: &str) -> ModelKey {
    ModelKey::new("a", version)
}

impl Fixture {
    async fn lease(&self) -> ModelLease {
        self.cache.lease("a", None, PATIENCE).await.unwrap()
    }

    /// Waits until so many loads have begun, by looking: nobody is told of a begin.
    async fn loads_begin(&self, count: usize) {
        let begin = async {
            while self.source.loads() < count {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(PATIENCE, begin).await.unwrap_or_else(|_| panic!("{} of {count} loads", self.source.loads()));
    }

    /// Waits until the engine holds these models.
    async fn wait_for(&self, versions: &[&str]) {
        let wanted: Vec<ModelKey> = versions.iter().map(|version| key(version)).collect();
        let mut changed = self.cache.shared.changed.subscribe();
        let waiting = async {
            while self.engine.installed() != wanted {
                // A removal is announced only after the engine's part; no harm in a second look.
                let _ = timeout(Duration::from_millis(20), changed.changed()).await;
            }
        };
        timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("{:?}", self.engine.installed()));
    }
}

#[tokio::test]
async fn a_crowd_loads_its_model_once() {
    let fixture = plain();
    fixture.source.gate(false);
    let leases = (0..20).map(|_| fixture.lease());
    let mut all = std::pin::pin!(join_all(leases));
    tokio::select! {
        _ = all.as_mut() => panic!("somebody goes ahead of the load"),
        () = fixture.loads_begin(1) => {}
    }
    fixture.source.gate(true);
    let leases = all.await;
    assert!(leases.iter().all(|lease| *lease.key() == key("1")));
    assert_eq!((fixture.source.loads(), fixture.metrics.model_loads.get()), (1, 1));
    assert_eq!(fixture.metrics.model_cache_hits.get(), 0);
    drop(fixture.lease().await);
    assert_eq!(fixture.metrics.model_cache_hits.get(), 1);
    assert_eq!(fixture.cache.views()[0].leases, 20);
}

#[tokio::test]
async fn the_wait_for_a_load_is_bounded_and_the_load_goes_on() {
    let fixture = plain();
    fixture.source.gate(false);
    let late = fixture.cache.lease("a", None, Duration::from_millis(30)).await;
    assert!(matches!(late, Err(LeaseError::TimedOut { .. })), "{late:?}");
    assert!(!fixture.cache.is_warm("a"));
    fixture.source.gate(true);
    assert_eq!(*fixture.lease().await.key(), key("1"));
    assert_eq!(fixture.source.loads(), 1);
    let unknown = fixture.cache.lease("b", None, PATIENCE).await;
    assert!(matches!(unknown, Err(LeaseError::UnknownFamily(_))));
}

#[tokio::test]
async fn a_wait_that_is_given_up_leaves_no_lease() {
    let fixture = plain();
    fixture.source.gate(false);
    let mut waiting = Box::pin(fixture.lease());
    assert!(futures::poll!(waiting.as_mut()).is_pending());
    drop(waiting);
    fixture.source.gate(true);
    fixture.wait_for(&["1"]).await;
    drop(fixture.lease().await);
    assert_eq!(fixture.cache.views()[0].leases, 0);
}

#[tokio::test]
async fn a_changed_folder_is_noticed_and_the_old_version_ends_with_its_jobs() {
    let fixture = plain();
    let old = fixture.lease().await;
    fixture.source.put("2");
    fixture.wait_for(&["1", "2"]).await;
    let new = fixture.lease().await;
    assert_eq!((old.key(), new.key()), (&key("1"), &key("2")));
    let again = fixture.cache.lease("a", Some("1"), PATIENCE).await.unwrap();
    assert_eq!(again.key(), &key("1"), "a job that is tried again keeps its version");
    drop(old);
    assert_eq!(fixture.engine.installed(), [key("1"), key("2")]);
    drop(again);
    fixture.wait_for(&["2"]).await;
    let views = fixture.cache.views();
    assert_eq!(views.len(), 1);
    assert_eq!((views[0].state, views[0].version.as_str(), views[0].leases), (ModelState::Ready, "2", 1));
}

#[tokio::test]
async fn while_a_new_version_loads_the_old_one_serves_and_goes_on_if_that_fails() {
    let fixture = plain();
    drop(fixture.lease().await);
    fixture.source.put("2");
    fixture.source.gate(false);
    fixture.source.is_broken.store(true, Ordering::SeqCst);
    let cache = fixture.cache.clone();
    let reload = tokio::spawn(async move { cache.reload("a", PATIENCE).await });
    fixture.loads_begin(2).await;
    assert_eq!(*fixture.lease().await.key(), key("1"));
    fixture.source.gate(true);
    let failed = reload.await.unwrap();
    assert!(matches!(failed, Err(LeaseError::Failed { .. })), "{failed:?}");
    assert_eq!(*fixture.lease().await.key(), key("1"));
    let views = fixture.cache.views();
    assert_eq!((views[0].state, views[1].state), (ModelState::Ready, ModelState::Failed));
    assert!(views[1].error.as_ref().is_some_and(|error| error.contains("scripted")));
    fixture.source.is_broken.store(false, Ordering::SeqCst);
    assert_eq!(fixture.cache.reload("a", PATIENCE).await.unwrap(), key("2"), "an operator does not wait");
    fixture.wait_for(&["2"]).await;
}

#[tokio::test]
async fn missing_weights_are_an_answer_not_a_wait() {
    let fixture = plain();
    drop(fixture.lease().await);
    assert!(fixture.cache.unload("a").unwrap());
    fixture.wait_for(&[]).await;
    *fixture.source.on_disk.lock().unwrap() = None;
    let gone = fixture.cache.reload("a", PATIENCE).await;
    let Err(LeaseError::Failed { error, .. }) = gone else { panic!("{gone:?}") };
    assert!(matches!(*error, PipelineError::WeightsMissing(_)));
    let gone = fixture.cache.lease("a", None, PATIENCE).await;
    assert!(matches!(gone, Err(LeaseError::Failed { .. })), "{gone:?}");
    fixture.source.put("3");
    assert_eq!(fixture.cache.reload("a", PATIENCE).await.unwrap(), key("3"), "they were fetched into place");
}

#[tokio::test]
async fn preloaded_families_are_loaded_before_anybody_asks() {
    let config = ModelsConfig { preload: vec!["a".to_owned()], ..ModelsConfig::default() };
    let fixture = fixture(config, Arc::new(Unlimited));
    fixture.wait_for(&["1"]).await;
    assert!(fixture.cache.is_warm("a"));
}

/// Room for one model, counted.
#[derive(Default)]
struct OneModel {
    held: Arc<AtomicUsize>,
    is_closed: AtomicBool,
}

struct Held(Arc<AtomicUsize>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Room for OneModel {
    fn reserve(&self, bytes: u64) -> BoxFuture<'_, Result<Reserved, NoRoom>> {
        assert_eq!(bytes, BYTES);
        Box::pin(async {
            if self.is_closed.load(Ordering::SeqCst) {
                return Err(NoRoom("scripted".to_owned()));
            }
            self.held.fetch_add(1, Ordering::SeqCst);
            Ok(Box::new(Held(self.held.clone())) as Reserved)
        })
    }
}

#[tokio::test]
async fn memory_is_held_while_the_model_is_there_and_given_back_with_it() {
    let room = Arc::new(OneModel::default());
    let config = ModelsConfig { keep_alive: Duration::ZERO, ..ModelsConfig::default() };
    let fixture = fixture(config, room.clone());
    let lease = fixture.lease().await;
    assert_eq!(room.held.load(Ordering::SeqCst), 1);
    assert_eq!(fixture.cache.evict_idle(1).await, 0, "it is leased");
    drop(lease);
    assert_eq!(fixture.cache.evict_idle(BYTES + 1).await, 0, "it would not be enough");
    assert_eq!(fixture.cache.evict_idle(1).await, BYTES);
    assert_eq!((room.held.load(Ordering::SeqCst), fixture.engine.installed()), (0, Vec::new()));

    room.is_closed.store(true, Ordering::SeqCst);
    let refused = fixture.cache.lease("a", None, PATIENCE).await;
    let Err(LeaseError::Failed { error, retry_in, .. }) = refused else { panic!("{refused:?}") };
    assert!(matches!(*error, PipelineError::OutOfMemory(_)) && retry_in.is_some());
    assert_eq!(fixture.source.loads(), 1, "without room nothing is loaded");
}
