//! The micro service `orfeas` (NATS ADR-32): `submit`, `generate`, `status`, `cancel`, `gpu` and `models` for other
//! systems, `list` and `convert` for the edge, which asks for what only a node knows or can do. Errors carry the
//! service headers and the problem object as body.

mod jobs;
mod requests;

use std::sync::Arc;
use std::time::Instant;

use async_nats::service::endpoint::Endpoint as EndpointStream;
use async_nats::service::error::Error as ServiceError;
use async_nats::service::{NATS_SERVICE_ERROR, NATS_SERVICE_ERROR_CODE, Request, Service, ServiceExt};
use async_nats::{HeaderMap, Message};
use bytes::Bytes;
use futures::StreamExt;
use orfeas_protocol::RequestId;
use orfeas_protocol::problem::{Code, Problem};
use orfeas_protocol::subjects::{HEADER_REQUEST_ID, SERVICE};
use orfeas_traces::Kind;
use serde::Serialize;
use tokio::sync::Semaphore;

use super::bus::CALL_LIMIT;
use super::convert::{self, ConvertRequest};
use super::node::NodeContext;
use super::submission::{internal, submit};
use super::{inventory, listing};
use jobs::{cancel, generate, load};
use requests::{Caller, job_id, request, request_id, submission, traceparent};

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
