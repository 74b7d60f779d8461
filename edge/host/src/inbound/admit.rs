//! Checks a request before any component sees it, and readies its head for the component.

use super::identity::Identity;
use super::refusal::Refusal;
use crate::route::{Captures, RoutePattern};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Uri, Version, header, request};
use std::net::SocketAddr;

/// Limits for the head of a request. The parser's own (in `server.rs`) lie above, so that these
/// are the ones that clients meet, with a problem as answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeadLimits {
    pub(crate) bytes: usize,
    pub(crate) headers: usize,
}

/// An image of 50 MiB as base64 in JSON is a third larger than in a form.
const JSON_BODY_NUMERATOR: u64 = 4;
const JSON_BODY_DENOMINATOR: u64 = 3;

/// A form may bring pictures of a subject's four sides. How large each of them is only the component can tell.
const FORM_PICTURES: u64 = 4;

/// Checks the head; the answer is the authority that the request is for.
pub(super) fn check_head(head: &request::Parts, limits: HeadLimits) -> Result<Authority, Refusal> {
    if head.headers.len() > limits.headers {
        return Err(Refusal::TooManyHeaders { limit: limits.headers });
    }
    if head_bytes(head) > limits.bytes {
        return Err(Refusal::HeadersTooLarge { limit_bytes: limits.bytes });
    }
    if !head.uri.path().starts_with('/') {
        return Err(Refusal::InvalidRequest("The request target must be a path."));
    }
    authority(head)
}

/// RFC 9112 section 3.2: exactly one valid Host, which HTTP/1.0 may leave out; a target in
/// absolute form wins over it.
fn authority(head: &request::Parts) -> Result<Authority, Refusal> {
    const ONE_HOST: Refusal = Refusal::InvalidRequest("The request needs exactly one valid Host header.");
    let mut hosts = head.headers.get_all(header::HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => Some(Authority::try_from(host.as_bytes()).map_err(|_| ONE_HOST)?),
        (None, _) if head.version < Version::HTTP_11 => None,
        _ => return Err(ONE_HOST),
    };
    let target = head.uri.authority().cloned();
    Ok(target.or(host).unwrap_or(Authority::from_static("localhost")))
}

fn head_bytes(head: &request::Parts) -> usize {
    let target = head.uri.path_and_query().map_or(0, |target| target.as_str().len());
    // ": " and CRLF.
    let headers = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4);
    target + headers.sum::<usize>()
}

/// The largest body that this request may have.
pub(super) fn body_limit(headers: &HeaderMap, limit_bytes: u64) -> u64 {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if media_type.eq_ignore_ascii_case("application/json") {
        limit_bytes / JSON_BODY_DENOMINATOR * JSON_BODY_NUMERATOR
    } else if media_type.eq_ignore_ascii_case("multipart/form-data") {
        limit_bytes.saturating_mul(FORM_PICTURES)
    } else {
        limit_bytes
    }
}

