//! Who a request is in logs and traces: `X-Request-Id` and W3C `traceparent`.

use http::{HeaderMap, HeaderName, HeaderValue};
use orfeas_protocol::RequestId;
use orfeas_traces::TraceParent;
use uuid::Uuid;

pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The identity of one request.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    /// None only where an id that we made were invalid, which the tests exclude.
    pub(crate) request_id: Option<RequestId>,
    pub(crate) trace: TraceContext,
}

/// A W3C trace context: the caller's trace, or a new one, with this hop's own span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TraceContext {
    /// This hop's position.
    pub(crate) own: TraceParent,
    /// The caller's.
    pub(crate) parent: Option<TraceParent>,
}

impl Identity {
    /// Takes the caller's identity where it is valid, else makes one.
    pub(crate) fn from_headers(headers: &HeaderMap) -> Self {
        let request_id = headers
            .get(&REQUEST_ID)
            .and_then(|value| value.to_str().ok()?.parse().ok())
            .or_else(|| Uuid::now_v7().to_string().parse().ok());
        let mut parents = headers.get_all(&TRACEPARENT).iter();
        let parent: Option<TraceParent> = match (parents.next(), parents.next()) {
            (Some(only), None) => only.to_str().ok().and_then(|text| text.parse().ok()),
            _ => None,
        };
        let own = parent.map_or_else(TraceParent::root, TraceParent::child);
        let trace = TraceContext { own, parent };
        Self { request_id, trace }
    }

    /// Writes the identity into the headers that the component sees.
    pub(crate) fn write(&self, headers: &mut HeaderMap) {
        if let Some(value) = self.request_id_header() {
            headers.insert(REQUEST_ID, value);
        }
        if let Ok(value) = HeaderValue::from_str(&self.trace.own.to_string()) {
            headers.insert(TRACEPARENT, value);
        }
        if self.trace.parent.is_none() {
            // State without its parent means nothing.
            headers.remove(&TRACESTATE);
        }
    }

    /// Writes the request's id into the headers of its answer, unless the component has.
    pub(crate) fn write_answer(&self, headers: &mut HeaderMap) {
        if let Some(value) = self.request_id_header() {
            headers.entry(REQUEST_ID).or_insert(value);
        }
    }

    /// The request's id, as text.
    pub(crate) fn request_id(&self) -> &str {
        self.request_id.as_ref().map_or("", RequestId::as_str)
    }

    fn request_id_header(&self) -> Option<HeaderValue> {
        HeaderValue::from_str(self.request_id()).ok()
    }
}

impl TraceContext {
    pub(crate) fn trace_id(&self) -> String {
        format!("{:032x}", self.own.trace_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn identity(headers: &[(HeaderName, &str)]) -> Identity {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name, value.parse().unwrap());
        }
        Identity::from_headers(&map)
    }

    #[test]
    fn a_valid_request_id_is_kept_and_another_replaced() {
        assert_eq!(identity(&[(REQUEST_ID, "abc-1:2")]).request_id(), "abc-1:2");
        for bad in ["", "has space", "quote\"", &"x".repeat(129)] {
            let identity = identity(&[(REQUEST_ID, bad)]);
            let id = identity.request_id();
            assert!(Uuid::parse_str(id).is_ok(), "{bad} became {id}");
        }
    }

    #[test]
    fn the_callers_trace_goes_on_with_a_new_span() {
        let mut headers = HeaderMap::new();
        identity(&[(TRACEPARENT, PARENT)]).write(&mut headers);
        let sent = headers[&TRACEPARENT].to_str().unwrap();
        assert!(sent.starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"), "{sent}");
        assert!(sent.ends_with("-01") && sent != PARENT, "{sent}");
    }

    #[test]
    fn an_invalid_or_missing_parent_starts_a_trace() {
        let zero_trace = format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32));
        for bad in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            &zero_trace,
        ] {
            assert!(identity(&[(TRACEPARENT, bad)]).trace.parent.is_none(), "{bad}");
        }
        assert!(identity(&[(TRACEPARENT, PARENT), (TRACEPARENT, PARENT)]).trace.parent.is_none());
    }
}
