//! The models as operators see them.

use std::fmt;
use std::time::Duration;

use orfeas_protocol::Timestamp;
use serde::{Deserialize, Serialize};

use super::cache::{Cache, Phase};

/// How a model stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelState {
    /// On the disk, and not loaded.
    Available,
    /// On its way to the device.
    Loading,
    /// Serves.
    Ready,
    /// Replaced or unloaded; the jobs that have it end on it.
    Draining,
    /// Did not load; it is tried again.
    Failed,
}

impl fmt::Display for ModelState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Available => "available",
            Self::Loading => "loading",
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::Failed => "failed",
        })
    }
}

/// One version of a family on a node. Figures that do not apply are null.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelView {
    /// The family.
    pub family: String,
    /// The fingerprint of its content.
    pub version: String,
    /// How it stands.
    pub state: ModelState,
    /// Since when.
    pub since: Option<Timestamp>,
    /// How long it took to load.
    pub load_seconds: Option<f64>,
    /// Device memory of its weights.
    pub resident_bytes: Option<u64>,
    /// Jobs that have it.
    pub leases: usize,
    /// When a job had it last.
    pub last_used_at: Option<Timestamp>,
    /// Why it did not load.
    pub error: Option<String>,
    /// When it is tried again.
    pub retry_at: Option<Timestamp>,
}

impl ModelView {
    /// All that there is to say of a model that is not here.
    fn bare(family: &str, version: &str, state: ModelState) -> Self {
        Self {
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
}

/// Every model that a cache knows of, by family and version; `at` makes times of the cache's moments.
pub(super) fn views(cache: &Cache, at: impl Fn(Duration) -> Timestamp) -> Vec<ModelView> {
    let mut views = Vec::new();
    for (name, family) in cache.families() {
        for (version, model) in &family.models {
            let is_loaded = model.phase != Phase::Loading;
            let state = match model.phase {
                Phase::Loading => ModelState::Loading,
                Phase::Ready => ModelState::Ready,
                Phase::Draining | Phase::Removing => ModelState::Draining,
            };
            views.push(ModelView {
                since: Some(at(model.since)),
                load_seconds: is_loaded.then_some(model.load_time.as_secs_f64()),
                resident_bytes: is_loaded.then_some(model.resident_bytes),
                leases: model.leases,
                last_used_at: is_loaded.then(|| at(model.last_used)),
                ..ModelView::bare(name, version, state)
            });
        }
        let failure = family.failure.as_ref().filter(|failure| !family.models.contains_key(&failure.version));
        if let Some(failure) = failure {
            views.push(ModelView {
                since: Some(at(failure.at)),
                error: Some(failure.error.to_string()),
                retry_at: Some(at(failure.retry_at)),
                ..ModelView::bare(name, &failure.version, ModelState::Failed)
            });
        } else if let Some(Ok(version)) = &family.on_disk
            && !family.models.contains_key(version)
        {
            views.push(ModelView::bare(name, version, ModelState::Available));
        }
    }
    views
}
