//! The models as operators see them.

use std::fmt;

use orfeas_protocol::Timestamp;
use serde::{Deserialize, Serialize};

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
