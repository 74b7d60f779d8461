//! One request from head to answer.

use super::admit::{self, HeadLimits};
use super::body::{BodyFault, BodyLimits, RequestBody, ResponseBody};
use super::dispatch::{Component, Dispatcher};
use super::identity::Identity;
use super::record::Record;
use super::refusal::Refusal;
use crate::class::RequestClass;
use crate::metrics::Metrics;
use crate::route::RouteTable;
use http::{HeaderMap, Request, Response, header, request};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use orfeas_traces::Tracer;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// After a refusal the rest of the body is read and dropped within these limits: a connection
/// that is closed on unread data is reset, and the client may never see the answer.
const LINGER_BYTES: usize = 8 << 20;
const LINGER: Duration = Duration::from_secs(2);

/// What serves the requests of all connections.
pub(crate) struct Service {
    pub(crate) dispatcher: Dispatcher,
    /// Routes to components of the dispatcher.
    pub(crate) routes: RouteTable<usize>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) tracer: Tracer,
    pub(crate) head_limits: HeadLimits,
    pub(crate) body_limits: BodyLimits,
}

impl Service {
    /// Answers one request; never fails.
    pub(crate) async fn answer(
        &self,
        request: Request<Incoming>,
        peer: SocketAddr,
    ) -> Response<ResponseBody> {
        let (head, body) = request.into_parts();
        let identity = Identity::from_headers(&head.headers);
        let path = head.uri.path().to_owned();
        let mut record = Record::new(
            Arc::clone(&self.metrics),
            &self.tracer,
            identity.clone(),
            head.method.clone(),
            path.clone(),
        );
        match self.serve(head, body, &path, peer, &identity, &mut record).await {
            Ok((response, ticket)) => {
                let (mut head, body) = response.into_parts();
                record.answered_by_guest(head.status, &mut head.headers);
                identity.write_answer(&mut head.headers);
                Response::from_parts(head, ResponseBody::of_guest(body, ticket, record))
            }
            Err(refusal) => {
                record.answered(refusal.status(), Some(refusal.code().as_str()));
                refusal.response(&identity).map(|bytes| ResponseBody::of_host(bytes, record))
            }
        }
    }

    async fn serve(
        &self,
        mut head: request::Parts,
        body: Incoming,
        path: &str,
        peer: SocketAddr,
        identity: &Identity,
        record: &mut Record,
    ) -> Result<(Response<wasmtime_wasi_http::WasiBody>, Arc<crate::guest::Ticket>), Refusal> {
        let authority = admit::check_head(&head, self.head_limits)?;
        let (route, captures, index) = self.routes.find(path, |_| true).ok_or(Refusal::NotFound)?;
        let component = self.dispatcher.component(*index).ok_or(Refusal::NotFound)?;
        let has_body = !body.is_end_stream();
        let (endpoint, class) = classify(component, route.as_str(), path, &head, has_body);
        record.routed(endpoint, class);

        let limits = BodyLimits {
            bytes: admit::body_limit(&head.headers, self.body_limits.bytes),
            ..self.body_limits
        };
        if body.size_hint().lower() > limits.bytes {
            linger(body, &head.headers);
            return Err(Refusal::BodyTooLarge { limit_bytes: limits.bytes });
        }
        admit::ready_head(&mut head, authority, route, &captures, peer, identity);
        let (body, fault) = RequestBody::new(body, limits);
        let answer = self.dispatcher.run(component, class, Request::from_parts(head, body.into_wasi())).await;
        // What the component made of a body that the host has cut does not matter.
        match fault.get() {
            Some(BodyFault::TooLarge) => Err(Refusal::BodyTooLarge { limit_bytes: limits.bytes }),
            Some(BodyFault::Stalled) => Err(Refusal::BodyStalled),
            None => answer,
        }
    }
}

/// The label for metrics and the class: from the component's endpoint table, else by default.
fn classify<'s>(
    component: &'s Component,
    route: &'s str,
    path: &'s str,
    head: &request::Parts,
    has_body: bool,
) -> (&'s str, RequestClass) {
    let by_default = || RequestClass::of(&head.method, &head.headers, has_body);
    let fits = |endpoint: &crate::manifest::Endpoint| {
        endpoint.method.as_ref().is_none_or(|method| *method == head.method)
    };
    match component.spec.endpoints.find(path, fits) {
        Some((pattern, _, endpoint)) => (pattern.as_str(), endpoint.class.unwrap_or_else(by_default)),
        None => (route, by_default()),
    }
}

/// Reads and drops the rest of a refused body for a while. A client that waits for
/// `100 Continue` has not sent it, and must not be asked to.
fn linger(body: Incoming, headers: &HeaderMap) {
    if headers.contains_key(header::EXPECT) {
        return;
    }
    tokio::spawn(tokio::time::timeout(LINGER, async move {
        let mut body = body;
        let mut read_bytes = 0;
        while let Some(Ok(frame)) = body.frame().await {
            read_bytes += frame.data_ref().map_or(0, bytes::Bytes::len);
            if read_bytes > LINGER_BYTES {
                break;
            }
        }
    }));
}
