//! Conditional and partial requests for a file that never changes (RFC 9110, 13 and 14).

use std::ops::Range;

use http::HeaderName;
use http::header::{IF_NONE_MATCH, IF_RANGE, RANGE};
use orfeas_protocol::Sha256Digest;

use crate::head::Head;

/// Which part of the file a request gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// All of it.
    Whole,
    /// These bytes.
    Part(Range<u64>),
    /// None: the caller has it.
    NotModified,
    /// None: the range lies outside.
    NotSatisfiable,
}

/// The file's strong validator.
pub fn etag(digest: &Sha256Digest) -> String {
    format!("\"{digest}\"")
}

/// Reads the request's conditions.
pub fn select(head: &Head, etag: &str, length: u64) -> Selection {
    let text = |name: HeaderName| head.header(name);
    if text(IF_NONE_MATCH).is_some_and(|tags| tags.trim() == "*" || has_tag(tags, etag)) {
        return Selection::NotModified;
    }
    // A date cannot validate here, as there is no Last-Modified; a weak tag never does (13.1.5).
    if text(IF_RANGE).is_some_and(|validator| validator.trim() != etag) {
        return Selection::Whole;
    }
    text(RANGE).and_then(|range| part(range, length)).unwrap_or(Selection::Whole)
}

/// Weak comparison, as If-None-Match wants it.
fn has_tag(tags: &str, etag: &str) -> bool {
    tags.split(',').map(str::trim).any(|tag| tag.strip_prefix("W/").unwrap_or(tag) == etag)
}

/// One range of bytes. Several, other units and malformed ones are ignored, as a server may (14.2).
fn part(range: &str, length: u64) -> Option<Selection> {
    let (first, last) = range.trim().strip_prefix("bytes=")?.split_once('-')?;
    let (first, last) = (first.trim(), last.trim());
    let selected = if first.is_empty() {
        let wanted: u64 = last.parse().ok()?;
        length.saturating_sub(wanted)..length
    } else {
        let first: u64 = first.parse().ok()?;
        let last: u64 = if last.is_empty() { u64::MAX } else { last.parse().ok()? };
        if last < first {
            return None;
        }
        first..last.saturating_add(1).min(length)
    };
    Some(if selected.is_empty() { Selection::NotSatisfiable } else { Selection::Part(selected) })
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method};

    use super::*;

    fn selected(headers: &[(HeaderName, &str)]) -> Selection {
        let headers: HeaderMap =
            headers.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
        select(&Head::new(Method::GET, "/", headers, [0; 16]), "\"abc\"", 100)
    }

    #[test]
    fn ranges_are_cut_to_the_file() {
        let cases = [
            ("bytes=0-0", Selection::Part(0..1)),
            ("bytes=10-29", Selection::Part(10..30)),
            ("bytes=90-", Selection::Part(90..100)),
            ("bytes=90-1000", Selection::Part(90..100)),
            ("bytes=-5", Selection::Part(95..100)),
            ("bytes=-1000", Selection::Part(0..100)),
            ("bytes=0-18446744073709551615", Selection::Part(0..100)),
            ("bytes=100-", Selection::NotSatisfiable),
            ("bytes=-0", Selection::NotSatisfiable),
            ("bytes=5-4", Selection::Whole),
            ("bytes=0-1,3-4", Selection::Whole),
            ("bytes=a-b", Selection::Whole),
            ("bytes=-", Selection::Whole),
            ("items=0-1", Selection::Whole),
        ];
        for (range, expected) in cases {
            assert_eq!(selected(&[(RANGE, range)]), expected, "{range}");
        }
    }

    #[test]
    fn a_known_file_is_not_sent_again() {
        for tags in ["\"abc\"", "W/\"abc\"", "\"x\", \"abc\"", "*"] {
            assert_eq!(
                selected(&[(IF_NONE_MATCH, tags), (RANGE, "bytes=0-1")]),
                Selection::NotModified,
                "{tags}"
            );
        }
        assert_eq!(selected(&[(IF_NONE_MATCH, "\"x\"")]), Selection::Whole);
    }

    #[test]
    fn a_range_of_another_version_is_the_whole() {
        let range = (RANGE, "bytes=0-1");
        assert_eq!(selected(&[range.clone(), (IF_RANGE, "\"abc\"")]), Selection::Part(0..2));
        for other in ["\"x\"", "W/\"abc\"", "Wed, 21 Oct 2026 07:28:00 GMT"] {
            assert_eq!(selected(&[range.clone(), (IF_RANGE, other)]), Selection::Whole, "{other}");
        }
    }
}
