//! What operators, and a scheduler that needs room, tell the models.

use std::time::Duration;

use tokio::time::timeout_at;

use super::driver::{look, remove};
use super::{LeaseError, ModelCache};
use crate::pipeline::ModelKey;

impl ModelCache {
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
}
