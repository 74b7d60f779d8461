//! Questions to the region's nodes, over their micro service: what only a node knows, or can do.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use orfeas_edge_nats::service::{Reply as ServiceReply, ServiceCall};
use orfeas_edge_nats::{Error as BusError, Headers, Unavailable};
use orfeas_protocol::subjects::{HEADER_REQUEST_ID, HEADER_TRACEPARENT};
use orfeas_protocol::{Problem, Scope};

use super::edge::{Access, Bus, Edge, soon};
use super::outbound::Answer;
use crate::failure::Failure;
use crate::head::Head;
use crate::listing::Listing;
use crate::reply::Reply;

/// A node answers these from memory, or with a few look-ups.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// `GET /api/gpu-metrics`
///
/// # Errors
/// No node answers; the bus is away.
pub(super) async fn gpu_metrics(edge: &'static Edge, head: &Head) -> Result<Answer, Failure> {
    pass_on(edge, head, "gpu").await
}

/// `GET /api/models`
///
/// # Errors
/// No node answers; the bus is away.
pub(super) async fn models(edge: &'static Edge, head: &Head) -> Result<Answer, Failure> {
    pass_on(edge, head, "models").await
}

/// `GET /api/jobs`
///
/// # Errors
/// The query is wrong; no node answers; the bus is away.
pub(super) async fn jobs(edge: &'static Edge, head: &Head) -> Result<Answer, Failure> {
    let Access { mut lease, caller, .. } = edge.enter(head, Scope::Read, prove).await?;
    let listed = match Listing::parse(&head.query, caller.tenant) {
        // A struct of texts and numbers always has a JSON form.
        Ok(listing) => {
            let payload = serde_json::to_vec(&listing).unwrap_or_default();
            ask(edge, &mut lease, head, "list", payload.into(), ANSWER_MAX).await
        }
        Err(failure) => Err(failure),
    };
    lease.give_back().await;
    listed.map(json)
}

async fn pass_on(edge: &'static Edge, head: &Head, endpoint: &str) -> Result<Answer, Failure> {
    let Access { mut lease, .. } = edge.enter(head, Scope::Read, prove).await?;
    let answered = ask(edge, &mut lease, head, endpoint, Bytes::new(), ANSWER_MAX).await;
    lease.give_back().await;
    answered.map(json)
}

/// A node that is slow must not look like a connection that is dead, so the connection proves itself first.
async fn prove(bus: &mut Bus) -> Result<(), BusError> {
    bus.ping(soon()).await
}

/// Asks one of the region's nodes.
///
/// # Errors
/// There is none, or none that answers in time (503); or the problem that it answers with.
pub(super) async fn ask(
    edge: &Edge,
    bus: &mut Bus,
    head: &Head,
    endpoint: &str,
    payload: Bytes,
    limit: Duration,
) -> Result<Bytes, Failure> {
    let mut headers = Headers::new().with(HEADER_REQUEST_ID, head.request_id.as_str());
    if let Some(traceparent) = &head.traceparent {
        headers = headers.with(HEADER_TRACEPARENT, traceparent);
    }
    let call = ServiceCall { subject: edge.settings.region.names().endpoint(endpoint), headers, payload };
    match bus.call(&call, Instant::now() + limit).await {
        Ok(ServiceReply::Done(body)) => Ok(body),
        Ok(ServiceReply::Failed { code, body }) => match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) => Err(problem.into()),
            Err(_) => Err(Failure::internal(format!("a node answered `{endpoint}` with error {code}"))),
        },
        Err(BusError::NoResponders { .. }) => Err(Failure::no_node("no node of the region is there")),
        Err(BusError::Unavailable(Unavailable::Deadline(_))) => {
            Err(Failure::no_node("no node of the region answered in time"))
        }
        Err(error) => Err(error.into()),
    }
}

/// A node's answer, as it is: it is JSON in the contract's form.
fn json(body: Bytes) -> Answer {
    let reply = Reply { body, ..Reply::empty(StatusCode::OK) };
    reply.with_header(CONTENT_TYPE, "application/json").with_header(CACHE_CONTROL, "no-store").into()
}
