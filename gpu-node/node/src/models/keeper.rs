//! The cache's handle for those who want models.
//!
//! ```text
//!  lease; commands.rs ─▶ Mutex<Cache> ◀── driver.rs: looks at the disk, one task per family
//!    ◀── changed ──┘         │ work ─▶ driver.rs: a task per load and per removal
//! ```
//! The lock is held for decisions only, never over a wait.

mod commands;
mod driver;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures::future::join_all;
use orfeas_protocol::Timestamp;
use thiserror::Error;
use tokio::sync::{Notify, watch};
use tokio::time::timeout_at;

use super::cache::{Cache, Lease};
use super::room::{Reserved, Room};
use super::view::{ModelView, views};
use crate::config::ModelsConfig;
use crate::metrics::Metrics;
use crate::pipeline::{Engine, ModelKey, ModelSource, PipelineError};

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
        tokio::join!(join_all(looks), driver::act(&self.shared, &room));
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

    /// Tells when [`Self::views`] has changed.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.shared.changed.subscribe()
    }

    /// The models as operators see them, by family and version.
    pub fn views(&self) -> Vec<ModelView> {
        views(&self.shared.state().cache, |at| self.shared.timestamp(at))
    }
}

impl fmt::Debug for ModelCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelCache").field("families", &self.shared.sources.keys()).finish_non_exhaustive()
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
}

#[cfg(test)]
mod tests;
