//! The cache's handle for those who want models, and the driver that does what it decides.
//!
//! ```text
//!  lease, load, unload, reload ─▶ Mutex<Cache> ◀── looks at the disk, one task per family
//!        ◀── changed ──┘             │ work ─▶ act: a task per load and per removal
//! ```
//! The lock is held for decisions only, never over a wait.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures::future::join_all;
use orfeas_protocol::Timestamp;
use thiserror::Error;
use tokio::sync::{Notify, watch};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{MissedTickBehavior, interval, timeout, timeout_at};

use super::cache::{Cache, Effect, Lease, Phase};
use super::look::{Found, Looks};
use super::room::{NoRoom, Reserved, Room};
use super::view::{ModelState, ModelView};
use crate::config::ModelsConfig;
use crate::metrics::Metrics;
use crate::pipeline::{Engine, ModelKey, ModelSource, PipelineError};

/// How often folders are looked at. Polling works on every file system, network mounts too; a change is believed after
/// two looks.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Why there is no lease.
#[derive(Debug, Error)]
pub enum LeaseError {
    /// There is no such family here.
    #[error("no model family is called {0}")]
    UnknownFamily(String),
    /// The model cannot be loaded now.
    #[error("cannot load model family {family}")]
    Failed {
        /// The family.
        family: String,
        /// Why. Shared, as everybody who waited gets it.
        #[source]
        error: Arc<PipelineError>,
        /// When it is tried again, if it is known to be.
        retry_in: Option<Duration>,
    },
    /// The model was not loaded in time; the load goes on.
    #[error("model family {family} was not loaded within {} s", limit.as_secs_f32())]
    TimedOut {
        /// The family.
        family: String,
        /// How long was waited.
        limit: Duration,
    },
}

impl From<LeaseError> for PipelineError {
    fn from(error: LeaseError) -> Self {
        match error {
            LeaseError::UnknownFamily(family) => Self::NotSupported(format!("model family {family}")),
            LeaseError::Failed { error, .. } => PipelineError::clone(&error),
            LeaseError::TimedOut { family, .. } => Self::ModelNotReady(family),
        }
    }
}

/// The models of one device. Clones stand for the same ones.
#[derive(Clone)]
pub struct ModelCache {
    shared: Arc<Shared>,
}

/// A loaded model that stays loaded as long as this lives.
pub struct ModelLease {
    shared: Arc<Shared>,
    key: ModelKey,
    source: Arc<dyn ModelSource>,
}

struct Shared {
    engine: Arc<dyn Engine>,
    sources: BTreeMap<&'static str, Arc<dyn ModelSource>>,
    config: ModelsConfig,
    state: Mutex<State>,
    /// There may be something to do.
    work: Notify,
    /// Something has changed for those who wait.
    changed: watch::Sender<()>,
    metrics: Arc<Metrics>,
    /// The moment from which the cache's time is counted, on both clocks.
    start: Instant,
    start_unix: Duration,
}

struct State {
    cache: Cache,
    /// The memory of loaded models.
    reserved: HashMap<ModelKey, Reserved>,
}

