//! Does what the cache decides, and tells it what the disk holds.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::Shared;
use crate::models::cache::Effect;
use crate::models::look::{Found, Looks};
use crate::models::room::{NoRoom, Reserved, Room};
use crate::pipeline::{ModelKey, ModelSource, PipelineError};

/// How often folders are looked at. Polling works on every file system, network mounts too; a change is believed after
/// two looks.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

impl Shared {
    /// Looks at a family's folder again and again.
    pub(super) async fn watch_folder(&self, family: &'static str) {
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
pub(super) async fn look(source: Arc<dyn ModelSource>) -> Found {
    let family = source.family();
    let looked = spawn_blocking(move || source.fingerprint()).await;
    looked.unwrap_or_else(|_| Err(PipelineError::WeightsMissing(family.to_owned()))).map_err(Arc::new)
}

/// Does what the cache says. Loads and removals run beside each other; the cache sees to it that they do not meet.
pub(super) async fn act(shared: &Arc<Shared>, room: &Arc<dyn Room>) {
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

pub(super) async fn remove(shared: Arc<Shared>, key: ModelKey) {
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
