//! `/livez` and `/readyz`.

use http::StatusCode;
use orfeas_edge_nats::Error as BusError;
use orfeas_edge_nats::jetstream::{StreamInfo, kv};
use orfeas_protocol::Sha256Digest;
use orfeas_protocol::subjects::{BLOCKLIST_BUCKET, blocklist_key};
use serde_json::json;

use super::edge::{Bus, Edge, soon};
use super::outbound::Answer;
use crate::failure::Failure;
use crate::reply::Reply;

/// The component runs.
pub(super) fn live() -> Answer {
    Reply::json(StatusCode::OK, &json!({ "status": "alive" })).into()
}

/// Uploads can be taken: the bus is there, with the block list and the queue.
///
/// # Errors
/// One of them is not.
pub(super) async fn ready(edge: &'static Edge) -> Result<Answer, Failure> {
    edge.pool.run(async |bus| look(edge, bus).await).await?;
    Ok(Reply::json(StatusCode::OK, &json!({ "status": "ready", "region": edge.settings.region })).into())
}

async fn look(edge: &Edge, bus: &mut Bus) -> Result<(), BusError> {
    let stream = edge.settings.region.names().jobs_stream();
    let queue = bus.start(&StreamInfo { stream: &stream })?;
    // Any key will do: what counts is that the list answers.
    let key = blocklist_key(&Sha256Digest::from_bytes([0; 32]));
    let list = bus.start(&kv::Get { bucket: BLOCKLIST_BUCKET, key: &key })?;
    bus.finish(queue, soon()).await?;
    bus.finish(list, soon()).await?;
    Ok(())
}
