//! What the host itself answers when it cannot pass on a component's answer (RFC 9457).

use super::identity::{Identity, REQUEST_ID};
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use serde::Serialize;

/// Why a request gets no answer from a component.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Problem {
    /// The request breaks HTTP or is of a form that is not served here.
    InvalidRequest(&'static str),
    HeadersTooLarge {
        limit_bytes: usize,
    },
    TooManyHeaders {
        limit: usize,
    },
    NotFound,
    BodyTooLarge {
        limit_bytes: u64,
    },
    /// The client sent its body too slowly.
    BodyStalled,
    /// All places of the request's class are taken, or there is no room for an instance.
    Busy {
        retry_after_seconds: u64,
    },
    DeadlineExceeded,
    ComponentFailed,
}

#[derive(Serialize)]
struct ProblemDetails<'p> {
    r#type: &'static str,
    title: &'static str,
    status: u16,
    detail: String,
    code: &'static str,
    request_id: &'p str,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_seconds: Option<u64>,
}

impl Problem {
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::InvalidRequest(_) => StatusCode::BAD_REQUEST,
            Self::HeadersTooLarge { .. } | Self::TooManyHeaders { .. } => {
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
            }
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyStalled => StatusCode::REQUEST_TIMEOUT,
            Self::Busy { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
            Self::ComponentFailed => StatusCode::BAD_GATEWAY,
        }
    }

    /// The machine-readable code; `image_too_large` is the one that callers know for large bodies.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::InvalidRequest(_) => "invalid_request",
            Self::HeadersTooLarge { .. } | Self::TooManyHeaders { .. } => "headers_too_large",
            Self::NotFound => "not_found",
            Self::BodyTooLarge { .. } => "image_too_large",
            Self::BodyStalled => "request_timeout",
            Self::Busy { .. } => "edge_busy",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::ComponentFailed => "component_failed",
        }
    }

    fn detail(self) -> String {
        match self {
            Self::InvalidRequest(reason) => reason.to_owned(),
            Self::HeadersTooLarge { limit_bytes } => {
                format!("The request line and headers are larger than {limit_bytes} bytes.")
            }
            Self::TooManyHeaders { limit } => format!("The request has more than {limit} headers."),
            Self::NotFound => "Nothing is served at this path.".to_owned(),
            Self::BodyTooLarge { limit_bytes } => {
                format!("The request body is larger than {limit_bytes} bytes.")
            }
            Self::BodyStalled => "The request body arrived too slowly.".to_owned(),
            Self::Busy { .. } => "The edge is at its limit of concurrent requests.".to_owned(),
            Self::DeadlineExceeded => "The request took longer than it may.".to_owned(),
            Self::ComponentFailed => "The component that serves this path failed.".to_owned(),
        }
    }

    /// Whether the rest of the request is not worth reading, so that the connection must close.
    fn closes_connection(self) -> bool {
        matches!(self, Self::BodyTooLarge { .. } | Self::BodyStalled | Self::InvalidRequest(_))
    }

    /// The whole answer.
    pub(crate) fn response(self, identity: &Identity) -> Response<Bytes> {
        let retry_after_seconds = match self {
            Self::Busy { retry_after_seconds } => Some(retry_after_seconds),
            _ => None,
        };
        let details = ProblemDetails {
            r#type: "about:blank",
            title: self.status().canonical_reason().unwrap_or("Error"),
            status: self.status().as_u16(),
            detail: self.detail(),
            code: self.code(),
            request_id: &identity.request_id,
            limit_bytes: match self {
                Self::BodyTooLarge { limit_bytes } => Some(limit_bytes),
                Self::HeadersTooLarge { limit_bytes } => u64::try_from(limit_bytes).ok(),
                _ => None,
            },
            retry_after_seconds,
        };
        let body = serde_json::to_vec(&details).unwrap_or_default();
        let mut response = Response::new(Bytes::from(body));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(REQUEST_ID, identity.request_id_header());
        if let Some(seconds) = retry_after_seconds {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
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

    fn check(problem: Problem, status: u16, code: &str) -> Response<Bytes> {
        let identity = Identity::from_headers(&HeaderMap::new());
        let response = problem.response(&identity);
        let json: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
        assert_eq!(response.status(), status);
        assert_eq!(json["status"], status);
        assert_eq!(json["code"], code);
        assert_eq!(json["request_id"], identity.request_id);
        for field in ["type", "title", "detail"] {
            assert!(json[field].as_str().is_some_and(|text| !text.is_empty()), "{field} of {json}");
        }
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
        response
    }

    #[test]
    fn every_problem_has_all_fields() {
        check(Problem::InvalidRequest("No."), 400, "invalid_request");
        check(Problem::NotFound, 404, "not_found");
        check(Problem::HeadersTooLarge { limit_bytes: 1 }, 431, "headers_too_large");
        check(Problem::TooManyHeaders { limit: 1 }, 431, "headers_too_large");
        check(Problem::BodyStalled, 408, "request_timeout");
        check(Problem::DeadlineExceeded, 504, "deadline_exceeded");
        check(Problem::ComponentFailed, 502, "component_failed");
        let large = check(Problem::BodyTooLarge { limit_bytes: 7 }, 413, "image_too_large");
        assert_eq!(large.headers()[header::CONNECTION], "close");
        let busy = check(Problem::Busy { retry_after_seconds: 3 }, 503, "edge_busy");
        assert_eq!(busy.headers()[header::RETRY_AFTER], "3");
    }
}
