//! Commands of operators to the models of this node: `load`, `unload` and `reload`, over NATS.

use std::sync::Arc;

use async_nats::{Message, Subscriber};
use futures::StreamExt;
use orfeas_protocol::NodeId;
use orfeas_protocol::problem::{Code, Problem};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use super::commands::{self, reply};
use super::node::NodeContext;
use crate::models::LeaseError;
use crate::pipeline::{ModelKey, PipelineError};

/// Commands that are carried out at one time: loads of one family come down to one anyway.
const CONCURRENCY: usize = 8;

/// What to do with a family's model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelVerb {
    /// Load it, if it is not.
    Load,
    /// Take it out of service.
    Unload,
    /// Look at its folder now, and have what is there take over.
    Reload,
}

impl ModelVerb {
    /// All of them.
    pub const ALL: [ModelVerb; 3] = [ModelVerb::Load, ModelVerb::Unload, ModelVerb::Reload];

    /// The last part of the command's subject.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Load => "load",
            Self::Unload => "unload",
            Self::Reload => "reload",
        }
    }
}

/// A command's payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelCommand {
    /// The family.
    pub family: String,
    /// The node that is meant; left out = every node of the region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeId>,
}

/// What a node has done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelReply {
    /// The node that answers.
    pub node: NodeId,
    /// The family.
    pub family: String,
    /// The version that serves now; null after `unload`.
    pub version: Option<String>,
    /// Whether that is another one than before.
    pub changed: bool,
}

/// Hears the region's commands. The subscription is made before this returns.
///
/// # Errors
/// NATS refuses it.
pub(crate) async fn listen(node: &NodeContext) -> Result<Subscriber, async_nats::Error> {
    Ok(node.bus.client().subscribe(node.bus.region.names().all_model_commands()).await?)
}

/// Carries commands out until the subscription ends.
pub(crate) async fn serve(node: Arc<NodeContext>, mut commands: Subscriber) {
    let places = Arc::new(Semaphore::new(CONCURRENCY));
    while let Some(message) = commands.next().await {
        let Some(verb) = verb_of(&message) else { continue };
        let command = serde_json::from_slice::<ModelCommand>(&message.payload);
        if matches!(&command, Ok(ModelCommand { node: Some(other), .. }) if *other != node.id) {
            continue;
        }
        let (node, place) = (node.clone(), places.clone().try_acquire_owned());
        tokio::spawn(async move {
            let answer = match (command, place) {
                (Ok(command), Ok(_place)) => carry_out(&node, verb, command).await,
                (Ok(_), Err(_)) => Err(Problem::new(Code::Overloaded, "too many commands at one time")),
                (Err(_), _) => {
                    let detail = "the payload is not a JSON object `{\"family\": …, \"node\"?: …}`";
                    Err(Problem::new(Code::InvalidRequest, detail))
                }
            };
            reply(&node, &message, answer).await;
        });
    }
}

fn verb_of(message: &Message) -> Option<ModelVerb> {
    let verb = commands::verb(message)?;
    ModelVerb::ALL.into_iter().find(|known| known.as_str() == verb)
}

async fn carry_out(
    node: &NodeContext,
    verb: ModelVerb,
    command: ModelCommand,
) -> Result<ModelReply, Problem> {
    let family = command.family;
    // The wait for room, and then the load.
    let limit = node.models.lease_limit().saturating_mul(2);
    let before = if node.models.is_warm(&family) { node.models.version(&family) } else { None };
    let after = match verb {
        ModelVerb::Load => Some(node.models.load(&family, limit).await.map_err(problem)?),
        ModelVerb::Reload => Some(node.models.reload(&family, limit).await.map_err(problem)?),
        ModelVerb::Unload => {
            node.models.unload(&family).map_err(problem)?;
            None
        }
    };
    let version = after.map(|ModelKey { version, .. }| version);
    tracing::info!(family, verb = verb.as_str(), version, "model command carried out");
    Ok(ModelReply { node: node.id.clone(), changed: version != before, family, version })
}

fn problem(error: LeaseError) -> Problem {
    let text = error.to_string();
    let error = PipelineError::from(error);
    // An operator asks, who has to know what is wrong with the folder.
    Problem::new(error.code(), format!("{text}: {error}"))
}
