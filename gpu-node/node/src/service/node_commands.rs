//! Commands of operators to this node: `drain`, `pause` and `resume`, over NATS.
//!
//! ```text
//!            pause ─▶ paused ──┐
//!   serving ─┤                 ├─ resume ─▶ serving
//!            drain ─▶ drained ─┘
//! ```
//! A paused node starts nothing and takes nothing; what waits on it waits on, or goes to an idle node that asks for it.
//! A drained one has handed back what waited. What runs goes on in both, and requests are answered. A node that starts
//! serves: the state is not kept.

use std::sync::Arc;

use async_nats::Subscriber;
use futures::StreamExt;
use orfeas_protocol::NodeId;
use orfeas_protocol::problem::{Code, Problem};
use serde::{Deserialize, Serialize};

use super::commands::{self, reply};
use super::node::NodeContext;
use crate::scheduler::queue::Gate;

/// What a node is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeVerb {
    /// Finish what runs, hand back what waits, take nothing.
    Drain,
    /// Finish what runs, start and take nothing.
    Pause,
    /// Serve again.
    Resume,
}

impl NodeVerb {
    /// All of them.
    pub const ALL: [NodeVerb; 3] = [NodeVerb::Drain, NodeVerb::Pause, NodeVerb::Resume];

    /// The last part of the command's subject.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Drain => "drain",
            Self::Pause => "pause",
            Self::Resume => "resume",
        }
    }

    const fn gate(self) -> Gate {
        match self {
            Self::Drain => Gate::Draining,
            Self::Pause => Gate::Paused,
            Self::Resume => Gate::Open,
        }
    }
}

/// A command's payload.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeCommand {
    /// The node that is meant; left out = every node of the region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
}

/// How a node stands after a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeReply {
    /// The node that answers.
    pub node: NodeId,
    /// `ready`, `paused`, `draining` while jobs run on, or `drained`.
    pub state: String,
    /// Whether it served before and does not now, or the other way round.
    pub changed: bool,
    /// Jobs that run, or whose results are being stored.
    pub jobs_running: usize,
    /// Jobs that wait on it.
    pub jobs_waiting: usize,
    /// Jobs that it has handed back.
    pub jobs_handed_back: usize,
}

/// Hears the region's commands. The subscription is made before this returns.
///
/// # Errors
/// NATS refuses it.
pub(crate) async fn listen(node: &NodeContext) -> Result<Subscriber, async_nats::Error> {
    Ok(node.bus.client().subscribe(node.bus.region.names().all_node_commands()).await?)
}

/// Carries commands out until the subscription ends.
pub(crate) async fn serve(node: Arc<NodeContext>, mut commands: Subscriber) {
    while let Some(message) = commands.next().await {
        let verb = commands::verb(&message);
        let Some(verb) = NodeVerb::ALL.into_iter().find(|known| Some(known.as_str()) == verb) else {
            continue;
        };
        let command = if message.payload.is_empty() {
            Ok(NodeCommand::default())
        } else {
            serde_json::from_slice::<NodeCommand>(&message.payload)
        };
        if matches!(&command, Ok(NodeCommand { node: Some(other) }) if *other != node.id) {
            continue;
        }
        let answer = match command {
            Ok(_) => carry_out(&node, verb),
            Err(_) => {
                let detail = "the payload is neither empty nor a JSON object `{\"node\"?: …}`";
                Err(Problem::new(Code::InvalidRequest, detail))
            }
        };
        reply(&node, &message, answer).await;
    }
}

fn carry_out(node: &NodeContext, verb: NodeVerb) -> Result<NodeReply, Problem> {
    if *node.draining.borrow() {
        return Err(Problem::new(Code::Overloaded, "the node is stopping, and hears no commands any more"));
    }
    let scheduler = &node.scheduler;
    let before = scheduler.gate();
    scheduler.set_gate(verb.gate());
    let handed_back = if verb == NodeVerb::Drain { scheduler.hand_back(usize::MAX, |_| true) } else { 0 };
    node.gate_changed.send_replace(());
    tracing::info!(verb = verb.as_str(), jobs = handed_back, "node command carried out; jobs handed back");
    Ok(NodeReply {
        node: node.id.clone(),
        state: state(node).to_owned(),
        changed: before != verb.gate(),
        jobs_running: scheduler.in_pipeline(),
        jobs_waiting: scheduler.waiting(),
        jobs_handed_back: handed_back,
    })
}

/// How the node stands, in a word: in heartbeats and answers.
pub(crate) fn state(node: &NodeContext) -> &'static str {
    match (node.health.fault(), *node.draining.borrow(), node.scheduler.gate()) {
        (Some(fault), _, _) => fault.as_str(),
        (None, true, _) => "draining",
        (None, false, Gate::Open) => "ready",
        (None, false, Gate::Paused) => "paused",
        (None, false, Gate::Draining) if node.scheduler.in_pipeline() > 0 => "draining",
        (None, false, Gate::Draining) => "drained",
    }
}
