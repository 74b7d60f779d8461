//! The micro service `orfeas` (NATS ADR-32): `submit`, `generate`, `status`, `cancel`, `gpu` and `models` for other
//! systems, `list` and `convert` for the edge, which asks for what only a node knows or can do. Errors carry the service headers and the problem object as body.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::service::endpoint::Endpoint as EndpointStream;
use async_nats::service::error::Error as ServiceError;
use async_nats::service::{NATS_SERVICE_ERROR, NATS_SERVICE_ERROR_CODE, Request, Service, ServiceExt};
use async_nats::{HeaderMap, Message};
use bytes::Bytes;
use futures::StreamExt;
use orfeas_protocol::options::{OptionError, RequestOptions};
use orfeas_protocol::problem::{Code, Problem};
use orfeas_protocol::subjects::{HEADER_OPTIONS, HEADER_REQUEST_ID, HEADER_TRACEPARENT, SERVICE};
use orfeas_protocol::view::Job;
use orfeas_protocol::{JobId, RequestId};
use orfeas_traces::{Kind, TraceParent};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::Semaphore;

use super::bus::CALL_LIMIT;
use super::convert::{self, ConvertRequest};
use super::entropy;
use super::entropy::now;
use super::node::NodeContext;
use super::records::{ChangeError, RecordError, Stored};
use super::submission::{Submission, internal, submit, unavailable};
use super::{inventory, listing};

/// A change that a caller waits for.
const CHANGE_LIMIT: Duration = Duration::from_secs(5);
/// Events can be lost with a connection; the record is looked up this often while a caller waits.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// Memory comes free when a job ends or an operator adds a node.
const RETRY_AFTER_REFUSED_SECONDS: u32 = 30;
/// Options are a few hundred bytes.
const OPTIONS_BYTES_MAX: usize = 8 * 1024;
/// Where replies go that are only made to be counted.
const DISCARD: &str = "_INBOX.orfeas.discard";

/// An endpoint, and how many of its requests are answered at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Endpoint {
    Submit,
    Generate,
    Status,
    Cancel,
    Gpu,
    Models,
    List,
    Convert,
}

impl Endpoint {
    const ALL: [Endpoint; 8] = [
        Endpoint::Submit,
        Endpoint::Generate,
        Endpoint::Status,
        Endpoint::Cancel,
        Endpoint::Gpu,
        Endpoint::Models,
        Endpoint::List,
        Endpoint::Convert,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Submit => "submit",
            Self::Generate => "generate",
            Self::Status => "status",
            Self::Cancel => "cancel",
            Self::Gpu => "gpu",
            Self::Models => "models",
            Self::List => "list",
            Self::Convert => "convert",
        }
    }

    const fn span_name(self) -> &'static str {
        match self {
            Self::Submit => "nats submit",
            Self::Generate => "nats generate",
            Self::Status => "nats status",
            Self::Cancel => "nats cancel",
            Self::Gpu => "nats gpu",
            Self::Models => "nats models",
            Self::List => "nats list",
            Self::Convert => "nats convert",
        }
    }

    /// Pictures cost memory and processor time; who only waits costs little.
    const fn concurrency(self) -> usize {
        match self {
            Self::Submit | Self::List | Self::Convert => 16,
            Self::Generate => 128,
            Self::Status | Self::Cancel | Self::Gpu | Self::Models => 64,
        }
    }
}

