//! Responses as values, and the headers that every one of them has.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use orfeas_protocol::RequestId;
use serde::Serialize;

/// A response whose body, if it has one, is in memory.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Reply {
    /// A response without a body.
    pub fn empty(status: StatusCode) -> Self {
        Self { status, headers: HeaderMap::new(), body: Bytes::new() }
    }

    /// A JSON response. It shows a state that changes, so nobody may keep it.
    pub fn json(status: StatusCode, value: &impl Serialize) -> Self {
        // Our response types are plain structs with string keys, which always have a JSON form.
        let body = Bytes::from(serde_json::to_vec(value).unwrap_or_default());
        Self { body, ..Self::empty(status) }
            .with_header(CONTENT_TYPE, "application/json")
            .with_header(CACHE_CONTROL, "no-store")
    }

    /// Sets a header. A value that cannot be one is left out: all of ours are built from validated parts.
    pub fn with_header(mut self, name: HeaderName, value: impl AsRef<str>) -> Self {
        if let Ok(value) = HeaderValue::from_str(value.as_ref()) {
            self.headers.insert(name, value);
        }
        self
    }

    /// Adds what every response has.
    pub fn sealed(self, request_id: &RequestId) -> Self {
        self.with_header(REQUEST_ID, request_id.as_str())
            .with_header(http::header::X_CONTENT_TYPE_OPTIONS, "nosniff")
    }

    /// Tells the length of the body in memory. 204 and 304 have no content, and the length of none must not be
    /// told (RFC 9110, 8.6).
    pub fn with_length(self) -> Self {
        if matches!(self.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
            return self;
        }
        let length = self.body.len().to_string();
        self.with_header(CONTENT_LENGTH, length)
    }
}

/// The request's correlation id.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The release channel of a job.
pub const CHANNEL: HeaderName = HeaderName::from_static("x-orfeas-channel");
/// The problem code of an error, for the host's counters.
pub const CODE: HeaderName = HeaderName::from_static("x-orfeas-code");
/// How many connections to the bus were made in place of lost ones since the last response, for the host's counters.
pub const RECONNECTS: HeaderName = HeaderName::from_static("x-orfeas-nats-reconnects");
/// The id of the job that made a file.
pub const JOB_ID: HeaderName = HeaderName::from_static("x-job-id");
/// The model that made a file: `family@version`.
pub const MODEL: HeaderName = HeaderName::from_static("x-model");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_response_names_its_request_and_its_length() {
        let id: RequestId = "r-1".parse().unwrap();
        let reply = Reply::json(StatusCode::OK, &[1, 2]).with_length().sealed(&id);
        assert_eq!(reply.headers["x-request-id"], "r-1");
        assert_eq!(reply.headers["content-length"], "5");
        assert_eq!(Reply::empty(StatusCode::OK).with_length().headers["content-length"], "0");
        assert!(!Reply::empty(StatusCode::NO_CONTENT).with_length().headers.contains_key("content-length"));
    }
}
