//! How commands of operators are answered, whatever they are about.
//!
//! Every node hears every command of its region, and answers those that name it or nobody: the sender collects as many
//! replies as there are nodes. That is why these are not endpoints of the micro service, whose requests go to one node
//! of the region.

use async_nats::service::{NATS_SERVICE_ERROR, NATS_SERVICE_ERROR_CODE};
use async_nats::{HeaderMap, Message};
use bytes::Bytes;
use orfeas_protocol::problem::Problem;
use serde::Serialize;

use super::node::NodeContext;
use super::submission::internal;

/// The last part of a command's subject.
pub(super) fn verb(message: &Message) -> Option<&str> {
    message.subject.rsplit_once('.').map(|(_, verb)| verb)
}

/// Answers a command, with the service headers and the problem where it was not carried out.
pub(super) async fn reply<T: Serialize>(node: &NodeContext, message: &Message, answer: Result<T, Problem>) {
    let Some(to) = message.reply.clone() else { return };
    let mut headers = HeaderMap::new();
    let body = answer
        .and_then(|reply| serde_json::to_vec(&reply).map_err(|error| internal("write the reply", &error)));
    let payload = body.unwrap_or_else(|problem| {
        headers.insert(NATS_SERVICE_ERROR_CODE, problem.status.to_string());
        headers.insert(NATS_SERVICE_ERROR, problem.title.as_str());
        serde_json::to_vec(&problem.with("node", node.id.as_str())).unwrap_or_default()
    });
    if let Err(error) = node.bus.client().publish_with_headers(to, headers, Bytes::from(payload)).await {
        tracing::debug!(%error, "reply not sent");
    }
}
