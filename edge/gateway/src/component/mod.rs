//! The component itself: requests from the host, responses to it, and the bus in between. What can be decided
//! without I/O is decided in the modules beside this one.
//!
//! ```text
//!  inbound ─▶ route ─▶ generate │ submit │ uploads │ job │ result │ events │ node │ health ─▶ outbound
//!                         └─ submission ─┘    │
//!                         receiving, picture ─┘        jobs, quota, edge (settings, pool, who may enter)
//! ```
//! Each request owns its connection to the bus and everything else it touches. No task outlives its request or
//! wakes another one: the component model's tasks cannot do that here.

mod clock;
mod edge;
mod events;
mod generate;
mod health;
mod inbound;
mod job;
mod jobs;
mod node;
mod outbound;
mod picture;
mod quota;
mod receiving;
mod result;
mod submission;
mod submit;
mod uploads;

use http::header::ALLOW;
use http::{Method, StatusCode};
use wasip3::exports::http::handler::Guest;
use wasip3::http::types::{ErrorCode, Request, Response};

use crate::failure::Failure;
use crate::head::Head;
use crate::reply::{RECONNECTS, Reply};
use crate::route::{Action, Resource, resolve};
use edge::Edge;
use inbound::RequestBody;
use outbound::Answer;

struct Gateway;

wasip3::http::service::export!(Gateway);

impl Guest for Gateway {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let (head, body) = inbound::receive(request);
        let answer = match answer(&head, body).await {
            Ok(answer) => answer,
            Err(failure) => {
                log(&head, &failure);
                failure.into_reply(head.request_id.clone()).into()
            }
        };
        let answer = answer.map_reply(|reply| match Edge::take_reconnects() {
            0 => reply,
            count => reply.with_header(RECONNECTS, count.to_string()),
        });
        answer.map_reply(|reply| reply.sealed(&head.request_id)).send(head.method == Method::HEAD)
    }
}

async fn answer(head: &Head, body: RequestBody) -> Result<Answer, Failure> {
    let (resource, action) = resolve(&head.method, &head.path)?;
    if action == Action::Describe {
        return Ok(Reply::empty(StatusCode::NO_CONTENT).with_header(ALLOW, resource.allow()).into());
    }
    if resource == Resource::Live {
        return Ok(health::live());
    }
    let edge = Edge::get().await?;
    match resource {
        Resource::Generate => generate::post(edge, head, body).await,
        Resource::Submit => submit::post(edge, head, body).await,
        Resource::Uploads => uploads::post(edge, head, body).await,
        Resource::Job(id) if action == Action::Delete => job::delete(edge, head, id).await,
        Resource::Job(id) => job::get(edge, head, id).await,
        Resource::JobResult(id) => result::get(edge, head, id).await,
        Resource::Events(id) => events::get(edge, head, id).await,
        Resource::Jobs => node::jobs(edge, head).await,
        Resource::GpuMetrics => node::gpu_metrics(edge, head).await,
        Resource::Models => node::models(edge, head).await,
        Resource::Ready => health::ready(edge).await,
        Resource::Live => Ok(health::live()),
    }
}

/// One line for the host's log, if the failure is not the caller's.
fn log(head: &Head, failure: &Failure) {
    if let Some(cause) = failure.cause() {
        let line = serde_json::json!({
            "level": "error",
            "request_id": head.request_id,
            "method": head.method.as_str(),
            "path": head.path,
            "code": failure.code(),
            "cause": cause,
        });
        eprintln!("{line}");
    }
}
