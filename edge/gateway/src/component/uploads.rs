//! `POST /api/uploads`: a picture is checked and stored, without a job.

use http::StatusCode;
use orfeas_edge_nats::Error as BusError;
use orfeas_intake::Limits;

use orfeas_protocol::Scope;

use super::edge::{Access, Bus, Edge, soon};
use super::inbound::RequestBody;
use super::outbound::Answer;
use super::picture::{self, Accepted};
use super::quota;
use super::receiving::receive;
use crate::failure::Failure;
use crate::head::Head;
use crate::reply::Reply;
use crate::upload::{Purpose, UploadReader};

/// Answers the request: 201 for a new picture, 200 for one that was there.
///
/// # Errors
/// Whatever is wrong with the request, the picture or the bus.
pub(super) async fn post(edge: &'static Edge, head: &Head, body: RequestBody) -> Result<Answer, Failure> {
    let reader = UploadReader::new(head, Purpose::Store, Limits::default())?;
    let Access { mut lease, caller, .. } = edge.enter(head, Scope::Submit, ping).await?;
    let stored = match quota::take(edge, &mut lease, &caller, None).await {
        Ok(()) => store(edge, &mut lease, reader, body).await,
        Err(failure) => Err(failure),
    };
    lease.give_back().await;
    stored.map(Answer::from)
}

/// A body cannot be sent twice, so the connection proves itself first.
async fn ping(bus: &mut Bus) -> Result<(), BusError> {
    bus.ping(soon()).await
}

async fn store(
    edge: &Edge,
    bus: &mut Bus,
    reader: UploadReader,
    body: RequestBody,
) -> Result<Reply, Failure> {
    let (_, pictures) = receive(edge, bus, reader, body, |_| Ok(())).await?;
    let (Accepted { input, new_objects, .. }, _) = picture::check(edge, bus, pictures, None).await?;
    let is_new = picture::start_appearing(bus, new_objects)?.finish(edge, bus).await?;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok(Reply::json(status, &input))
}
