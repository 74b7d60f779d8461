//! Which nodes are there and what they run: heartbeats into the nodes bucket, and the `models` answer made
//! of them.

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
use super::node::NodeContext;
use super::provision::NODE_TTL;
use super::submission::{internal, unavailable};

/// What a node says of itself, under its id, a few times per [`NODE_TTL`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Heartbeat {
    node: NodeId,
    at: Timestamp,
    started_at: Timestamp,
    program_version: String,
    channels: Vec<Channel>,
    families: Vec<Family>,
    jobs_running: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Family {
    name: String,
    version: String,
}

/// Sends heartbeats until the future is dropped.
pub(crate) async fn heartbeats(node: Arc<NodeContext>) {
    let started_at = now();
    let mut ticks = interval(NODE_TTL / 3);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let families = node.engine.families().iter();
        let heartbeat = Heartbeat {
            node: node.id.clone(),
            at: now(),
            started_at,
            program_version: env!("CARGO_PKG_VERSION").to_owned(),
            channels: node.channels.clone(),
            families: families
                .map(|family| Family { name: family.name.to_owned(), version: family.version.clone() })
                .collect(),
            jobs_running: node.active.len(),
        };
        let Ok(value) = serde_json::to_vec(&heartbeat) else { continue };
        if let Err(error) = node.bus.nodes.put(node.id.as_str(), value.into()).await {
            tracing::debug!(%error, "heartbeat not sent");
        }
    }
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
    let mut grouped: BTreeMap<&str, BTreeMap<&str, Vec<&Heartbeat>>> = BTreeMap::new();
    for heartbeat in heartbeats {
        for family in &heartbeat.families {
            grouped.entry(&family.name).or_default().entry(&family.version).or_default().push(heartbeat);
        }
    }
    let version = |(version, at): (&str, Vec<&Heartbeat>)| {
        let mut nodes: Vec<_> = at.iter().map(|heartbeat| heartbeat.node.clone()).collect();
        let mut channels: Vec<_> = at.iter().flat_map(|heartbeat| heartbeat.channels.clone()).collect();
        nodes.sort();
        channels.sort();
        channels.dedup();
        VersionModels { version: version.to_owned(), nodes, channels }
    };
    let families = grouped.into_iter().map(|(family, versions)| FamilyModels {
        family: family.to_owned(),
        versions: versions.into_iter().map(version).collect(),
    });
    families.collect()
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
            jobs_running: 0,
        }
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
}
