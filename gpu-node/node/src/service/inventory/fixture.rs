//! A heartbeat for tests to begin with.

use orfeas_protocol::{Channel, Timestamp};

use super::heartbeat::{Family, Heartbeat};
use crate::models::{ModelState, ModelView};
use crate::service::figures::Figures;

/// Of a node with one version of one family.
pub(super) fn heartbeat(node: &str, version: &str, channel: Channel) -> Heartbeat {
    Heartbeat {
        node: node.parse().unwrap(),
        at: Timestamp::from_unix_ms(0),
        started_at: Timestamp::from_unix_ms(0),
        program_version: "0".to_owned(),
        channels: vec![channel],
        families: vec![Family { name: "silhouette".to_owned(), version: version.to_owned() }],
        models: Vec::new(),
        jobs_running: 0,
        state: "ready".to_owned(),
        device: "cpu".to_owned(),
        figures: Figures { total_vram_mb: 100, jobs_queued: 1, ..Figures::default() },
        memory_ceiling_bytes: None,
    }
}

/// A version of that family as it stands on a node.
pub(super) fn model(version: &str, state: ModelState) -> ModelView {
    ModelView {
        family: "silhouette".to_owned(),
        version: version.to_owned(),
        state,
        since: None,
        load_seconds: None,
        resident_bytes: None,
        leases: 1,
        last_used_at: None,
        error: None,
        retry_at: None,
    }
}
