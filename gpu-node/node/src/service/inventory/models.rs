//! The answer of `models`: which families there are in which versions, where, and what each channel gets of the requests.

use std::collections::BTreeMap;

use async_nats::jetstream::kv::Operation;
use orfeas_protocol::problem::Problem;
use orfeas_protocol::rollout::Rollout;
use orfeas_protocol::{Channel, NodeId};
use serde::Serialize;

use super::heartbeat::{self, Family, Heartbeat};
use crate::models::{ModelState, ModelView};
use crate::service::node::NodeContext;
use crate::service::submission::{internal, unavailable};

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
        heartbeat::read(node).await.map_err(|error| unavailable("read the nodes", error.as_ref()))?;
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
    use crate::service::inventory::fixture::{heartbeat, model};

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
        let models = vec![model("1", ModelState::Draining), model("2", ModelState::Ready)];
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
