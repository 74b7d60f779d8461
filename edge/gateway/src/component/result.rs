//! `GET /api/job/{id}/result`: the model's file, whole or in part.

use std::time::Duration;

use http::StatusCode;
use http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG,
};
use orfeas_edge_nats::jetstream::ObjectReader;
use orfeas_edge_nats::jetstream::object::GetInfo;
use orfeas_edge_nats::{Error as BusError, Lease};
use orfeas_protocol::options::{ModelFormat, RequestOptions};
use orfeas_protocol::subjects::results_object;
use orfeas_protocol::view::{Job, JobResult};
use orfeas_protocol::{Code, JobId, JobStatus, Scope, Sha256Digest};
use serde::Deserialize;

use super::edge::{Access, Bus, Edge, soon};
use super::jobs::StoredJob;
use super::outbound::{Answer, FileBody};
use super::{job, node};
use crate::failure::Failure;
use crate::head::Head;
use crate::range::{self, Selection};
use crate::reply::{JOB_ID, MODEL, Reply};

/// A node's own limit for a conversion, and the way there and back.
const CONVERT_MAX: Duration = Duration::from_secs(25);

/// Answers with the file.
///
/// # Errors
/// There is no such job, no result yet, or none any more; the range lies outside; the bus is away.
pub(super) async fn get(edge: &'static Edge, head: &Head, id: JobId) -> Result<Answer, Failure> {
    let format = wanted_format(head)?;
    let load = async |bus: &mut Bus| job::load(edge, bus, id).await;
    let Access { mut lease, caller, first } = edge.enter(head, Scope::Read, load).await?;
    let file = match job::visible(&caller, first).and_then(|StoredJob { record, .. }| file_of(record.job)) {
        Ok((job, result)) => {
            converted(edge, &mut lease, head, &job, result, format).await.map(|file| (job, file))
        }
        Err(failure) => Err(failure),
    };
    let (job, file) = match file {
        Ok(found) => found,
        Err(failure) => {
            lease.give_back().await;
            return Err(failure);
        }
    };
    let etag = range::etag(&file.sha256);
    match range::select(head, &etag, file.bytes) {
        Selection::NotModified => {
            lease.give_back().await;
            Ok(described(Reply::empty(StatusCode::NOT_MODIFIED), &etag).into())
        }
        Selection::NotSatisfiable => {
            lease.give_back().await;
            let failure =
                Failure::new(Code::RangeNotSatisfiable, format!("the file has {} bytes", file.bytes));
            Err(failure.with_header(CONTENT_RANGE, format!("bytes */{}", file.bytes)))
        }
        Selection::Whole => send(edge, lease, &job, &file, None).await,
        Selection::Part(part) => send(edge, lease, &job, &file, Some(part)).await,
    }
}

/// The whole file of a completed job, on the connection that waited for it.
///
/// # Errors
/// The file is gone; the bus is away.
pub(super) async fn whole(edge: &'static Edge, lease: Lease<'static>, job: &Job) -> Result<Answer, Failure> {
    let (job, result) = file_of(job.clone())?;
    let file = ResultFile::original(&job, result);
    send(edge, lease, &job, &file, None).await
}

async fn send(
    edge: &'static Edge,
    mut lease: Lease<'static>,
    job: &Job,
    file: &ResultFile,
    part: Option<std::ops::Range<u64>>,
) -> Result<Answer, Failure> {
    let (reader, first) = match open(edge, &mut lease, &file.name).await {
        Ok(opened) => opened,
        Err(failure) => {
            lease.give_back().await;
            return Err(failure);
        }
    };
    let range = part.clone().unwrap_or(0..file.bytes);
    let reply = match part {
        None => Reply::empty(StatusCode::OK),
        Some(part) => Reply::empty(StatusCode::PARTIAL_CONTENT)
            .with_header(CONTENT_RANGE, format!("bytes {}-{}/{}", part.start, part.end - 1, file.bytes)),
    };
    let extension = format_of(&file.media_type).map_or("bin", ModelFormat::as_str);
    let mut reply = described(reply, &range::etag(&file.sha256))
        .with_header(CONTENT_TYPE, &file.media_type)
        .with_header(CONTENT_LENGTH, (range.end - range.start).to_string())
        .with_header(CONTENT_DISPOSITION, format!("attachment; filename=\"{}.{extension}\"", job.id))
        .with_header(JOB_ID, job.id.to_string());
    if let Some(family) = &job.model.family {
        let version = job.model.version.as_deref().map(|version| format!("@{version}")).unwrap_or_default();
        reply = reply.with_header(MODEL, format!("{family}{version}"));
    }
    Ok(Answer::File(reply, Box::new(FileBody { lease, reader, first, range })))
}