impl ModelCache {
    /// Of an engine's models; none is loaded until [`Self::drive`] runs.
    pub fn new(engine: Arc<dyn Engine>, config: ModelsConfig, metrics: Arc<Metrics>) -> Self {
        let sources: BTreeMap<_, _> =
            engine.sources().into_iter().map(|source| (source.family(), source)).collect();
        let mut cache = Cache::new(sources.keys().map(|&family| family.to_owned()), config.keep_alive);
        for family in &config.pin {
            cache.pin(family);
        }
        for family in &config.preload {
            cache.want(family);
        }
        let shared = Shared {
            engine,
            sources,
            config,
            state: Mutex::new(State { cache, reserved: HashMap::new() }),
            work: Notify::new(),
            changed: watch::Sender::new(()),
            metrics,
            start: Instant::now(),
            start_unix: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Looks at folders, loads and removes, with memory from `room`. Runs until the future is dropped; models that
    /// are loaded stay.
    pub async fn drive(self, room: Arc<dyn Room>) {
        let looks = self.shared.sources.keys().map(|&family| self.shared.watch_folder(family));
        tokio::join!(join_all(looks), act(&self.shared, &room));
    }

    /// Leases a family's model, and has it loaded before if need be: once, whoever wants it beside. With `version`,
    /// that version as long as it is there, because a job that is tried again keeps its own.
    ///
    /// A loaded model is leased without a wait. Dropping the future leaves nothing behind.
    ///
    /// # Errors
    /// There is no such family, its load fails, or takes longer than `limit`.
    pub async fn lease(
        &self,
        family: &str,
        version: Option<&str>,
        limit: Duration,
    ) -> Result<ModelLease, LeaseError> {
        let unknown = || LeaseError::UnknownFamily(family.to_owned());
        let source = self.shared.sources.get(family).ok_or_else(unknown)?;
        let deadline = tokio::time::Instant::now() + limit;
        let mut changed = self.shared.changed.subscribe();
        let mut is_warm = true;
        loop {
            let answer = self.shared.state().cache.lease(family, version, self.shared.now());
            match answer {
                Lease::Ready(key) => {
                    if is_warm {
                        self.shared.metrics.model_cache_hits.inc();
                    }
                    return Ok(ModelLease { shared: self.shared.clone(), key, source: source.clone() });
                }
                Lease::Wait => is_warm = false,
                Lease::Failed { error, retry_in } => {
                    return Err(LeaseError::Failed { family: family.to_owned(), error, retry_in });
                }
                Lease::Unknown => return Err(unknown()),
            }
            self.shared.work.notify_one();
            // The sender lives in `shared`: an error is a time-out.
            if timeout_at(deadline, changed.changed()).await.is_err() {
                return Err(LeaseError::TimedOut { family: family.to_owned(), limit });
            }
        }
    }

    /// How long a lease waits unless its caller knows better.
    pub fn lease_limit(&self) -> Duration {
        self.shared.config.lease_limit
    }

    /// The family's source.
    pub fn source(&self, family: &str) -> Option<Arc<dyn ModelSource>> {
        self.shared.sources.get(family).cloned()
    }

    /// The family of requests that name none.
    pub fn default_family(&self) -> &str {
        self.shared.engine.default_family()
    }

    /// Whether a lease would not have to wait.
    pub fn is_warm(&self, family: &str) -> bool {
        self.shared.state().cache.family(family).is_some_and(|family| family.current.is_some())
    }

    /// The version that serves, or else the one on the disk.
    pub fn version(&self, family: &str) -> Option<String> {
        let state = self.shared.state();
        let family = state.cache.family(family)?;
        family.current.clone().or_else(|| family.on_disk.clone()?.ok())
    }

    /// Loads a family's model and keeps it ready.
    ///
    /// # Errors
    /// As [`Self::lease`].
    pub async fn load(&self, family: &str, limit: Duration) -> Result<ModelKey, LeaseError> {
        if !self.shared.state().cache.want(family) {
            return Err(LeaseError::UnknownFamily(family.to_owned()));
        }
        Ok(self.lease(family, None, limit).await?.key.clone())
    }

    /// Takes a family's model out of service; jobs that have it end on it. `false` when none was loaded.
    ///
    /// # Errors
    /// There is no such family.
    pub fn unload(&self, family: &str) -> Result<bool, LeaseError> {
        let now = self.shared.now();
        let mut state = self.shared.state();
        if state.cache.family(family).is_none() {
            return Err(LeaseError::UnknownFamily(family.to_owned()));
        }
        let was_loaded = state.cache.unload(family, now);
        drop(state);
        self.shared.announce();
        Ok(was_loaded)
    }

    /// Looks at a family's folder now and has what is there take over, also where it failed to load before. Gives the
    /// version that serves then, which is the one from before where the folder has not changed.
    ///
    /// # Errors
    /// As [`Self::lease`].
    pub async fn reload(&self, family: &str, limit: Duration) -> Result<ModelKey, LeaseError> {
        let unknown = || LeaseError::UnknownFamily(family.to_owned());
        let source = self.source(family).ok_or_else(unknown)?;
        let deadline = tokio::time::Instant::now() + limit;
        let timed_out = || LeaseError::TimedOut { family: family.to_owned(), limit };
        let looking = timeout_at(deadline, look(source)).await;
        let found = looking.map_err(|_| timed_out())?;
        let mut changed = self.shared.changed.subscribe();
        {
            let mut state = self.shared.state();
            state.cache.seen(family, found.clone());
            state.cache.want(family);
        }
        self.shared.work.notify_one();
        let failed = |error| LeaseError::Failed { family: family.to_owned(), error, retry_in: None };
        let version = found.map_err(failed)?;
        loop {
            {
                let state = self.shared.state();
                let entry = state.cache.family(family).ok_or_else(unknown)?;
                if entry.current.as_ref() == Some(&version) {
                    return Ok(ModelKey::new(family, version));
                }
                if let Some(failure) = entry.failure.as_ref().filter(|failure| failure.version == version) {
                    return Err(failed(failure.error.clone()));
                }
            }
            timeout_at(deadline, changed.changed())
                .await
                .map_err(|_| timed_out())?
                .map_err(|_| timed_out())?;
        }
    }

    /// Makes room: removes idle models, the least recently used first, until at least `bytes` are free, and gives how
    /// many are. Removes none when that is more than they have.
    pub async fn evict_idle(&self, bytes: u64) -> u64 {
        let evicted = self.shared.state().cache.evict(bytes, self.shared.now());
        let mut freed = 0;
        for (key, resident_bytes) in evicted {
            tracing::info!(model = %key, bytes = resident_bytes, "model evicted");
            // On a task of its own: it is done even if nobody waits for it any more.
            let removal = tokio::spawn(remove(self.shared.clone(), key));
            if removal.await.is_ok() {
                freed += resident_bytes;
            }
        }
        freed
    }

    /// Tells when [`Self::views`] has changed.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.shared.changed.subscribe()
    }

    /// The models as operators see them, by family and version.
    pub fn views(&self) -> Vec<ModelView> {
        let state = self.shared.state();
        let mut views = Vec::new();
        for (name, family) in state.cache.families() {
            for (version, model) in &family.models {
                let is_loaded = model.phase != Phase::Loading;
                views.push(ModelView {
                    state: match model.phase {
                        Phase::Loading => ModelState::Loading,
                        Phase::Ready => ModelState::Ready,
                        Phase::Draining | Phase::Removing => ModelState::Draining,
                    },
                    since: Some(self.shared.timestamp(model.since)),
                    load_seconds: is_loaded.then_some(model.load_time.as_secs_f64()),
                    resident_bytes: is_loaded.then_some(model.resident_bytes),
                    leases: model.leases,
                    last_used_at: is_loaded.then(|| self.shared.timestamp(model.last_used)),
                    ..bare(name, version, ModelState::Loading)
                });
            }
            let failure =
                family.failure.as_ref().filter(|failure| !family.models.contains_key(&failure.version));
            if let Some(failure) = failure {
                views.push(ModelView {
                    since: Some(self.shared.timestamp(failure.at)),
                    error: Some(failure.error.to_string()),
                    retry_at: Some(self.shared.timestamp(failure.retry_at)),
                    ..bare(name, &failure.version, ModelState::Failed)
                });
            } else if let Some(Ok(version)) = &family.on_disk
                && !family.models.contains_key(version)
            {
                views.push(bare(name, version, ModelState::Available));
            }
        }
        views
    }
}

impl fmt::Debug for ModelCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelCache").field("families", &self.shared.sources.keys()).finish_non_exhaustive()
    }
}

