//! Missing weights, brought from the operator's mirror: one copy at a time, however many jobs wait for it.

use std::time::Duration;

use thiserror::Error;
use tokio::sync::Mutex;
use tokio::time::{error::Elapsed, timeout};

use crate::recovery::{FetchError, Fetched, Mirror};

/// A job does not wait for a copy for longer; the copy goes on, and the next try finds it.
const FETCH_LIMIT: Duration = Duration::from_secs(15 * 60);

/// Weights were not fetched.
#[derive(Debug, Error)]
pub(crate) enum WeightsError {
    #[error("no source of weights is configured")]
    NoSource,
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("the copy takes longer than {} s", FETCH_LIMIT.as_secs())]
    TooSlow(#[from] Elapsed),
    #[error("the copy ended badly")]
    Ended(#[from] tokio::task::JoinError),
}

/// Where weights come from, if from anywhere.
#[derive(Debug)]
pub(crate) struct Weights {
    mirror: Option<Mirror>,
    one_at_a_time: std::sync::Arc<Mutex<()>>,
}

impl Weights {
    pub(crate) fn new(mirror: Option<Mirror>) -> Self {
        Self { mirror, one_at_a_time: std::sync::Arc::default() }
    }

    pub(crate) fn has_source(&self) -> bool {
        self.mirror.is_some()
    }

    /// Brings a family's folder into place.
    pub(crate) async fn fetch(&self, family: &str) -> Result<Fetched, WeightsError> {
        let mirror = self.mirror.clone().ok_or(WeightsError::NoSource)?;
        let family = family.to_owned();
        let turn = self.one_at_a_time.clone();
        let copying = async move {
            // Held by the copy itself: whoever stops waiting does not let a second one begin beside it.
            let turn = turn.lock_owned().await;
            tokio::task::spawn_blocking(move || {
                let _turn = turn;
                tracing::info!(family, "fetching weights");
                mirror.fetch(&family)
            })
            .await
        };
        let fetched = timeout(FETCH_LIMIT, copying).await???;
        tracing::info!(folder = %fetched.folder.display(), bytes = fetched.bytes, "weights fetched");
        Ok(fetched)
    }
}
