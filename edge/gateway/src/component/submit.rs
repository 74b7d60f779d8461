//! `POST /api/submit-job`: a picture becomes a job, at once.

use http::StatusCode;
use http::header::LOCATION;
use orfeas_protocol::JobRecord;

use super::edge::Edge;
use super::inbound::RequestBody;
use super::outbound::Answer;
use super::submission::{self, Submitted, Terms};
use crate::failure::Failure;
use crate::head::Head;
use crate::reply::{CHANNEL, Reply};

/// Answers the request.
///
/// # Errors
/// Whatever is wrong with the request, the picture or the bus.
pub(super) async fn post(edge: &'static Edge, head: &Head, body: RequestBody) -> Result<Answer, Failure> {
    let terms = Terms { check: |_, _| Ok(()) };
    let Submitted { mut lease, watch, record, .. } = submission::submit(edge, head, body, terms).await?;
    watch.stop(&mut lease);
    lease.give_back().await;
    Ok(accepted(&record).into())
}

/// 202: the job goes on.
pub(super) fn accepted(record: &JobRecord) -> Reply {
    Reply::json(StatusCode::ACCEPTED, &record.job)
        .with_header(LOCATION, &record.job.links.this)
        .with_header(CHANNEL, record.job.channel.as_str())
}
