//! Which nodes are there and what they run: heartbeats into the nodes bucket, and the answers of `models` and
//! `gpu` made of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_nats::jetstream::kv::Operation;
use futures::TryStreamExt;
use orfeas_protocol::problem::Problem;
use orfeas_protocol::rollout::Rollout;
use orfeas_protocol::{Channel, NodeId, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::time::{MissedTickBehavior, interval};

use super::entropy::now;
use super::figures::Figures;
use super::node::NodeContext;
use super::node_commands::state;
use super::provision::NODE_TTL;
use super::submission::{internal, unavailable};
use crate::models::{ModelState, ModelView};

/// What a node says of itself, under its id, a few times per [`NODE_TTL`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Heartbeat {
    node: NodeId,
    at: Timestamp,
    started_at: Timestamp,
    program_version: String,
    channels: Vec<Channel>,
    families: Vec<Family>,
    /// What is loaded, and how. Left out by nodes of earlier versions.
    #[serde(default)]
    models: Vec<ModelView>,
    jobs_running: usize,
    /// `ready`, `paused`, `draining`, `drained`, or the fault that the node goes with.
    #[serde(default)]
    state: String,
    /// Nodes of earlier versions do not tell.
    #[serde(default)]
    device: String,
    #[serde(flatten)]
    figures: Figures,
    /// The largest job, with its model, that fits when nothing else is there; `None` = the node does not say.
    #[serde(default)]
    memory_ceiling_bytes: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Family {
    name: String,
    version: String,
}

impl Heartbeat {
    /// Whether the node takes jobs. One of an earlier version does not say how it stands.
    fn takes_jobs(&self) -> bool {
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

/// The versions that are on the device.
fn loaded(models: &[ModelView]) -> Vec<Family> {
    let ready = models.iter().filter(|model| matches!(model.state, ModelState::Ready | ModelState::Draining));
    ready.map(|model| Family { name: model.family.clone(), version: model.version.clone() }).collect()
}

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
        read_heartbeats(node).await.map_err(|error| unavailable("read the nodes", error.as_ref()))?;
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

/// A node, and the channels that it serves.
pub(crate) type Serving = (NodeId, Vec<Channel>);

/// The nodes that take jobs, with their channels.
///
/// # Errors
/// NATS does not answer.
pub(crate) async fn serving(node: &NodeContext) -> Result<Vec<Serving>, async_nats::Error> {
    let heartbeats = read_heartbeats(node).await?;
    let serving = heartbeats.into_iter().filter(Heartbeat::takes_jobs);
    Ok(serving.map(|heartbeat| (heartbeat.node, heartbeat.channels)).collect())
}

/// Whether another node of the region serves the channel and is large enough.
pub(crate) async fn fits_elsewhere(
    node: &NodeContext,
    channel: Channel,
    needed_bytes: u64,
) -> Result<bool, async_nats::Error> {
    Ok(is_large_enough(&read_heartbeats(node).await?, &node.id, channel, needed_bytes))
}

fn is_large_enough(heartbeats: &[Heartbeat], here: &NodeId, channel: Channel, needed_bytes: u64) -> bool {
    heartbeats.iter().any(|heartbeat| {
        heartbeat.node != *here
            && heartbeat.takes_jobs()
            && heartbeat.channels.contains(&channel)
            && heartbeat.memory_ceiling_bytes.is_none_or(|ceiling_bytes| needed_bytes <= ceiling_bytes)
    })
}

/// Says goodbye, so that nobody counts on a node that has stopped.
pub(crate) async fn leave(node: &NodeContext) {
    if let Err(error) = node.bus.nodes.delete(node.id.as_str()).await {
        tracing::debug!(%error, "node not signed off");
    }
}

/// The answer of `models`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Models {
    families: Vec<FamilyModels>,
    channels: Vec<ChannelWeight>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct FamilyModels {
    family: String,
    versions: Vec<VersionModels>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct VersionModels {
    version: String,
    nodes: Vec<NodeId>,
    channels: Vec<Channel>,
    /// Where it is loaded, is being loaded, or has failed to load.
    loaded: Vec<NodeModel>,
}

impl VersionModels {
    fn nowhere(version: &str) -> Self {
        Self { version: version.to_owned(), nodes: Vec::new(), channels: Vec::new(), loaded: Vec::new() }
    }
}

/// A version on a node.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct NodeModel {
    node: NodeId,
    #[serde(flatten)]
    model: ModelView,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct ChannelWeight {
    channel: Channel,
    weight_percent: f64,
}

/// Families, versions, where they are, and the channels' weights.
///
/// # Errors
/// NATS does not answer.
pub(crate) async fn models(node: &NodeContext) -> Result<Models, Problem> {
    let heartbeats =
        read_heartbeats(node).await.map_err(|error| unavailable("read the nodes", error.as_ref()))?;
    let entry = node.bus.rollout.entry(Rollout::KEY).await;
    let entry = entry.map_err(|error| unavailable("read the rollout", &error))?;
    let rollout: Rollout = match entry.filter(|entry| entry.operation == Operation::Put) {
        Some(entry) => {
            serde_json::from_slice(&entry.value).map_err(|error| internal("read the rollout", &error))?
        }
        None => Rollout::default(),
    };
    Ok(Models { families: by_family(&heartbeats), channels: weights(rollout.canary_percent) })
}

async fn read_heartbeats(node: &NodeContext) -> Result<Vec<Heartbeat>, async_nats::Error> {
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

fn by_family(heartbeats: &[Heartbeat]) -> Vec<FamilyModels> {
    let mut versions: BTreeMap<(&str, &str), VersionModels> = BTreeMap::new();
    for heartbeat in heartbeats {
        for Family { name, version } in &heartbeat.families {
            let at = versions.entry((name, version)).or_insert_with(|| VersionModels::nowhere(version));
            at.nodes.push(heartbeat.node.clone());
            at.channels.extend(&heartbeat.channels);
        }
        for model in heartbeat.models.iter().filter(|model| model.state != ModelState::Available) {
            let ModelView { family, version, .. } = model;
            let at = versions.entry((family, version)).or_insert_with(|| VersionModels::nowhere(version));
            at.loaded.push(NodeModel { node: heartbeat.node.clone(), model: model.clone() });
        }
    }
    let mut families: Vec<FamilyModels> = Vec::new();
    for ((family, _), mut version) in versions {
        version.nodes.sort();
        version.channels.sort();
        version.channels.dedup();
        match families.last_mut().filter(|last| last.family == family) {
            Some(last) => last.versions.push(version),
            None => families.push(FamilyModels { family: family.to_owned(), versions: vec![version] }),
        }
    }
    families
}

fn weights(canary_percent: f64) -> Vec<ChannelWeight> {
    let canary_percent = canary_percent.clamp(0.0, 100.0);
    vec![
        ChannelWeight { channel: Channel::Stable, weight_percent: 100.0 - canary_percent },
        ChannelWeight { channel: Channel::Canary, weight_percent: canary_percent },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heartbeat(node: &str, version: &str, channel: Channel) -> Heartbeat {
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

    #[test]
    fn the_region_counts_what_waits_once_and_names_each_node() {
        let heartbeats = vec![heartbeat("b", "1", Channel::Stable), heartbeat("a", "1", Channel::Stable)];
        let json = serde_json::to_value(gpu_of(heartbeats, 7)).unwrap();
        assert_eq!((&json["total_vram_mb"], &json["jobs_queued"]), (&200.into(), &7.into()));
        assert_eq!((&json["nodes"][0]["node"], &json["nodes"][1]["node"]), (&"a".into(), &"b".into()));
    }

    #[test]
    fn a_heartbeat_of_an_earlier_version_is_read() {
        let mut old = serde_json::to_value(heartbeat("a", "1", Channel::Stable)).unwrap();
        let members = old.as_object_mut().unwrap();
        members.retain(|name, _| !name.ends_with("_mb") && name != "device" && name != "jobs_queued");
        assert!(serde_json::from_value::<Heartbeat>(old).is_ok());
    }

    #[test]
    fn a_job_that_is_too_large_here_fits_on_a_larger_node_of_its_channel_only() {
        let here: NodeId = "a".parse().unwrap();
        let node = |name, channel, ceiling| Heartbeat {
            memory_ceiling_bytes: Some(ceiling),
            ..heartbeat(name, "1", channel)
        };
        let nodes =
            [node("a", Channel::Stable, 9), node("b", Channel::Stable, 5), node("c", Channel::Canary, 9)];
        assert!(is_large_enough(&nodes, &here, Channel::Stable, 5));
        assert!(!is_large_enough(&nodes, &here, Channel::Stable, 6));
        assert!(is_large_enough(&nodes, &here, Channel::Canary, 6));
        let paused = Heartbeat { state: "paused".to_owned(), ..node("c", Channel::Canary, 9) };
        assert!(!is_large_enough(&[paused], &here, Channel::Canary, 6), "it takes no jobs");
    }

    #[test]
    fn families_list_their_versions_with_nodes_and_channels() {
        let nodes = [
            heartbeat("b", "1", Channel::Stable),
            heartbeat("a", "1", Channel::Stable),
            heartbeat("c", "2", Channel::Canary),
        ];
        let families = by_family(&nodes);
        assert_eq!(families.len(), 1);
        let versions: Vec<_> = families[0].versions.iter().collect();
        assert_eq!(versions[0].nodes.iter().map(NodeId::as_str).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(versions[0].channels, [Channel::Stable]);
        assert_eq!(versions[1].version, "2");
    }

    #[test]
    fn a_version_says_where_it_is_loaded_and_how_it_stands_there() {
        let model = |version: &str, state| ModelView {
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
        };
        let models = vec![model("1", ModelState::Draining), model("2", ModelState::Ready)];
        assert_eq!(served(&models), [Family { name: "silhouette".to_owned(), version: "2".to_owned() }]);
        let node = Heartbeat { models, ..heartbeat("a", "2", Channel::Stable) };
        let families = serde_json::to_value(by_family(&[node])).unwrap();
        let versions = &families[0]["versions"];
        assert_eq!((&versions[0]["version"], &versions[0]["nodes"]), (&"1".into(), &serde_json::json!([])));
        assert_eq!(versions[0]["loaded"][0]["state"], "draining");
        let loaded = &versions[1]["loaded"][0];
        assert_eq!(
            (&loaded["node"], &loaded["state"], &loaded["leases"]),
            (&"a".into(), &"ready".into(), &1.into())
        );
    }
}
