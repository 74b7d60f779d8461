//! Who a request is in logs and traces: `X-Request-Id` and W3C `traceparent`.

use http::{HeaderMap, HeaderName, HeaderValue};
use orfeas_protocol::RequestId;
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
    trace_id: u128,
    span_id: u64,
    flags: u8,
    continued: bool,
}

impl Identity {
    /// Takes the caller's identity where it is valid, else makes one.
    pub(crate) fn from_headers(headers: &HeaderMap) -> Self {
        let request_id = headers
            .get(&REQUEST_ID)
            .and_then(|value| value.to_str().ok()?.parse().ok())
            .or_else(|| Uuid::now_v7().to_string().parse().ok());
        let mut parents = headers.get_all(&TRACEPARENT).iter();
        let parent = match (parents.next(), parents.next()) {
            (Some(only), None) => only.to_str().ok().and_then(parse_traceparent),
            _ => None,
        };
        let span_id = Uuid::new_v4().as_u64_pair().1;
        let trace = match parent {
            Some((trace_id, flags)) => TraceContext { trace_id, span_id, flags, continued: true },
            None => {
                let trace_id = Uuid::new_v4().as_u128();
                TraceContext { trace_id, span_id, flags: 1, continued: false }
            }
        };
        Self { request_id, trace }
    }

    /// Writes the identity into the headers that the component sees.
    pub(crate) fn write(&self, headers: &mut HeaderMap) {
        if let Some(value) = self.request_id_header() {
            headers.insert(REQUEST_ID, value);
        }
        if let Ok(value) = HeaderValue::from_str(&self.trace.traceparent()) {
            headers.insert(TRACEPARENT, value);
        }
        if !self.trace.continued {
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
        format!("{:032x}", self.trace_id)
    }

    fn traceparent(&self) -> String {
        format!("00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, self.flags)
    }
}

/// Trace id and flags of a valid `traceparent` (Trace Context level 1, section 3.2).
fn parse_traceparent(text: &str) -> Option<(u128, u8)> {
    let mut fields = text.split('-');
    let version = hex_field(fields.next()?, 2)?;
    let trace_id = hex_field(fields.next()?, 32)?;
    let parent_id = hex_field(fields.next()?, 16)?;
    let flags = hex_field(fields.next()?, 2)?;
    // Version 00 has exactly four fields, later ones may add some; ff is not a version.
    let well_formed = version != 0xff && (version != 0 || fields.next().is_none());
    if well_formed && trace_id != 0 && parent_id != 0 {
        Some((trace_id, u8::try_from(flags).ok()?))
    } else {
        None
    }
}

fn hex_field(text: &str, digits: usize) -> Option<u128> {
    let lower_hex = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if text.len() == digits && lower_hex { u128::from_str_radix(text, 16).ok() } else { None }
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
            assert!(!identity(&[(TRACEPARENT, bad)]).trace.continued, "{bad}");
        }
        assert!(!identity(&[(TRACEPARENT, PARENT), (TRACEPARENT, PARENT)]).trace.continued);
    }

    #[test]
    fn what_is_sent_is_a_valid_parent() {
        let sent = identity(&[]).trace.traceparent();
        assert!(parse_traceparent(&sent).is_some(), "{sent}");
    }

    #[test]
    fn a_later_version_may_have_more_fields() {
        let later = format!("cc{}-what-ever", &PARENT[2..]);
        assert!(parse_traceparent(&later).is_some());
    }
}
