//! A reader of the OpenMetrics text format, strict enough to notice what a scraper would refuse.

use std::collections::BTreeMap;

use crate::wait::{self, PATIENCE};

/// One line with a value.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The name, with its suffix.
    pub name: String,
    /// The labels.
    pub labels: BTreeMap<String, String>,
    /// The value.
    pub value: f64,
}

/// A whole exposition.
#[derive(Debug, Clone, Default)]
pub struct Exposition {
    /// Metric families and their types.
    pub families: BTreeMap<String, String>,
    /// The samples, in order.
    pub samples: Vec<Sample>,
}

/// What a sample is to say: its name, some of its labels, and its value.
pub type Expected<'a> = (&'a str, &'a [(&'a str, &'a str)], f64);

impl Exposition {
    /// What an admin port tells now.
    ///
    /// # Panics
    /// When it does not answer, or not in OpenMetrics.
    pub async fn scrape(admin: &str) -> Self {
        let response = reqwest::get(format!("{admin}/metrics")).await.unwrap();
        let content_type = response.headers()["content-type"].to_str().unwrap().to_owned();
        assert!(content_type.starts_with("application/openmetrics-text; version=1.0.0"), "{content_type}");
        Self::parse(&response.text().await.unwrap())
    }

    /// What an admin port tells once it tells this: a request or a job is counted after its caller has the answer.
    ///
    /// # Panics
    /// When it never does.
    pub async fn once_it_tells(admin: &str, expected: &[Expected<'_>]) -> Self {
        wait::until(&format!("{admin} tells {expected:?}"), PATIENCE, || async {
            let told = Self::scrape(admin).await;
            expected.iter().all(|(name, labels, value)| told.value(name, labels) == *value).then_some(told)
        })
        .await
    }

    /// Reads a text.
    ///
    /// # Panics
    /// When it is not OpenMetrics.
    pub fn parse(text: &str) -> Self {
        let mut read = Self::default();
        assert!(text.ends_with("# EOF\n"), "the end is marked");
        for line in text.lines().filter(|line| *line != "# EOF") {
            if let Some(comment) = line.strip_prefix("# ") {
                let mut words = comment.splitn(3, ' ');
                let (kind, name, rest) = (words.next().unwrap(), words.next().unwrap(), words.next());
                assert!(is_name(name), "{line}");
                match kind {
                    "TYPE" => {
                        let known = ["counter", "gauge", "histogram", "info", "unknown"];
                        let kind = rest.unwrap();
                        assert!(known.contains(&kind), "{line}");
                        let before = read.families.insert(name.to_owned(), kind.to_owned());
                        assert_eq!(before, None, "a family comes once: {line}");
                    }
                    "HELP" | "UNIT" => {}
                    _ => panic!("unknown comment {line:?}"),
                }
                continue;
            }
            let sample = sample(line);
            let family = read.families.keys().any(|family| {
                let suffix = sample.name.strip_prefix(family.as_str());
                suffix.is_some_and(|suffix| ["", "_total", "_bucket", "_sum", "_count"].contains(&suffix))
            });
            assert!(family, "a sample has a family: {line}");
            let is_new = read
                .samples
                .iter()
                .all(|other| (&other.name, &other.labels) != (&sample.name, &sample.labels));
            assert!(is_new, "a sample comes once: {line}");
            read.samples.push(sample);
        }
        read
    }

    /// The samples of a name.
    pub fn of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Sample> {
        self.samples.iter().filter(move |sample| sample.name == name)
    }

    /// The value of the sample with these labels; 0 where there is none.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let mut found = self.of(name).filter(|sample| {
            labels.iter().all(|(key, value)| sample.labels.get(*key).map(String::as_str) == Some(*value))
        });
        found.next().map_or(0.0, |sample| sample.value)
    }
}

/// `name{label="value",…} value`
fn sample(line: &str) -> Sample {
    let name_end = line.find(['{', ' ']).unwrap_or_else(|| panic!("{line}"));
    let (name, mut rest) = line.split_at(name_end);
    assert!(is_name(name), "{line}");
    let mut labels = BTreeMap::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        while !rest.starts_with('}') {
            let (label, after) = rest.split_once("=\"").unwrap_or_else(|| panic!("{line}"));
            assert!(is_name(label) && !label.contains(':'), "{line}");
            let (value, after) = quoted(after).unwrap_or_else(|| panic!("{line}"));
            assert_eq!(labels.insert(label.to_owned(), value), None, "{line}");
            rest = after.strip_prefix(',').unwrap_or(after);
        }
        rest = &rest[1..];
    }
    let value = rest.strip_prefix(' ').unwrap_or_else(|| panic!("{line}"));
    let value = value.parse().unwrap_or_else(|error| panic!("{error}: {line}"));
    Sample { name: name.to_owned(), labels, value }
}

/// A label's value up to its quote, and what follows.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match characters.next()?.1 {
                'n' => value.push('\n'),
                other @ ('"' | '\\') => value.push(other),
                _ => return None,
            },
            other => value.push(other),
        }
    }
    None
}

fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic() || matches!(byte, b'_' | b':'))
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':'))
}
