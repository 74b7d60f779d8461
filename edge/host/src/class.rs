//! Classes of requests: each has its own limits, so that one kind cannot starve another.
//!
//! | class | by default | what is bounded |
//! |---|---|---|
//! | `short` | all others | the answer starts within seconds |
//! | `upload` | POST, PUT and PATCH with a body | may wait minutes (a synchronous job) |
//! | `stream` | `Accept: text/event-stream` | the answer starts within seconds and goes on for long |
//!
//! The endpoint table of the manifest (`[component.X.tool.orfeas-edge]`) can say otherwise for a route.

use http::{HeaderMap, Method, header};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum RequestClass {
    Short,
    Upload,
    Stream,
}

impl RequestClass {
    pub(crate) const ALL: [Self; 3] = [Self::Short, Self::Upload, Self::Stream];
    /// The names that [`Self::parse`] takes.
    pub(crate) const NAMES: &'static str = "short, upload, stream";

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Short => "short",
            Self::Upload => "upload",
            Self::Stream => "stream",
        }
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.name() == name)
    }

    /// The class of a request that the endpoint table does not decide.
    pub(crate) fn of(method: &Method, headers: &HeaderMap, has_body: bool) -> Self {
        if accepts_event_stream(headers) {
            Self::Stream
        } else if has_body && matches!(*method, Method::POST | Method::PUT | Method::PATCH) {
            Self::Upload
        } else {
            Self::Short
        }
    }
}

/// Only an explicit `text/event-stream` counts: every client accepts `*/*`.
fn accepts_event_stream(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|range| {
        let media_type = range.split(';').next().unwrap_or_default().trim();
        media_type.eq_ignore_ascii_case("text/event-stream")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: Method, accept: &str, has_body: bool, expected: RequestClass) {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, accept.parse().unwrap());
        assert_eq!(RequestClass::of(&method, &headers, has_body), expected, "{method} {accept} {has_body}");
    }

    #[test]
    fn the_class_follows_method_body_and_accept() {
        check(Method::GET, "*/*", false, RequestClass::Short);
        check(Method::DELETE, "application/json", false, RequestClass::Short);
        check(Method::POST, "*/*", false, RequestClass::Short);
        check(Method::POST, "model/gltf-binary", true, RequestClass::Upload);
        check(Method::GET, "text/event-stream", false, RequestClass::Stream);
        check(Method::GET, "text/html, Text/Event-Stream;q=0.9", false, RequestClass::Stream);
        check(Method::GET, "text/event-streams", false, RequestClass::Short);
    }

    #[test]
    fn names_and_classes_agree() {
        for class in RequestClass::ALL {
            assert_eq!(RequestClass::parse(class.name()), Some(class));
            assert!(RequestClass::NAMES.contains(class.name()));
        }
        assert_eq!(RequestClass::parse("long"), None);
    }
}
