//! The record of one request: written to log and metrics once, when its answer has ended.

use super::identity::Identity;
use crate::class::RequestClass;
use crate::metrics::Metrics;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use std::sync::Arc;
use std::time::Instant;

/// Set by components for the host: why a request was refused. Not sent to clients.
const CODE: HeaderName = HeaderName::from_static("x-orfeas-code");
const CHANNEL: HeaderName = HeaderName::from_static("x-orfeas-channel");

/// The status in logs for a client that went away before its answer began.
const CLIENT_CLOSED_REQUEST: u16 = 499;

pub(crate) struct Record {
    metrics: Arc<Metrics>,
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
    pub(super) fn new(metrics: Arc<Metrics>, identity: Identity, method: Method, path: String) -> Self {
        Self {
            metrics,
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

    /// Notes what the request was found to be.
    pub(super) fn routed(&mut self, endpoint: &str, class: RequestClass) {
        endpoint.clone_into(&mut self.endpoint);
        self.class = class;
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
        if let Some(channel) = headers.get(&CHANNEL).and_then(|value| value.to_str().ok()) {
            self.metrics.channel_served(channel);
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
