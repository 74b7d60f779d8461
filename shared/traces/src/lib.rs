//! Spans to an OpenTelemetry collector, by OTLP over HTTP: what edge host and node share of it.
//!
//! ```text
//!  traceparent ─▶ TraceParent ─▶ Tracer::span ─▶ Span ──drop──▶ exporter (bounded queue, batches) ─▶ client
//!                                                                  └ otlp (messages)
//! ```
//! Configured by OpenTelemetry's own environment variables ([`settings`]). Without an endpoint a [`Tracer`] is off: no
//! task, no queue, and spans that are nothing. A full queue drops spans, never holds work up.
//!
//! The ids are ours to choose, because a request's `traceparent` is handed on whether spans are exported or not.

mod client;
mod exporter;
pub mod otlp;
mod parent;
pub mod settings;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use exporter::Exporter;
use otlp::KeyValue;
use settings::Settings;

pub use parent::{InvalidTraceParent, TraceParent};
pub use settings::TracesError;

/// How long the last spans may take on their way out.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(3);

/// What a span is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A request that is answered.
    Server,
    /// Work that was put into a queue by somebody else.
    Consumer,
    /// A part of either.
    Internal,
}

impl Kind {
    /// The number of the specification.
    const fn number(self) -> i32 {
        match self {
            Self::Internal => 1,
            Self::Server => 2,
            Self::Consumer => 5,
        }
    }
}

/// Makes spans and sends them. Clones stand for the same way out.
#[derive(Debug, Clone, Default)]
pub struct Tracer {
    exporter: Option<Arc<Exporter>>,
}

impl Tracer {
    /// A tracer that sends nothing.
    pub const fn off() -> Self {
        Self { exporter: None }
    }

    /// A tracer as the process's environment configures it. Called within the async runtime, which sends.
    ///
    /// # Errors
    /// The configuration cannot be used.
    pub fn from_environment(service: &str, version: &str) -> Result<Self, TracesError> {
        let settings = Settings::read(service, version, |name| std::env::var(name).ok())?;
        Ok(settings.map_or(Self::off(), |settings| {
            tracing::info!(endpoint = %settings.endpoint, "traces are sent");
            Self { exporter: Some(Arc::new(Exporter::start(settings))) }
        }))
    }

    /// Whether spans go anywhere.
    pub const fn is_on(&self) -> bool {
        self.exporter.is_some()
    }

    /// Begins a span below `parent`, or at the root of a new trace.
    pub fn span(&self, name: impl Into<Cow<'static, str>>, kind: Kind, parent: Option<TraceParent>) -> Span {
        if !self.is_on() {
            return Span { open: None };
        }
        let own = parent.map_or_else(TraceParent::root, TraceParent::child);
        self.span_as(own, parent.map(|parent| parent.span_id), name, kind)
    }

    /// Begins a span under ids that were chosen before.
    pub fn span_as(
        &self,
        own: TraceParent,
        parent_span_id: Option<u64>,
        name: impl Into<Cow<'static, str>>,
        kind: Kind,
    ) -> Span {
        // What the caller does not record, we do not either: its trace would have holes.
        let exporter = self.exporter.clone().filter(|_| own.is_sampled());
        let open = exporter.map(|exporter| {
            Box::new(Open {
                exporter,
                own,
                parent_span_id,
                name: name.into(),
                kind,
                started: SystemTime::now(),
                attributes: Vec::new(),
                failure: None,
            })
        });
        Span { open }
    }

    /// Sends what is queued, within a few seconds.
    pub async fn flush(&self) {
        if let Some(exporter) = &self.exporter
            && tokio::time::timeout(SHUTDOWN_LIMIT, exporter.flush()).await.is_err()
        {
            tracing::warn!("the last spans may be lost");
        }
    }
}

/// A span that has begun; it ends when it is dropped. Of a tracer that is off, it is nothing.
#[derive(Debug)]
#[must_use = "a span ends when it is dropped"]
pub struct Span {
    open: Option<Box<Open>>,
}

#[derive(Debug)]
struct Open {
    exporter: Arc<Exporter>,
    own: TraceParent,
    parent_span_id: Option<u64>,
    name: Cow<'static, str>,
    kind: Kind,
    started: SystemTime,
    attributes: Vec<KeyValue>,
    failure: Option<String>,
}

impl Span {
    /// What children of this span begin with; `None` if the span goes nowhere.
    pub fn context(&self) -> Option<TraceParent> {
        self.open.as_ref().map(|open| open.own)
    }

    /// Gives the span another name, once it is known what it was.
    pub fn rename(&mut self, name: impl Into<Cow<'static, str>>) {
        if let Some(open) = &mut self.open {
            open.name = name.into();
        }
    }

    /// Notes a text about it, in OpenTelemetry's names where there are some.
    pub fn note(&mut self, key: &'static str, value: &str) {
        if let Some(open) = &mut self.open {
            open.attributes.push(KeyValue::text(key, value));
        }
    }

    /// Notes a number about it.
    pub fn note_number(&mut self, key: &'static str, value: impl Into<i64>) {
        if let Some(open) = &mut self.open {
            open.attributes.push(KeyValue::number(key, value.into()));
        }
    }

    /// Notes that what it is about went wrong.
    pub fn fail(&mut self, reason: &str) {
        if let Some(open) = &mut self.open {
            open.failure = Some(reason.to_owned());
        }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if let Some(open) = self.open.take() {
            open.end(SystemTime::now());
        }
    }
}

impl Open {
    fn end(self, now: SystemTime) {
        self.exporter.take(otlp::Span {
            trace_id: self.own.trace_id.to_be_bytes().to_vec(),
            span_id: self.own.span_id.to_be_bytes().to_vec(),
            parent_span_id: self.parent_span_id.map_or(Vec::new(), |id| id.to_be_bytes().to_vec()),
            name: self.name.into_owned(),
            kind: self.kind.number(),
            start_time_unix_nano: nanos(self.started),
            // The clock may have been set back.
            end_time_unix_nano: nanos(now.max(self.started)),
            attributes: self.attributes,
            status: self.failure.map(|message| otlp::Status { message, code: 2 }),
        });
    }
}

fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_tracer_that_is_off_makes_spans_that_are_nothing() {
        let tracer = Tracer::off();
        let mut span = tracer.span("x", Kind::Server, None);
        span.note("http.route", "/");
        span.fail("no");
        assert_eq!(span.context(), None);
        tracer.flush().await;
    }
}