fn bare(family: &str, version: &str, state: ModelState) -> ModelView {
    ModelView {
        family: family.to_owned(),
        version: version.to_owned(),
        state,
        since: None,
        load_seconds: None,
        resident_bytes: None,
        leases: 0,
        last_used_at: None,
        error: None,
        retry_at: None,
    }
}

impl ModelLease {
    /// The model that is leased: the job runs on this version and no other.
    pub fn key(&self) -> &ModelKey {
        &self.key
    }

    /// Where it came from.
    pub fn source(&self) -> &Arc<dyn ModelSource> {
        &self.source
    }
}

impl Drop for ModelLease {
    fn drop(&mut self) {
        let now = self.shared.now();
        self.shared.state().cache.release(&self.key, now);
        // It may have been the last job of a version that drains.
        self.shared.work.notify_one();
    }
}

impl fmt::Debug for ModelLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelLease").field("key", &self.key).finish_non_exhaustive()
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // The cache's methods leave it consistent at every point where they could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn timestamp(&self, at: Duration) -> Timestamp {
        Timestamp::from_unix_ms(u64::try_from((self.start_unix + at).as_millis()).unwrap_or(u64::MAX))
    }

    fn announce(&self) {
        self.changed.send_replace(());
        self.work.notify_one();
    }

    /// Looks at a family's folder again and again.
    async fn watch_folder(&self, family: &'static str) {
        let Some(source) = self.sources.get(family) else { return };
        let mut looks = Looks::default();
        let mut ticks = interval(LOOK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let Some(found) = looks.take(look(source.clone()).await) else { continue };
            let is_news = {
                let mut state = self.state();
                let before = state.cache.family(family).and_then(|family| family.on_disk.clone());
                state.cache.seen(family, found.clone());
                match (&before, &found) {
                    (Some(Ok(before)), Ok(found)) => before != found,
                    (Some(Err(_)), Err(_)) => false,
                    _ => true,
                }
            };
            if is_news {
                match &found {
                    Ok(version) => tracing::info!(family, version, "model on the disk"),
                    Err(error) => tracing::info!(family, %error, "no model on the disk"),
                }
                self.announce();
            }
        }
    }

    /// Loads a model and hands it to the engine.
    async fn load(&self, key: &ModelKey, room: &dyn Room) -> Result<Loaded, PipelineError> {
        let source = self.sources.get(key.family.as_str());
        let source = source.ok_or_else(|| PipelineError::WeightsMissing(key.family.clone()))?.clone();
        let resident_bytes = source.resident_bytes();
        let limit = self.config.lease_limit;
        let reserved = timeout(limit, room.reserve(resident_bytes)).await;
        let no_room = |reason: NoRoom| PipelineError::OutOfMemory(reason.to_string());
        let reserved = reserved
            .unwrap_or_else(|_| Err(NoRoom(format!("{resident_bytes} bytes did not come free in time"))))
            .map_err(no_room)?;
        let began = Instant::now();
        let version = key.version.clone();
        let loading = spawn_blocking(move || source.load(&version));
        let model = loading.await.unwrap_or_else(|error| {
            Err(PipelineError::Panicked { stage: "load", message: error.to_string() })
        })?;
        self.engine.install(key.clone(), model)?;
        Ok(Loaded { reserved, resident_bytes, load_time: began.elapsed() })
    }
}