/// Gives the head its final form: an absolute target, the request's identity, and the headers
/// by which Spin tells components about the request (and which clients therefore cannot set).
pub(super) fn ready_head(
    head: &mut request::Parts,
    authority: Authority,
    route: &RoutePattern,
    captures: &Captures<'_>,
    peer: SocketAddr,
    identity: &Identity,
) {
    let target = head.uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
    let full_url = format!("http://{authority}{target}");

    let forged: Vec<HeaderName> =
        head.headers.keys().filter(|name| name.as_str().starts_with("spin-")).cloned().collect();
    for name in forged {
        head.headers.remove(name);
    }
    head.headers.remove(header::CONNECTION);
    identity.write(&mut head.headers);
    let peer = peer.to_string();
    for (name, value) in [
        ("spin-full-url", full_url.as_str()),
        ("spin-path-info", captures.rest),
        ("spin-matched-route", route.as_str()),
        ("spin-component-route", route.prefix()),
        ("spin-raw-component-route", route.as_str()),
        ("spin-base-path", "/"),
        ("spin-client-addr", peer.as_str()),
    ] {
        insert(&mut head.headers, HeaderName::from_static(name), value);
    }
    for (name, value) in &captures.parameters {
        if let Ok(name) = HeaderName::try_from(format!("spin-path-match-{name}")) {
            insert(&mut head.headers, name, value);
        }
    }

    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(authority);
    parts.path_and_query = Some(target);
    if let Ok(uri) = Uri::from_parts(parts) {
        head.uri = uri;
    }
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    // Paths and routes are visible ASCII; what is not cannot be told in a header.
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits { bytes: 1000, headers: 10 };

    fn head(target: &str, headers: &[(&str, &str)]) -> request::Parts {
        let mut request = http::Request::builder().uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn a_host_must_be_there_once_and_valid() {
        let host = |headers: &[(&str, &str)]| check_head(&head("/", headers), LIMITS);
        assert_eq!(host(&[("host", "a.example:8080")]).unwrap(), "a.example:8080");
        for bad in [&[][..], &[("host", "a"), ("host", "b")], &[("host", "a b")], &[("host", "")]] {
            assert!(matches!(host(bad), Err(Refusal::InvalidRequest(_))), "{bad:?}");
        }
        let mut old = head("/", &[]);
        old.version = Version::HTTP_10;
        assert!(check_head(&old, LIMITS).is_ok());
    }

    #[test]
    fn a_target_in_absolute_form_wins_over_the_host() {
        let head = head("http://b.example/x", &[("host", "a.example")]);
        assert_eq!(check_head(&head, LIMITS).unwrap(), "b.example");
    }

    #[test]
    fn large_heads_are_refused() {
        let long = "x".repeat(1000);
        let refused = check_head(&head("/", &[("host", "a"), ("x", &long)]), LIMITS);
        assert!(matches!(refused, Err(Refusal::HeadersTooLarge { .. })));
        let refused = check_head(&head(&format!("/{long}"), &[("host", "a")]), LIMITS);
        assert!(matches!(refused, Err(Refusal::HeadersTooLarge { .. })));
        let refused = check_head(&head("/", &[("x", "y"); 11]), LIMITS);
        assert!(matches!(refused, Err(Refusal::TooManyHeaders { .. })));
    }

    #[test]
    fn targets_that_are_not_paths_are_refused() {
        let refused = check_head(&head("*", &[("host", "a")]), LIMITS);
        assert!(matches!(refused, Err(Refusal::InvalidRequest(_))));
    }

    #[test]
    fn clients_cannot_forge_what_the_host_tells_the_component() {
        let mut head = head(
            "/job/7?x=1",
            &[("spin-client-addr", "6.6.6.6"), ("Spin-Path-Match-Admin", "1"), ("x-request-id", "id1")],
        );
        let route = RoutePattern::parse("/job/:id").unwrap();
        let captures = route.matches("/job/7").unwrap();
        let identity = Identity::from_headers(&head.headers);
        let peer = "1.2.3.4:5".parse().unwrap();
        ready_head(&mut head, Authority::from_static("a.example"), &route, &captures, peer, &identity);
        assert_eq!(head.uri, "http://a.example/job/7?x=1");
        let get = |name: &str| head.headers.get(name).map(|value| value.to_str().unwrap());
        assert_eq!(get("spin-client-addr"), Some("1.2.3.4:5"));
        assert_eq!(get("spin-path-match-id"), Some("7"));
        assert_eq!(get("spin-path-match-admin"), None);
        assert_eq!(get("spin-full-url"), Some("http://a.example/job/7?x=1"));
        assert_eq!(get("x-request-id"), Some("id1"));
        assert!(get("traceparent").is_some());
    }

    #[test]
    fn json_bodies_may_be_larger_by_their_encoding_and_forms_by_their_pictures() {
        let limit =
            |content_type: &str| body_limit(&head("/", &[("content-type", content_type)]).headers, 300);
        assert_eq!(limit("image/png"), 300);
        assert_eq!(limit("Application/JSON; charset=utf-8"), 400);
        assert_eq!(limit("multipart/form-data; boundary=x"), 1200);
    }
}
