//! `POST /api/generate-3d`: a picture becomes a model, and the caller waits for it.

use std::time::Instant;

use http::StatusCode;
use orfeas_protocol::JobStatus;
use orfeas_protocol::options::{OptionError, RequestOptions};

use super::edge::Edge;
use super::inbound::RequestBody;
use super::jobs::StoredJob;
use super::outbound::Answer;
use super::submission::{self, Submitted, Terms};
use super::{result, submit};
use crate::failure::Failure;
use crate::head::Head;
use crate::negotiate::{self, Wanted};
use crate::reply::{CHANNEL, Reply};

/// Answers the request: 200 with the model, or 202 when the wait runs out.
///
/// # Errors
/// Whatever is wrong with the request, the picture or the bus; and the job's failure.
pub(super) async fn post(edge: &'static Edge, head: &Head, body: RequestBody) -> Result<Answer, Failure> {
    let started = Instant::now();
    let terms = Terms { check };
    let Submitted { mut lease, watch, mut record, options } =
        submission::submit(edge, head, body, terms).await?;
    let deadline = started + options.wait();
    while !record.job.status.is_terminal() {
        if Instant::now() >= deadline {
            watch.stop(&mut lease);
            lease.give_back().await;
            return Ok(submit::accepted(&record).into());
        }
        record = match watch.look(&mut lease, deadline).await {
            Ok(StoredJob { record, .. }) => record,
            // The job was accepted and goes on; the caller can ask for it when the bus is back.
            Err(failure) => {
                eprintln!(
                    "wait for job {} ends early: {}",
                    record.job.id,
                    failure.cause().unwrap_or("it is gone")
                );
                return Ok(submit::accepted(&record).into());
            }
        };
    }
    watch.stop(&mut lease);
    let channel = record.job.channel.as_str();
    if record.job.status != JobStatus::Completed {
        lease.give_back().await;
        return Err(result::failure_of(&record.job).with_header(CHANNEL, channel));
    }
    let answer = match wanted(head, &options)? {
        Wanted::Job => {
            lease.give_back().await;
            Reply::json(StatusCode::OK, &record.job).into()
        }
        Wanted::File => result::whole(edge, lease, &record.job).await?,
    };
    Ok(answer.map_reply(|reply| reply.with_header(CHANNEL, channel)))
}

fn check(head: &Head, options: &RequestOptions) -> Result<(), Failure> {
    if options.has("type") {
        let reason = "not known here; `POST /api/submit-job` takes it".to_owned();
        return Err(OptionError { name: "type".to_owned(), reason }.into());
    }
    wanted(head, options).map(drop)
}

fn wanted(head: &Head, options: &RequestOptions) -> Result<Wanted, Failure> {
    negotiate::choose(head.header(http::header::ACCEPT), options.job.format.media_type())
}