/// The running micro service.
#[derive(Debug)]
pub(crate) struct Endpoints {
    service: Service,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Endpoints {
    /// Starts the service.
    ///
    /// # Errors
    /// NATS refuses a subscription.
    pub(crate) async fn start(node: Arc<NodeContext>) -> Result<Self, async_nats::Error> {
        let names = node.bus.region.names();
        let service = node
            .bus
            .client()
            .service_builder()
            .description("picture to 3D model")
            .queue_group(format!("{SERVICE}-{}", node.bus.region))
            .start(SERVICE, env!("CARGO_PKG_VERSION"))
            .await?;
        let mut tasks = Vec::new();
        for endpoint in Endpoint::ALL {
            let requests = service.endpoint_builder().name(endpoint.name());
            let requests = requests.add(names.endpoint(endpoint.name())).await?;
            tasks.push(tokio::spawn(serve(node.clone(), endpoint, requests)));
        }
        // Who is told that we serve must find us: the subscriptions are at the server before this returns.
        round_trip(node.bus.client()).await?;
        Ok(Self { service, tasks })
    }

    /// Takes no more requests. Those that are being answered go on.
    pub(crate) async fn stop(self) {
        if let Err(error) = self.service.stop().await {
            tracing::debug!(%error, "micro service not stopped");
        }
        for task in self.tasks {
            task.abort();
        }
    }
}

/// Waits until the server has read everything that this connection has sent: a flush only hands it to the socket.
async fn round_trip(client: &async_nats::Client) -> Result<(), async_nats::Error> {
    let inbox = client.new_inbox();
    let mut echo = client.subscribe(inbox.clone()).await?;
    client.publish(inbox, Bytes::new()).await?;
    tokio::time::timeout(CALL_LIMIT, echo.next()).await?;
    Ok(())
}

async fn serve(node: Arc<NodeContext>, endpoint: Endpoint, mut requests: EndpointStream) {
    let places = Arc::new(Semaphore::new(endpoint.concurrency()));
    while let Some(request) = requests.next().await {
        let place = places.clone().try_acquire_owned();
        let node = node.clone();
        tokio::spawn(async move {
            let began = Instant::now();
            let request_id = request_id(&request.message);
            let parent = traceparent(&request.message);
            let mut span = node.tracer.span(endpoint.span_name(), Kind::Server, parent);
            let caller = Caller { request_id: request_id.clone(), trace: span.context().or(parent) };
            let answered = match place {
                Ok(_place) => answer(&node, endpoint, &request.message, caller).await,
                Err(_) => Err(Problem::new(Code::Overloaded, "too many requests at one time").retry_after(1)),
            };
            let answered = answered.map_err(|problem| match &request_id {
                Some(id) => problem.with_request_id(id.clone()),
                None => problem,
            });
            let status = answered.as_ref().map_or_else(|problem| problem.status, |_| 200);
            if let Err(problem) = answered.as_ref()
                && problem.status >= 500
            {
                span.fail(&problem.title);
            }
            respond(node.bus.client(), request, answered, request_id).await;
            node.metrics.request_answered(endpoint.name(), status, began.elapsed());
        });
    }
}

async fn answer(
    node: &Arc<NodeContext>,
    endpoint: Endpoint,
    message: &Message,
    caller: Caller,
) -> Result<Bytes, Problem> {
    match endpoint {
        Endpoint::Submit => body(&submit(node, submission(message, caller)?).await?.job),
        Endpoint::Generate => body(&generate(node, submission(message, caller)?).await?),
        Endpoint::Status => body(&load(node, job_id(message)?).await?.record.job),
        Endpoint::Cancel => body(&cancel(node, job_id(message)?).await?),
        Endpoint::Gpu => body(&inventory::gpu(node).await?),
        Endpoint::Models => body(&inventory::models(node).await?),
        Endpoint::List => body(&listing::list(node, request(message)?).await?),
        Endpoint::Convert => {
            let request: ConvertRequest = request(message)?;
            let stored = load(node, request.id()).await?;
            body(&convert::convert(node, &stored.record.job, request).await?)
        }
    }
}

/// Submits and waits for the end, for as long as the options say. A job that goes on is answered as it stands.
async fn generate(node: &Arc<NodeContext>, submission: Submission) -> Result<Job, Problem> {
    let deadline = tokio::time::Instant::now() + submission.options.wait();
    let record = submit(node, submission).await?;
    let id = record.job.id;
    let subject = node.bus.region.names().events(id);
    let mut events = node.bus.client().subscribe(subject).await.ok();
    let mut job = record.job;
    loop {
        // The first look comes after the subscription, so no end goes unseen.
        match node.records.load(id).await {
            Ok(Some(stored)) => job = stored.record.job,
            Ok(None) => return Err(Problem::new(Code::NotFound, "the job has expired")),
            Err(error) => tracing::debug!(job = %id, %error, "record not read while a caller waits"),
        }
        if let Some(problem) = not_taken(&job) {
            return Err(problem);
        }
        if job.status.is_terminal() || tokio::time::Instant::now() >= deadline {
            return Ok(job);
        }
        let next_look = (tokio::time::Instant::now() + LOOK_INTERVAL).min(deadline);
        let _ = tokio::time::timeout_at(next_look, terminal_event(events.as_mut())).await;
    }
}

/// The problem for a caller who waits for a job that no node of the region could take.
fn not_taken(job: &Job) -> Option<Problem> {
    let error = job.error.as_ref()?;
    let is_refused = matches!(error.code, Code::GpuMemoryInsufficient | Code::QueueFull);
    is_refused.then(|| {
        Problem::new(error.code, error.message.as_str())
            .with("id", job.id.to_string())
            .retry_after(RETRY_AFTER_REFUSED_SECONDS)
    })
}

/// Waits for an event that tells of an end.
async fn terminal_event(events: Option<&mut async_nats::Subscriber>) {
    if let Some(events) = events {
        while let Some(event) = events.next().await {
            if serde_json::from_slice::<Job>(&event.payload).is_ok_and(|job| job.status.is_terminal()) {
                return;
            }
        }
    }
    std::future::pending().await
}

async fn cancel(node: &NodeContext, id: JobId) -> Result<Job, Problem> {
    let mut stored = load(node, id).await?;
    let changed = node
        .records
        .change(&mut stored, CHANGE_LIMIT, |record| record.request_cancel(now()).map(|_| ()))
        .await;
    match changed {
        Ok(()) => Ok(stored.record.job),
        Err(ChangeError::Refused(refused)) => Err(Problem::new(Code::JobAlreadyEnded, refused.to_string())),
        Err(ChangeError::Record(error)) => Err(record_problem(&error)),
    }
}

async fn load(node: &NodeContext, id: JobId) -> Result<Stored, Problem> {
    let stored = node.records.load(id).await.map_err(|error| record_problem(&error))?;
    stored.ok_or_else(|| Problem::new(Code::NotFound, "no such job"))
}

fn record_problem(error: &RecordError) -> Problem {
    match error {
        RecordError::Missing(_) => Problem::new(Code::NotFound, "no such job"),
        RecordError::Unreadable { .. } | RecordError::Exists(_) => internal("read a record", error),
        RecordError::Unavailable { .. } => unavailable("use a record", error),
    }
}

/// `{id}`, the request of `status` and `cancel`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct JobRequest {
    id: String,
}

