//! Spin's route patterns: exact segments, `:name` for one segment, a trailing `/...` for any rest.
//!
//! Where several patterns match a path, the most specific wins: segment by segment from the
//! left, an exact one before `:name` before `...`.

use std::fmt;

/// One pattern, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RoutePattern {
    text: String,
    segments: Vec<Segment>,
    trailing_wildcard: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Exact(String),
    Parameter(String),
}

/// How a pattern matched a path.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Captures<'p> {
    /// Name and value of each `:name` segment.
    pub(crate) parameters: Vec<(&'p str, &'p str)>,
    /// What `/...` stands for, with its leading slash; empty without a wildcard.
    pub(crate) rest: &'p str,
}

impl RoutePattern {
    /// Parses a pattern; the error says what is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        if !text.starts_with('/') {
            return Err("it must start with \"/\"");
        }
        let (prefix, trailing_wildcard) = match text.strip_suffix("/...").or_else(|| text.strip_suffix("/*"))
        {
            Some(prefix) => (prefix, true),
            None => (text, false),
        };
        let mut segments = Vec::new();
        for segment in trim(prefix).split('/').filter(|_| !trim(prefix).is_empty()) {
            segments.push(match segment.strip_prefix(':') {
                Some("") => return Err("\":\" needs a name"),
                Some(name) => Segment::Parameter(name.to_owned()),
                None if segment.contains('*') || segment == "..." => {
                    return Err("a wildcard can only be the last segment");
                }
                None => Segment::Exact(segment.to_owned()),
            });
        }
        Ok(Self { text: text.to_owned(), segments, trailing_wildcard })
    }

    /// The pattern as it was written.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// The pattern without its trailing wildcard.
    pub(crate) fn prefix(&self) -> &str {
        if self.trailing_wildcard {
            self.text.rsplit_once('/').map_or("", |(prefix, _)| prefix)
        } else {
            &self.text
        }
    }

    /// Matches a path (without query), ignoring slashes at its end.
    pub(crate) fn matches<'p>(&'p self, path: &'p str) -> Option<Captures<'p>> {
        let mut rest = path.strip_prefix('/').unwrap_or(path);
        if !self.trailing_wildcard {
            rest = rest.trim_end_matches('/');
        }
        let mut parameters = Vec::new();
        for expected in &self.segments {
            let (segment, after) = rest.split_once('/').unwrap_or((rest, ""));
            match expected {
                Segment::Exact(exact) if exact == segment => {}
                Segment::Parameter(name) if !segment.is_empty() => parameters.push((name.as_str(), segment)),
                _ => return None,
            }
            rest = after;
        }
        if !self.trailing_wildcard && !rest.is_empty() {
            return None;
        }
        // The slash before the rest, if the path has one, belongs to what the wildcard matched.
        let rest_start = path.len() - rest.len();
        let rest = if path[..rest_start].ends_with('/') { &path[rest_start - 1..] } else { rest };
        Some(Captures { parameters, rest: if self.trailing_wildcard { rest } else { "" } })
    }

    /// Compares as "more specific first" among patterns that match one path.
    fn rank(&self) -> Vec<u8> {
        let mut rank: Vec<u8> = self
            .segments
            .iter()
            .map(|segment| match segment {
                Segment::Exact(_) => 1,
                Segment::Parameter(_) => 2,
            })
            .collect();
        // An exact end sorts before a wildcard.
        rank.push(if self.trailing_wildcard { 3 } else { 0 });
        rank
    }

    /// Whether two patterns match exactly the same paths.
    fn same_paths(&self, other: &Self) -> bool {
        self.trailing_wildcard == other.trailing_wildcard
            && self.segments.len() == other.segments.len()
            && self.segments.iter().zip(&other.segments).all(|pair| match pair {
                (Segment::Exact(a), Segment::Exact(b)) => a == b,
                (Segment::Parameter(_), Segment::Parameter(_)) => true,
                _ => false,
            })
    }
}

impl fmt::Display for RoutePattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

fn trim(path: &str) -> &str {
    path.trim_matches('/')
}

/// Patterns with a value each; look-ups give the most specific match.
#[derive(Debug)]
pub(crate) struct RouteTable<T> {
    /// Most specific first.
    entries: Vec<(RoutePattern, T)>,
}

