//! `GET` and `DELETE /api/job/{id}`.

use http::StatusCode;
use orfeas_edge_nats::Error as BusError;
use orfeas_edge_nats::jetstream::kv;
use orfeas_protocol::{Code, JobId, Scope};

use super::edge::{Access, Bus, Edge, soon};
use super::jobs::{self, StoredJob};
use super::outbound::Answer;
use crate::auth::Caller;
use crate::failure::Failure;
use crate::head::Head;
use crate::reply::{CHANNEL, Reply};

/// Answers with the job object.
///
/// # Errors
/// There is no such job, or none of this caller's; the bus is away.
pub(super) async fn get(edge: &'static Edge, head: &Head, id: JobId) -> Result<Answer, Failure> {
    let load = async |bus: &mut Bus| load(edge, bus, id).await;
    let Access { lease, caller, first } = edge.enter(head, Scope::Read, load).await?;
    lease.give_back().await;
    let StoredJob { record, .. } = visible(&caller, first)?;
    let reply = Reply::json(StatusCode::OK, &record.job);
    Ok(reply.with_header(CHANNEL, record.job.channel.as_str()).into())
}

/// Cancels the job.
///
/// # Errors
/// There is no such job, it is another tenant's, or it has ended; the bus is away.
pub(super) async fn delete(edge: &'static Edge, head: &Head, id: JobId) -> Result<Answer, Failure> {
    let load = async |bus: &mut Bus| load(edge, bus, id).await;
    let Access { mut lease, caller, first } = edge.enter(head, Scope::Submit, load).await?;
    let cancelled = cancel(&mut lease, &caller, first).await;
    lease.give_back().await;
    cancelled
}

async fn cancel(bus: &mut Bus, caller: &Caller, entry: Option<kv::Entry>) -> Result<Answer, Failure> {
    let stored = jobs::read(entry)?.ok_or_else(Failure::no_such_job)?;
    if !caller.owns(&stored.record.tenant) {
        return Err(Failure::new(Code::Forbidden, "the job is another tenant's"));
    }
    let record = jobs::cancel(bus, stored).await?;
    Ok(Reply::json(StatusCode::OK, &record.job).into())
}

/// The entry of a record, for [`Edge::enter`].
pub(super) async fn load(edge: &Edge, bus: &mut Bus, id: JobId) -> Result<Option<kv::Entry>, BusError> {
    let pending = jobs::start_load(bus, &edge.settings.region, id)?;
    bus.finish(pending, soon()).await
}

/// The record, if the caller may know of it: the ids of others' jobs cannot be probed.
pub(super) fn visible(caller: &Caller, entry: Option<kv::Entry>) -> Result<StoredJob, Failure> {
    let stored = jobs::read(entry)?.filter(|stored| caller.owns(&stored.record.tenant));
    stored.ok_or_else(Failure::no_such_job)
}