/// What a file's responses say, with and without a body.
fn described(reply: Reply, etag: &str) -> Reply {
    reply
        .with_header(ETAG, etag)
        .with_header(ACCEPT_RANGES, "bytes")
        .with_header(CACHE_CONTROL, "private, max-age=31536000, immutable")
}

/// Reads the first chunk, so that a file that is gone is still a clean answer.
async fn open(
    edge: &Edge,
    bus: &mut Bus,
    name: &str,
) -> Result<(ObjectReader, Option<bytes::Bytes>), Failure> {
    let bucket = edge.settings.region.names().results_bucket();
    let expired = || Failure::new(Code::ResultExpired, "the result has been removed");
    let stored = bus.call(&GetInfo { bucket: &bucket, name }, soon()).await?;
    let info = stored.map(|stored| stored.info).filter(|info| !info.deleted).ok_or_else(expired)?;
    let mut reader = ObjectReader::new(info);
    match reader.next(bus).await {
        Ok(first) => Ok((reader, first)),
        Err(BusError::NotFound) => Err(expired()),
        Err(error) => Err(error.into()),
    }
}

/// `?format=` of a request.
fn wanted_format(head: &Head) -> Result<Option<ModelFormat>, Failure> {
    let mut options = RequestOptions::default();
    for (name, value) in form_urlencoded::parse(head.query.as_bytes()) {
        if name != "format" {
            let reason = "unknown; a result has `format`".to_owned();
            let name = name.chars().take(64).collect();
            return Err(orfeas_protocol::options::OptionError { name, reason }.into());
        }
        options.set(&name, &value)?;
    }
    Ok(options.has("format").then_some(options.job.format))
}

/// The job's file.
fn file_of(job: Job) -> Result<(Job, JobResult), Failure> {
    match job.result.clone() {
        Some(result) => Ok((job, result)),
        None if !job.status.is_terminal() => {
            Err(Failure::new(Code::JobNotFinished, "the job has not finished"))
        }
        None => Err(Failure::new(Code::JobHasNoResult, format!("the job is {}", job.status.as_str()))),
    }
}

/// A file in the results store.
struct ResultFile {
    /// The object's name.
    name: String,
    media_type: String,
    bytes: u64,
    sha256: Sha256Digest,
}

impl ResultFile {
    /// The file that the job made.
    fn original(job: &Job, result: JobResult) -> Self {
        let JobResult { media_type, bytes, sha256, .. } = result;
        Self { name: job.id.to_string(), media_type, bytes, sha256 }
    }
}

/// The answer of `convert`.
#[derive(Deserialize)]
struct Converted {
    bytes: u64,
    sha256: Sha256Digest,
    media_type: String,
}

/// The job's file in the wanted format: as it is, or made from it by a node, which keeps what it has made.
async fn converted(
    edge: &Edge,
    bus: &mut Bus,
    head: &Head,
    job: &Job,
    result: JobResult,
    format: Option<ModelFormat>,
) -> Result<ResultFile, Failure> {
    let Some(format) = format.filter(|format| format.media_type() != result.media_type) else {
        return Ok(ResultFile::original(job, result));
    };
    let request = serde_json::json!({ "id": job.id, "format": format }).to_string();
    let answer = node::ask(edge, bus, head, "convert", request.into(), CONVERT_MAX).await?;
    let Converted { bytes, sha256, media_type } = serde_json::from_slice(&answer)
        .map_err(|error| Failure::internal(format!("answer of `convert` is not readable: {error}")))?;
    Ok(ResultFile { name: results_object(job.id, format), media_type, bytes, sha256 })
}

fn format_of(media_type: &str) -> Option<ModelFormat> {
    ModelFormat::ALL.into_iter().find(|format| format.media_type() == media_type)
}

/// The problem of a job that ended without a result.
pub(super) fn failure_of(job: &Job) -> Failure {
    match &job.error {
        Some(error) if job.status == JobStatus::Failed => error.clone().into(),
        _ => Failure::new(Code::JobHasNoResult, format!("the job is {}", job.status.as_str())),
    }
}