fn job_id(message: &Message) -> Result<JobId, Problem> {
    let request: JobRequest = serde_json::from_slice(&message.payload)
        .map_err(|_| Problem::new(Code::InvalidRequest, "the payload is not a JSON object `{\"id\": …}`"))?;
    request.id.parse().map_err(|_| Problem::new(Code::NotFound, "no such job"))
}

/// The request of `list` or `convert`.
fn request<T: for<'de> Deserialize<'de>>(message: &Message) -> Result<T, Problem> {
    let malformed = |error: serde_json::Error| {
        Problem::new(
            Code::InvalidRequest,
            format!("the payload is not the JSON object that this takes: {error}"),
        )
    };
    serde_json::from_slice(&message.payload).map_err(malformed)
}

/// Who asks, for what the request leads to.
#[derive(Debug, Clone)]
struct Caller {
    request_id: Option<RequestId>,
    trace: Option<TraceParent>,
}

fn traceparent(message: &Message) -> Option<TraceParent> {
    header(message, HEADER_TRACEPARENT)?.parse().ok()
}

fn submission(message: &Message, caller: Caller) -> Result<Submission, Problem> {
    let options = match header(message, HEADER_OPTIONS) {
        Some(text) => options(text)?,
        None => RequestOptions::default(),
    };
    Ok(Submission {
        options,
        image: message.payload.clone(),
        request_id: caller.request_id,
        traceparent: caller.trace.map(|trace| trace.to_string()),
    })
}