impl<T> RouteTable<T> {
    /// Builds the table. Two entries may share a pattern: the one given first is found first.
    pub(crate) fn new(mut entries: Vec<(RoutePattern, T)>) -> Self {
        entries.sort_by_key(|(pattern, _)| pattern.rank());
        Self { entries }
    }

    /// The most specific entry that matches `path` and fits `accept`.
    pub(crate) fn find<'p>(
        &'p self,
        path: &'p str,
        accept: impl Fn(&T) -> bool,
    ) -> Option<(&'p RoutePattern, Captures<'p>, &'p T)> {
        self.entries.iter().find_map(|(pattern, value)| {
            let captures = pattern.matches(path)?;
            accept(value).then_some((pattern, captures, value))
        })
    }

    /// Two patterns that match the same paths, if there are any.
    pub(crate) fn duplicate(&self) -> Option<(&RoutePattern, &RoutePattern)> {
        self.entries.iter().enumerate().find_map(|(index, (first, _))| {
            let later = self.entries.iter().skip(index + 1).map(|(second, _)| second);
            later.into_iter().find(|second| first.same_paths(second)).map(|second| (first, second))
        })
    }

    /// All entries, most specific first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &(RoutePattern, T)> {
        self.entries.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pattern(text: &str) -> RoutePattern {
        RoutePattern::parse(text).unwrap()
    }

    fn check(text: &str, path: &str, expected: Option<&str>) {
        let pattern = pattern(text);
        let rest = pattern.matches(path).map(|captures| captures.rest.to_owned());
        assert_eq!(rest.as_deref(), expected, "{text} against {path}");
    }

    #[test]
    fn exact_routes_match_only_themselves() {
        check("/", "/", Some(""));
        check("/", "/a", None);
        check("/a/b", "/a/b", Some(""));
        check("/a/b", "/a/b/", Some(""));
        check("/a/b", "/a", None);
        check("/a/b", "/a/b/c", None);
        check("/a", "/A", None);
    }

    #[test]
    fn a_trailing_wildcard_matches_its_prefix_and_all_below() {
        check("/...", "/", Some("/"));
        check("/...", "/a/b/", Some("/a/b/"));
        check("/a/...", "/a", Some(""));
        check("/a/...", "/a/", Some("/"));
        check("/a/...", "/a/b/c", Some("/b/c"));
        check("/a/...", "/ab", None);
        check("/a/*", "/a/b", Some("/b"));
    }

    #[test]
    fn parameters_take_one_segment_each() {
        let route = pattern("/job/:id/part/:n");
        let captures = route.matches("/job/7/part/2").unwrap();
        assert_eq!(captures.parameters, [("id", "7"), ("n", "2")]);
        assert!(route.matches("/job//part/2").is_none());
        assert!(route.matches("/job/7/part").is_none());
    }

    #[test]
    fn the_most_specific_route_wins() {
        let routes = ["/...", "/api/...", "/api/job/:id", "/api/job/new", "/api/:kind/new"];
        let table = RouteTable::new(routes.iter().map(|text| (pattern(text), *text)).collect());
        let find = |path| table.find(path, |_| true).map(|(_, _, text)| *text);
        assert_eq!(find("/api/job/new"), Some("/api/job/new"));
        assert_eq!(find("/api/job/7"), Some("/api/job/:id"));
        assert_eq!(find("/api/user/new"), Some("/api/:kind/new"));
        assert_eq!(find("/api/job/7/x"), Some("/api/..."));
        assert_eq!(find("/"), Some("/..."));
    }

    #[test]
    fn malformed_routes_are_refused() {
        for text in ["", "a", "/a/:", "/a/.../b", "/a*"] {
            assert!(RoutePattern::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn routes_that_differ_only_in_parameter_names_are_duplicates() {
        let table = |texts: [&str; 2]| RouteTable::new(texts.map(|text| (pattern(text), ())).to_vec());
        assert!(table(["/a/:x", "/a/:y"]).duplicate().is_some());
        assert!(table(["/a/:x", "/a/..."]).duplicate().is_none());
    }

    proptest! {
        #[test]
        fn any_path_can_be_matched_against_any_pattern(
            text in "(/(:?[a-c]{0,2}|\\.\\.\\.)){0,4}/?", path in "(/[a-c]{0,2}){0,5}/?"
        ) {
            if let Ok(pattern) = RoutePattern::parse(&text) && let Some(captures) = pattern.matches(&path) {
                prop_assert!(path.ends_with(captures.rest));
            }
        }
    }
}
