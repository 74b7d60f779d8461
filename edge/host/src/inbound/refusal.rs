//! What the host itself answers when it cannot pass on a component's answer.

use super::identity::Identity;
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use orfeas_protocol::problem::MEDIA_TYPE;
use orfeas_protocol::{Code, Problem};

/// Why a request gets no answer from a component.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The request breaks HTTP or is of a form that is not served here.
    InvalidRequest(&'static str),
    HeadersTooLarge {
        limit_bytes: usize,
    },
    TooManyHeaders {
        limit: usize,
    },
    NotFound,
    MethodNotAllowed {
        allow: &'static str,
    },
    /// Over the host's limit, which lies above that for images, so that none of those can be in it.
    BodyTooLarge {
        limit_bytes: u64,
    },
    /// The client sent its body too slowly.
    BodyStalled,
    /// All places of the request's class are taken, or there is no room for an instance.
    Busy {
        retry_after_seconds: u32,
    },
    DeadlineExceeded,
    ComponentFailed,
    /// The process is about to end.
    Draining,
    /// A defect of the host itself.
    Internal,
}

impl Refusal {
    pub(crate) fn code(self) -> Code {
        match self {
            Self::InvalidRequest(_) => Code::InvalidRequest,
            Self::HeadersTooLarge { .. } | Self::TooManyHeaders { .. } => Code::HeadersTooLarge,
            Self::NotFound => Code::NotFound,
            Self::MethodNotAllowed { .. } => Code::MethodNotAllowed,
            Self::BodyTooLarge { .. } => Code::ImageTooLarge,
            Self::BodyStalled => Code::RequestTimeout,
            Self::Busy { .. } | Self::Draining => Code::Overloaded,
            Self::Internal => Code::Internal,
            Self::DeadlineExceeded => Code::DeadlineExceeded,
            Self::ComponentFailed => Code::ComponentFailed,
        }
    }

    pub(crate) fn status(self) -> StatusCode {
        StatusCode::from_u16(self.code().http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    fn problem(self) -> Problem {
        let new = |detail: &str| Problem::new(self.code(), detail);
        match self {
            Self::InvalidRequest(reason) => new(reason),
            Self::HeadersTooLarge { limit_bytes } => {
                new("the request target and headers are larger than the limit")
                    .with("limit_bytes", limit_bytes)
            }
            Self::TooManyHeaders { limit } => {
                new("the request has more headers than the limit").with("limit", limit)
            }
            Self::NotFound => new("nothing is served at this path"),
            Self::MethodNotAllowed { allow } => new("the method is not allowed here").with("allow", allow),
            Self::BodyTooLarge { limit_bytes } => {
                new("the request body is larger than the limit").with("limit_bytes", limit_bytes)
            }
            Self::BodyStalled => new("the request body came too slowly"),
            Self::Busy { retry_after_seconds } => {
                new("too many requests of this kind are running").retry_after(retry_after_seconds)
            }
            Self::DeadlineExceeded => new("the request was not answered in time"),
            Self::ComponentFailed => new("the component that serves this path failed"),
            Self::Draining => new("the edge is about to stop").retry_after(1),
            Self::Internal => new("the request could not be handled"),
        }
    }

    /// Whether the rest of the request is not worth reading, so that the connection must close.
    fn closes_connection(self) -> bool {
        matches!(self, Self::BodyTooLarge { .. } | Self::BodyStalled | Self::InvalidRequest(_))
    }

    /// The whole answer.
    pub(crate) fn response(self, identity: &Identity) -> Response<Bytes> {
        let mut problem = self.problem();
        problem.request_id.clone_from(&identity.request_id);
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        let mut response = Response::new(Bytes::from(body));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        identity.write_answer(headers);
        if let Some(seconds) = problem.retry_after_seconds() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Self::MethodNotAllowed { allow } = self {
            headers.insert(header::ALLOW, HeaderValue::from_static(allow));
        }
        if self.closes_connection() {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderMap;

    fn check(refusal: Refusal, status: u16, code: &str) -> Response<Bytes> {
        let identity = Identity::from_headers(&HeaderMap::new());
        let response = refusal.response(&identity);
        let json: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
        assert_eq!(response.status(), status);
        assert_eq!(json["status"], status);
        assert_eq!(json["code"], code);
        assert_eq!(json["request_id"], identity.request_id());
        for field in ["type", "title", "detail"] {
            assert!(json[field].as_str().is_some_and(|text| !text.is_empty()), "{field} of {json}");
        }
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
        assert_eq!(response.headers()["x-request-id"], identity.request_id());
        response
    }

    #[test]
    fn every_refusal_is_a_whole_problem() {
        check(Refusal::InvalidRequest("no"), 400, "invalid_request");
        check(Refusal::NotFound, 404, "not_found");
        let wrong = check(Refusal::MethodNotAllowed { allow: "GET" }, 405, "method_not_allowed");
        assert_eq!(wrong.headers()[header::ALLOW], "GET");
        check(Refusal::Draining, 503, "overloaded");
        check(Refusal::Internal, 500, "internal");
        check(Refusal::HeadersTooLarge { limit_bytes: 1 }, 431, "headers_too_large");
        check(Refusal::TooManyHeaders { limit: 1 }, 431, "headers_too_large");
        check(Refusal::BodyStalled, 408, "request_timeout");
        check(Refusal::DeadlineExceeded, 504, "deadline_exceeded");
        check(Refusal::ComponentFailed, 502, "component_failed");
        let large = check(Refusal::BodyTooLarge { limit_bytes: 7 }, 413, "image_too_large");
        assert_eq!(large.headers()[header::CONNECTION], "close");
        let busy = check(Refusal::Busy { retry_after_seconds: 3 }, 503, "overloaded");
        assert_eq!(busy.headers()[header::RETRY_AFTER], "3");
    }
}
