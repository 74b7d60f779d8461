//! `GET /api/job/{id}/events`: the job object as server-sent events, on each change and at least each second.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use orfeas_edge_nats::Lease;
use orfeas_protocol::{JobId, Scope};

use super::edge::{Access, Bus, Edge};
use super::job;
use super::jobs::{JobWatch, StoredJob};
use super::outbound::{Answer, BodyWriter};
use crate::failure::Failure;
use crate::head::Head;
use crate::reply::Reply;
use crate::sse;

/// After this long the client connects again: a connection to the bus is not held for ever.
const STREAM_MAX: Duration = Duration::from_secs(600);

/// Answers with the stream.
///
/// # Errors
/// There is no such job, or none of this caller's; the bus is away.
pub(super) async fn get(edge: &'static Edge, head: &Head, id: JobId) -> Result<Answer, Failure> {
    let load = async |bus: &mut Bus| job::load(edge, bus, id).await;
    let Access { mut lease, caller, first } = edge.enter(head, Scope::Read, load).await?;
    let found = job::visible(&caller, first).and_then(|stored| {
        let watch = JobWatch::start(&mut lease, &edge.settings.region, id)?;
        Ok((stored, watch))
    });
    let (stored, watch) = match found {
        Ok(found) => found,
        Err(failure) => {
            lease.give_back().await;
            return Err(failure);
        }
    };
    if stored.record.job.status.is_terminal() && sse::last_event_id(head) == Some(stored.revision) {
        // The client has seen the end; 204 tells it not to come back (WHATWG, 9.2).
        watch.stop(&mut lease);
        lease.give_back().await;
        return Ok(Reply::empty(StatusCode::NO_CONTENT).into());
    }
    let reply = Reply::empty(StatusCode::OK)
        .with_header(CONTENT_TYPE, "text/event-stream")
        .with_header(CACHE_CONTROL, "no-store");
    Ok(Answer::Stream(reply, Box::new(move |writer| Box::pin(stream(lease, watch, stored, writer)))))
}

async fn stream(mut lease: Lease<'static>, watch: JobWatch, mut stored: StoredJob, mut writer: BodyWriter) {
    let end = Instant::now() + STREAM_MAX;
    loop {
        let job = &stored.record.job;
        if !writer.write(Bytes::from(sse::job_event(stored.revision, job))).await {
            return;
        }
        if job.status.is_terminal() || Instant::now() >= end {
            break;
        }
        stored = match watch.look(&mut lease, end).await {
            Ok(stored) => stored,
            // The client comes back with its last event id.
            Err(_) => break,
        };
    }
    watch.stop(&mut lease);
    lease.give_back().await;
    writer.end().await;
}
