//! What nodes say of themselves: written into the nodes bucket again and again, and read from there.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::TryStreamExt;
use orfeas_protocol::{Channel, NodeId, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::time::{MissedTickBehavior, interval};

use crate::models::{ModelState, ModelView};
use crate::service::entropy::now;
use crate::service::figures::Figures;
use crate::service::node::NodeContext;
use crate::service::node_commands::state;
use crate::service::provision::NODE_TTL;

/// What a node says of itself, under its id, a few times per [`NODE_TTL`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Heartbeat {
    pub(super) node: NodeId,
    pub(super) at: Timestamp,
    pub(super) started_at: Timestamp,
    pub(super) program_version: String,
    pub(super) channels: Vec<Channel>,
    pub(super) families: Vec<Family>,
    /// What is loaded, and how. Left out by nodes of earlier versions.
    #[serde(default)]
    pub(super) models: Vec<ModelView>,
    pub(super) jobs_running: usize,
    /// `ready`, `paused`, `draining`, `drained`, or the fault that the node goes with.
    #[serde(default)]
    pub(super) state: String,
    /// Nodes of earlier versions do not tell.
    #[serde(default)]
    pub(super) device: String,
    #[serde(flatten)]
    pub(super) figures: Figures,
    /// The largest job, with its model, that fits when nothing else is there; `None` = the node does not say.
    #[serde(default)]
    pub(super) memory_ceiling_bytes: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Family {
    pub(super) name: String,
    pub(super) version: String,
}

impl Heartbeat {
    /// Whether the node takes jobs. One of an earlier version does not say how it stands.
    pub(super) fn takes_jobs(&self) -> bool {
        matches!(self.state.as_str(), "" | "ready")
    }
}

/// Sends heartbeats until the future is dropped.
pub(crate) async fn heartbeats(node: Arc<NodeContext>) {
    let started_at = now();
    let mut ticks = interval(NODE_TTL / 3);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut models_changed = node.models.changes();
    let mut gate_changed = node.gate_changed.subscribe();
    let mut told = false;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            // Others go by it.
            Ok(()) = gate_changed.changed() => {}
            // An operator who has loaded a model looks for it at once.
            Ok(()) = models_changed.changed() => {}
            // A fault is told at once, and then at each tick like everything else.
            _ = node.health.failed(), if !told => told = true,
        }
        let Ok(value) = serde_json::to_vec(&heartbeat(&node, started_at)) else { continue };
        if let Err(error) = node.bus.nodes.put(node.id.as_str(), value.into()).await {
            tracing::debug!(%error, "heartbeat not sent");
        }
    }
}

/// The versions that jobs get, or would get: one of each family.
fn served(models: &[ModelView]) -> Vec<Family> {
    let mut served: BTreeMap<&str, &ModelView> = BTreeMap::new();
    for model in models {
        let rank = |state| match state {
            ModelState::Ready => 0,
            ModelState::Loading | ModelState::Available => 1,
            ModelState::Draining | ModelState::Failed => 2,
        };
        let best = served.entry(&model.family).or_insert(model);
        if rank(model.state) < rank(best.state) {
            *best = model;
        }
    }
    let family = |model: &&ModelView| Family { name: model.family.clone(), version: model.version.clone() };
    served.values().map(family).collect()
}

fn heartbeat(node: &NodeContext, started_at: Timestamp) -> Heartbeat {
    let models = node.models.views();
    // A job waits on its node while its picture comes and another one has the device.
    let (here, running) = (node.active.len(), node.busy.jobs());
    Heartbeat {
        node: node.id.clone(),
        at: now(),
        started_at,
        program_version: env!("CARGO_PKG_VERSION").to_owned(),
        channels: node.channels.clone(),
        families: served(&models),
        models,
        jobs_running: running,
        state: state(node).to_owned(),
        device: node.engine.device(),
        figures: Figures {
            utilization_percent: node.busy.read_percent(),
            jobs_queued: here.saturating_sub(running) as u64,
            ..Figures::of(node.engine.memory())
        },
        memory_ceiling_bytes: Some(node.scheduler.memory().ceiling_bytes()),
    }
}

/// Says goodbye, so that nobody counts on a node that has stopped.
pub(crate) async fn leave(node: &NodeContext) {
    if let Err(error) = node.bus.nodes.delete(node.id.as_str()).await {
        tracing::debug!(%error, "node not signed off");
    }
}

/// What all nodes say.
///
/// # Errors
/// NATS does not answer.
pub(super) async fn read(node: &NodeContext) -> Result<Vec<Heartbeat>, async_nats::Error> {
    let keys: Vec<String> = node.bus.nodes.keys().await?.try_collect().await?;
    let mut heartbeats = Vec::new();
    for key in keys {
        if let Some(value) = node.bus.nodes.get(key).await?
            && let Ok(heartbeat) = serde_json::from_slice(&value)
        {
            heartbeats.push(heartbeat);
        }
    }
    Ok(heartbeats)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::inventory::fixture::{heartbeat, model};

    #[test]
    fn a_heartbeat_of_an_earlier_version_is_read() {
        let mut old = serde_json::to_value(heartbeat("a", "1", Channel::Stable)).unwrap();
        let members = old.as_object_mut().unwrap();
        members.retain(|name, _| !name.ends_with("_mb") && name != "device" && name != "jobs_queued");
        assert!(serde_json::from_value::<Heartbeat>(old).is_ok());
    }

    #[test]
    fn the_version_that_jobs_would_get_is_the_one_that_is_ready() {
        let models = [model("1", ModelState::Draining), model("2", ModelState::Ready)];
        assert_eq!(served(&models), [Family { name: "silhouette".to_owned(), version: "2".to_owned() }]);
    }
}
