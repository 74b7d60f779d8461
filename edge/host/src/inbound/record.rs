//! The record of one request: written to log and metrics once, when its answer has ended.

use super::identity::{Identity, TraceContext};
use crate::class::RequestClass;
use crate::metrics::Metrics;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use orfeas_traces::{Kind, Span, Tracer};
use std::sync::Arc;
use std::time::Instant;

/// Set by components for the host: why a request was refused. Not sent to clients.
const CODE: HeaderName = HeaderName::from_static("x-orfeas-code");
/// Set by components for the host: connections to NATS in place of lost ones. Not sent to clients.
const RECONNECTS: HeaderName = HeaderName::from_static("x-orfeas-nats-reconnects");
const CHANNEL: HeaderName = HeaderName::from_static("x-orfeas-channel");

/// The status in logs for a client that went away before its answer began.
const CLIENT_CLOSED_REQUEST: u16 = 499;

pub(crate) struct Record {
    metrics: Arc<Metrics>,
    /// Ends with the record.
    span: Span,
    started: Instant,
    identity: Identity,
    method: Method,
    path: String,
    endpoint: String,
    class: RequestClass,
    status: Option<StatusCode>,
    sent_bytes: u64,
    complete: bool,
}

impl Record {
    pub(super) fn new(
        metrics: Arc<Metrics>,
        tracer: &Tracer,
        identity: Identity,
        method: Method,
        path: String,
    ) -> Self {
        let TraceContext { own, parent } = identity.trace;
        let parent_span_id = parent.map(|parent| parent.span_id);
        let mut span = tracer.span_as(own, parent_span_id, "HTTP", Kind::Server);
        if tracer.is_on() {
            span.rename(method.as_str().to_owned());
            span.note("http.request.method", method.as_str());
            span.note("url.path", &path);
            span.note("request_id", identity.request_id());
        }
        Self {
            metrics,
            span,
            started: Instant::now(),
            identity,
            method,
            path,
            endpoint: "none".to_owned(),
            class: RequestClass::Short,
            status: None,
            sent_bytes: 0,
            complete: false,
        }
    }

    /// What could not be read as a request.
    pub(super) fn of_no_request(metrics: Arc<Metrics>, identity: Identity) -> Self {
        let method = Method::from_bytes(b"-").unwrap_or_default();
        let mut record = Self::new(metrics, &Tracer::off(), identity, method, String::new());
        record.complete = true;
        record
    }

    /// Notes what the request was found to be.
    pub(super) fn routed(&mut self, endpoint: &str, class: RequestClass) {
        endpoint.clone_into(&mut self.endpoint);
        self.class = class;
        if self.span.context().is_some() {
            self.span.rename(format!("{} {endpoint}", self.method));
            self.span.note("http.route", endpoint);
        }
    }

    /// Notes the start of an answer, with the problem code that a refusal has.
    pub(super) fn answered(&mut self, status: StatusCode, code: Option<&str>) {
        self.status = Some(status);
        self.complete |= self.method == Method::HEAD;
        if let Some(code) = code
            && self.class == RequestClass::Upload
            && status.is_client_error()
        {
            self.metrics.upload_rejected(code);
        }
    }

    /// Notes the start of a component's answer, and removes what it tells only the host.
    pub(super) fn answered_by_guest(&mut self, status: StatusCode, headers: &mut HeaderMap) {
        let code = headers.remove(&CODE);
        let code = code.as_ref().map(HeaderValue::to_str).and_then(Result::ok);
        self.answered(status, code);
        // Looking at a job tells its channel too, and is no request of that channel.
        if self.class == RequestClass::Upload
            && let Some(channel) = headers.get(&CHANNEL).and_then(|value| value.to_str().ok())
        {
            self.metrics.channel_served(channel);
        }
        let reconnects = headers.remove(&RECONNECTS);
        if let Some(count) = reconnects.as_ref().and_then(|value| value.to_str().ok()?.parse().ok()) {
            self.metrics.nats_reconnected(count);
        }
    }

    pub(super) fn sent(&mut self, bytes: u64) {
        self.sent_bytes += bytes;
    }

    /// Notes that the answer's body came to its end.
    pub(super) fn complete(&mut self) {
        self.complete = true;
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let duration = self.started.elapsed();
        let status = self.status.map_or(CLIENT_CLOSED_REQUEST, |status| status.as_u16());
        self.span.note_number("http.response.status_code", status);
        if status >= 500 || !self.complete {
            self.span.fail(if self.complete { "answered with an error" } else { "the answer broke off" });
        }
        self.metrics.request_ended(&self.endpoint, &self.method, status, duration);
        tracing::info!(
            target: "access",
            request_id = self.identity.request_id(),
            trace_id = self.identity.trace.trace_id(),
            method = %self.method,
            path = %self.path,
            endpoint = %self.endpoint,
            class = self.class.name(),
            status,
            duration_ms = duration.as_secs_f64() * 1e3,
            sent_bytes = self.sent_bytes,
            complete = self.complete,
            "request"
        );
    }
}
