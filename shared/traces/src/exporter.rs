//! Spans on their way out: a bounded queue, and a task that sends what is in it every few seconds.
//!
//! A batch that cannot be sent is dropped and not sent again: traces are a sample of what happens, and a collector
//! that is away must cost nothing but them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use prost::Message;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::client;
use crate::otlp::{
    ExportTraceServiceRequest, InstrumentationScope, KeyValue, Resource, ResourceSpans, ScopeSpans, Span,
};
use crate::settings::Settings;

/// Spans that wait; the specification's default.
const QUEUE_MAX: usize = 2048;
/// Spans of a batch; the specification's default.
const BATCH_MAX: usize = 512;

enum Command {
    Take(Box<Span>),
    /// Send everything that came before, and say so.
    Flush(oneshot::Sender<()>),
}

/// The way out.
#[derive(Debug)]
pub(crate) struct Exporter {
    commands: mpsc::Sender<Command>,
    dropped: AtomicU64,
}

impl Exporter {
    /// Starts the task on the present runtime. It ends with the exporter.
    pub(crate) fn start(settings: Settings) -> Self {
        let (commands, inbox) = mpsc::channel(QUEUE_MAX);
        tokio::spawn(export(settings, inbox));
        Self { commands, dropped: AtomicU64::new(0) }
    }

    /// Queues a span; a full queue drops it.
    pub(crate) fn take(&self, span: Span) {
        if self.commands.try_send(Command::Take(Box::new(span))).is_err()
            && self.dropped.fetch_add(1, Relaxed) == 0
        {
            tracing::warn!("spans are dropped: the collector is slower than the traffic");
        }
    }

    /// Waits until everything that was queued has been sent, or dropped.
    pub(crate) async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        if self.commands.send(Command::Flush(done)).await.is_ok() {
            // An error would mean that the task has ended, and with it every span.
            let _ = flushed.await;
        }
    }
}

async fn export(settings: Settings, mut inbox: mpsc::Receiver<Command>) {
    let mut batch = Vec::new();
    let mut due = Instant::now() + settings.delay;
    loop {
        let (is_due, done) = match timeout_at(due, inbox.recv()).await {
            Ok(Some(Command::Take(span))) => {
                batch.push(*span);
                (batch.len() >= BATCH_MAX, None)
            }
            Ok(Some(Command::Flush(done))) => (true, Some(done)),
            Ok(None) => break,
            Err(_elapsed) => (true, None),
        };
        if is_due {
            send(&settings, std::mem::take(&mut batch)).await;
            due = Instant::now() + settings.delay;
        }
        if let Some(done) = done {
            // Whoever asked may have gone.
            let _ = done.send(());
        }
    }
    send(&settings, batch).await;
}

async fn send(settings: &Settings, spans: Vec<Span>) {
    if spans.is_empty() {
        return;
    }
    let count = spans.len();
    if let Err(error) = client::post(settings, message(settings, spans).encode_to_vec()).await {
        tracing::warn!(%error, spans = count, "spans not sent");
    }
}

fn message(settings: &Settings, spans: Vec<Span>) -> ExportTraceServiceRequest {
    let (name, version) = settings.program.clone();
    let attributes = vec![
        KeyValue::text("service.name", settings.service.as_str()),
        KeyValue::text("service.version", version.as_str()),
    ];
    let scope_spans = vec![ScopeSpans { scope: Some(InstrumentationScope { name, version }), spans }];
    let resource_spans = vec![ResourceSpans { resource: Some(Resource { attributes }), scope_spans }];
    ExportTraceServiceRequest { resource_spans }
}
