//! Responses on their way to the host.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use orfeas_edge_nats::Lease;
use orfeas_edge_nats::jetstream::ObjectReader;
use wasip3::http::types::{ErrorCode, Fields, Response, Trailers};
use wasip3::wit_bindgen::StreamWriter;
use wasip3::{spawn, wit_future, wit_stream};

use super::clock;
use crate::reply::Reply;

/// How long a client may take for one piece of a body.
const WRITE_MAX: Duration = Duration::from_secs(30);

/// A response.
pub(super) enum Answer {
    /// Its body is in memory.
    Full(Reply),
    /// Its body comes from an object store.
    File(Reply, Box<FileBody>),
    /// Its body is written by a task of its own, until it ends or the client goes.
    Stream(Reply, Box<dyn FnOnce(BodyWriter) -> BodyTask>),
}

/// A task that writes a body.
pub(super) type BodyTask = std::pin::Pin<Box<dyn Future<Output = ()>>>;

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Self {
        Self::Full(reply)
    }
}

impl Answer {
    /// The part of the answer that is in memory.
    pub(super) fn map_reply(self, change: impl FnOnce(Reply) -> Reply) -> Self {
        match self {
            Self::Full(reply) => Self::Full(change(reply)),
            Self::File(reply, body) => Self::File(change(reply), body),
            Self::Stream(reply, task) => Self::Stream(change(reply), task),
        }
    }

    /// Hands the response to the host. A body that is not empty is written after the handler has returned, by a
    /// task that belongs to this request.
    pub(super) fn send(self, is_head: bool) -> Result<Response, ErrorCode> {
        match self {
            Self::Full(reply) if is_head || reply.body.is_empty() => without_body(&reply.with_length()),
            Self::File(reply, _) | Self::Stream(reply, _) if is_head => without_body(&reply),
            Self::Full(reply) => {
                let body = reply.body.clone();
                with_body(&reply.with_length(), async move |mut writer| {
                    if writer.write(body).await {
                        writer.end().await;
                    }
                })
            }
            Self::File(reply, file) => with_body(&reply, async move |writer| file.write_to(writer).await),
            Self::Stream(reply, task) => with_body(&reply, async move |writer| task(writer).await),
        }
    }
}

fn without_body(reply: &Reply) -> Result<Response, ErrorCode> {
    let (_, trailers) = wit_future::new(|| Ok(None));
    let (response, _) = Response::new(fields(&reply.headers)?, None, trailers);
    with_status(response, reply)
}

fn with_body(reply: &Reply, write: impl AsyncFnOnce(BodyWriter) + 'static) -> Result<Response, ErrorCode> {
    let (stream, contents) = wit_stream::new();
    // Dropping the writer before its end tells the client that the body is not whole.
    let (outcome, trailers) = wit_future::new(|| Err(ErrorCode::ConnectionTerminated));
    let (response, _) = Response::new(fields(&reply.headers)?, Some(contents), trailers);
    spawn(write(BodyWriter { stream, outcome }));
    with_status(response, reply)
}

fn with_status(response: Response, reply: &Reply) -> Result<Response, ErrorCode> {
    match response.set_status_code(reply.status.as_u16()) {
        Ok(()) => Ok(response),
        Err(()) => Err(ErrorCode::InternalError(Some("status code is not valid".to_owned()))),
    }
}

fn fields(headers: &HeaderMap) -> Result<Fields, ErrorCode> {
    let entries: Vec<_> =
        headers.iter().map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec())).collect();
    Fields::from_list(&entries).map_err(|error| ErrorCode::InternalError(Some(error.to_string())))
}

/// The body of a response that has begun.
pub(super) struct BodyWriter {
    stream: StreamWriter<u8>,
    outcome: wasip3::wit_bindgen::FutureWriter<Result<Option<Trailers>, ErrorCode>>,
}

impl BodyWriter {
    /// Writes bytes; `false` if the client is gone or too slow.
    pub(super) async fn write(&mut self, bytes: Bytes) -> bool {
        let unwritten = clock::within(WRITE_MAX, self.stream.write_all(bytes.into())).await;
        unwritten.is_some_and(|unwritten| unwritten.is_empty())
    }

    /// Ends the body: it is whole.
    pub(super) async fn end(self) {
        drop(self.stream);
        // A client that is gone by now does not matter.
        let _ = self.outcome.write(Ok(None)).await;
    }
}

/// An object on its way to the client.
pub(super) struct FileBody {
    pub(super) lease: Lease<'static>,
    pub(super) reader: ObjectReader,
    /// The first chunk, read before the status was decided.
    pub(super) first: Option<Bytes>,
    /// What the client gets of the file.
    pub(super) range: Range<u64>,
}

impl FileBody {
    async fn write_to(self, mut writer: BodyWriter) {
        let Self { mut lease, mut reader, first, range } = self;
        let mut chunk = first;
        let mut offset = 0;
        while let Some(bytes) = chunk {
            let end = offset + bytes.len() as u64;
            let wanted = overlap(&(offset..end), &range);
            if !wanted.is_empty() && !writer.write(bytes.slice(wanted)).await {
                return;
            }
            if end >= range.end {
                break;
            }
            offset = end;
            chunk = match reader.next(&mut lease).await {
                Ok(chunk) => chunk,
                Err(error) => {
                    eprintln!("result breaks off: {error}");
                    return;
                }
            };
        }
        lease.give_back().await;
        writer.end().await;
    }
}

/// Where `range` lies in a chunk that holds the file's bytes `chunk`.
fn overlap(chunk: &Range<u64>, range: &Range<u64>) -> Range<usize> {
    let start = range.start.clamp(chunk.start, chunk.end) - chunk.start;
    let end = range.end.clamp(chunk.start, chunk.end) - chunk.start;
    // A chunk is far smaller than 4 GiB.
    usize::try_from(start).unwrap_or(0)..usize::try_from(end).unwrap_or(0)
}