struct Loaded {
    reserved: Reserved,
    resident_bytes: u64,
    load_time: Duration,
}

/// A panic of a look is a look that found nothing.
async fn look(source: Arc<dyn ModelSource>) -> Found {
    let family = source.family();
    let looked = spawn_blocking(move || source.fingerprint()).await;
    looked.unwrap_or_else(|_| Err(PipelineError::WeightsMissing(family.to_owned()))).map_err(Arc::new)
}

/// Does what the cache says. Loads and removals run beside each other; the cache sees to it that they do not meet.
async fn act(shared: &Arc<Shared>, room: &Arc<dyn Room>) {
    let mut tasks = JoinSet::new();
    let mut ticks = interval(LOOK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let effects = shared.state().cache.effects(shared.now());
        for effect in effects {
            match effect {
                Effect::Load(key) => drop(tasks.spawn(load(shared.clone(), key, room.clone()))),
                Effect::Remove(key) => drop(tasks.spawn(remove(shared.clone(), key))),
            }
        }
        tokio::select! {
            () = shared.work.notified() => {}
            // A failed load is due again some time.
            _ = ticks.tick() => {}
            Some(ended) = tasks.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a model's task ended badly");
                }
            }
        }
    }
}

async fn load(shared: Arc<Shared>, key: ModelKey, room: Arc<dyn Room>) {
    let outcome = shared.load(&key, room.as_ref()).await;
    match outcome {
        Ok(Loaded { reserved, resident_bytes, load_time }) => {
            tracing::info!(model = %key, seconds = load_time.as_secs_f64(), resident_bytes, "model loaded");
            shared.metrics.model_loads.inc();
            shared.metrics.model_load_seconds.observe(load_time.as_secs_f64());
            let mut state = shared.state();
            state.reserved.insert(key.clone(), reserved);
            state.cache.loaded(&key, resident_bytes, load_time, shared.now());
        }
        Err(error) => {
            tracing::error!(model = %key, %error, "model not loaded");
            // What a load left half done is freed by now, and cached.
            shared.engine.trim().await;
            shared.state().cache.load_failed(&key, Arc::new(error), shared.now());
        }
    }
    shared.announce();
}

async fn remove(shared: Arc<Shared>, key: ModelKey) {
    shared.engine.remove(key.clone()).await;
    tracing::info!(model = %key, "model removed");
    let reserved = {
        let mut state = shared.state();
        state.cache.removed(&key);
        state.reserved.remove(&key)
    };
    // Outside of the lock: it wakes those who wait for room.
    drop(reserved);
    shared.announce();
}

#[cfg(test)]
mod tests;
