//! The answer of `gpu`: the region's devices in figures.

use orfeas_protocol::problem::Problem;
use orfeas_protocol::{NodeId, Timestamp};
use serde::Serialize;

use super::heartbeat::{self, Family, Heartbeat};
use crate::models::{ModelState, ModelView};
use crate::service::figures::Figures;
use crate::service::node::NodeContext;
use crate::service::submission::unavailable;

/// The answer of `gpu`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct GpuMetrics {
    #[serde(flatten)]
    region: Figures,
    nodes: Vec<NodeMetrics>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct NodeMetrics {
    node: NodeId,
    device: String,
    #[serde(flatten)]
    figures: Figures,
    models_loaded: Vec<Family>,
    jobs_running: usize,
    /// `ready`, `paused`, `draining`, `drained`, or the fault that the node goes with.
    state: String,
    /// When the node said so.
    at: Timestamp,
}

/// The devices of the region in figures.
///
/// # Errors
/// NATS does not answer.
pub(crate) async fn gpu(node: &NodeContext) -> Result<GpuMetrics, Problem> {
    let heartbeats =
        heartbeat::read(node).await.map_err(|error| unavailable("read the nodes", error.as_ref()))?;
    Ok(gpu_of(heartbeats, node.index.queued() as u64))
}

fn gpu_of(mut heartbeats: Vec<Heartbeat>, queued: u64) -> GpuMetrics {
    heartbeats.sort_by(|a, b| a.node.cmp(&b.node));
    let sum = Figures::sum(heartbeats.iter().map(|heartbeat| heartbeat.figures));
    let nodes = heartbeats.into_iter().map(|heartbeat| NodeMetrics {
        node: heartbeat.node,
        device: heartbeat.device,
        figures: heartbeat.figures,
        models_loaded: loaded(&heartbeat.models),
        jobs_running: heartbeat.jobs_running,
        state: heartbeat.state,
        at: heartbeat.at,
    });
    // Jobs that a node has taken but not begun are in state `queued` too, and counted there.
    GpuMetrics { region: Figures { jobs_queued: queued, ..sum }, nodes: nodes.collect() }
}

/// The versions that are on the device.
fn loaded(models: &[ModelView]) -> Vec<Family> {
    let ready = models.iter().filter(|model| matches!(model.state, ModelState::Ready | ModelState::Draining));
    ready.map(|model| Family { name: model.family.clone(), version: model.version.clone() }).collect()
}

#[cfg(test)]
mod tests {
    use orfeas_protocol::Channel;

    use super::*;
    use crate::service::inventory::fixture::heartbeat;

    #[test]
    fn the_region_counts_what_waits_once_and_names_each_node() {
        let heartbeats = vec![heartbeat("b", "1", Channel::Stable), heartbeat("a", "1", Channel::Stable)];
        let json = serde_json::to_value(gpu_of(heartbeats, 7)).unwrap();
        assert_eq!((&json["total_vram_mb"], &json["jobs_queued"]), (&200.into(), &7.into()));
        assert_eq!((&json["nodes"][0]["node"], &json["nodes"][1]["node"]), (&"a".into(), &"b".into()));
    }
}
