//! The head of a request: method, path, query, headers, and the two ids that follow it through the system.

use http::{HeaderMap, HeaderName, Method};
use orfeas_protocol::RequestId;

use crate::reply::REQUEST_ID;

/// W3C Trace Context.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// A request without its body.
#[derive(Debug, Clone)]
pub struct Head {
    /// The method.
    pub method: Method,
    /// The path, as it was sent.
    pub path: String,
    /// The query, without its question mark; empty if there is none.
    pub query: String,
    /// The headers.
    pub headers: HeaderMap,
    /// The caller's correlation id, or a new one.
    pub request_id: RequestId,
    /// The caller's trace context, if it is well formed.
    pub traceparent: Option<String>,
}

impl Head {
    /// Reads a head. The random bytes make an id for a request that brings none.
    pub fn new(method: Method, path_with_query: &str, headers: HeaderMap, random: [u8; 16]) -> Self {
        let (path, query) = path_with_query.split_once('?').unwrap_or((path_with_query, ""));
        let request_id = header(&headers, &REQUEST_ID)
            .and_then(|text| text.parse().ok())
            .unwrap_or_else(|| RequestId::new(random));
        let traceparent =
            header(&headers, &TRACEPARENT).filter(|text| is_traceparent(text)).map(str::to_owned);
        Self { method, path: path.to_owned(), query: query.to_owned(), headers, request_id, traceparent }
    }

    /// A header's text; `None` if it is missing, or not text.
    pub fn header(&self, name: HeaderName) -> Option<&str> {
        header(&self.headers, &name)
    }

    /// The declared length of the body.
    pub fn content_length(&self) -> Option<u64> {
        self.header(http::header::CONTENT_LENGTH)?.parse().ok()
    }
}

fn header<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

/// Version 00: `00-<32 hex>-<16 hex>-<2 hex>`, ids not zero. Later versions may append fields.
fn is_traceparent(text: &str) -> bool {
    let mut parts = text.split('-');
    let mut next = |length: usize| {
        let is_hex = |c: u8| c.is_ascii_digit() || (b'a'..=b'f').contains(&c);
        parts.next().filter(|part| part.len() == length && part.bytes().all(is_hex))
    };
    let (version, trace, span, flags) = (next(2), next(32), next(16), next(2));
    let is_zero = |id: &str| id.bytes().all(|c| c == b'0');
    let is_valid = version.is_some_and(|version| version != "ff")
        && trace.is_some_and(|id| !is_zero(id))
        && span.is_some_and(|id| !is_zero(id))
        && flags.is_some();
    is_valid && text.len() <= 128 && (version != Some("00") || parts.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(path: &str, headers: &[(&'static str, &str)]) -> Head {
        let headers = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
            .collect();
        Head::new(Method::GET, path, headers, [0xab; 16])
    }

    #[test]
    fn path_and_query_are_parted_at_the_first_question_mark() {
        let head = head("/a?b=1?c", &[]);
        assert_eq!((head.path.as_str(), head.query.as_str()), ("/a", "b=1?c"));
    }

    #[test]
    fn request_ids_are_kept_if_they_are_safe_to_repeat() {
        assert_eq!(head("/", &[("x-request-id", "caller-7")]).request_id.as_str(), "caller-7");
        for bad in ["", "a b", "a\"b", &"x".repeat(129)] {
            assert_eq!(head("/", &[("x-request-id", bad)]).request_id.as_str(), "ab".repeat(16));
        }
    }

    #[test]
    fn only_well_formed_trace_contexts_are_carried_on() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(head("/", &[("traceparent", good)]).traceparent.as_deref(), Some(good));
        let later = format!("01{}-what-comes", &good[2..]);
        assert_eq!(head("/", &[("traceparent", &later)]).traceparent, Some(later));
        let zeros = good.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32));
        let upper = good.to_uppercase();
        for bad in ["", "00", &good[1..], &format!("{good}-x"), &zeros, &upper, &format!("ff{}", &good[2..])]
        {
            assert_eq!(head("/", &[("traceparent", bad)]).traceparent, None, "{bad}");
        }
    }
}