fn options(text: &str) -> Result<RequestOptions, Problem> {
    let malformed = || {
        let detail =
            format!("header {HEADER_OPTIONS} is not a JSON object of at most {OPTIONS_BYTES_MAX} bytes");
        Problem::new(Code::InvalidRequest, detail)
    };
    if text.len() > OPTIONS_BYTES_MAX {
        return Err(malformed());
    }
    let Ok(Value::Object(members)) = serde_json::from_str(text) else { return Err(malformed()) };
    let mut options = RequestOptions::default();
    options.set_json(&members).map_err(|error: OptionError| Problem::from(error))?;
    Ok(options)
}

fn header<'a>(message: &'a Message, name: &str) -> Option<&'a str> {
    message.headers.as_ref()?.get(name).map(|value| value.as_str())
}

/// The caller's id, or a fresh one.
fn request_id(message: &Message) -> Option<RequestId> {
    let given = header(message, HEADER_REQUEST_ID).and_then(|id| id.parse().ok());
    given.or_else(|| entropy::job_id().ok()?.to_string().parse().ok())
}

fn body(value: &impl Serialize) -> Result<Bytes, Problem> {
    serde_json::to_vec(value).map(Bytes::from).map_err(|error| internal("write the reply", &error))
}

/// Replies. The library's own way to answer with an error has no body, so this sends the reply with headers of its
/// own. Only the library's way counts the error in the service's statistics, so it goes that way too, to a subject
/// that nobody listens to.
async fn respond(
    client: &async_nats::Client,
    mut request: Request,
    answered: Result<Bytes, Problem>,
    request_id: Option<RequestId>,
) {
    let mut headers = HeaderMap::new();
    if let Some(id) = request_id {
        headers.insert(HEADER_REQUEST_ID, id.as_str());
    }
    let problem = match answered {
        Ok(payload) => {
            if let Err(error) = request.respond_with_headers(Ok(payload), headers).await {
                tracing::debug!(%error, "reply not sent");
            }
            return;
        }
        Err(problem) => problem,
    };
    headers.insert(NATS_SERVICE_ERROR_CODE, problem.status.to_string());
    headers.insert(NATS_SERVICE_ERROR, problem.title.as_str());
    let payload = serde_json::to_vec(&problem).unwrap_or_default().into();
    let Some(reply) = request.message.reply.replace(DISCARD.into()) else { return };
    let sent = client.publish_with_headers(reply, headers, payload).await;
    let counted = request
        .respond(Err(ServiceError { status: problem.title.clone(), code: usize::from(problem.status) }));
    if let (Err(error), _) | (_, Err(error)) = (sent, counted.await) {
        tracing::debug!(%error, "reply not sent");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_a_json_object_with_known_names() {
        let parsed = options(r#"{"quality": 5, "format": "stl"}"#).unwrap();
        assert_eq!(parsed.job.quality, Some(5));
        for (text, code) in [
            ("", Code::InvalidRequest),
            ("[]", Code::InvalidRequest),
            ("{\"quality\": 12}", Code::InvalidOption),
            ("{\"colour\": 1}", Code::InvalidOption),
        ] {
            assert_eq!(options(text).unwrap_err().code, code, "{text}");
        }
        let long = format!("{{\"model\": \"{}\"}}", "x".repeat(OPTIONS_BYTES_MAX));
        assert_eq!(options(&long).unwrap_err().code, Code::InvalidRequest);
    }
}
