//! A job's spans: one for each time that it runs here, below the request that brought it, and one for each stage
//! below that. Without a collector they are nothing.

use orfeas_protocol::JobRecord;
use orfeas_traces::{Kind, Span, TraceParent, Tracer};

use crate::pipeline::{Monitor, StageWeights};

/// The span of one run of a job.
#[derive(Debug)]
pub(crate) struct JobSpan {
    tracer: Tracer,
    span: Span,
}

impl JobSpan {
    /// Begins the span of a run.
    pub(crate) fn begin(tracer: &Tracer, record: &JobRecord) -> Self {
        let parent: Option<TraceParent> = record.traceparent.as_ref().and_then(|text| text.parse().ok());
        let mut span = tracer.span("job", Kind::Consumer, parent);
        if tracer.is_on() {
            let job = &record.job;
            span.note("job.id", &job.id.to_string());
            span.note_number("job.attempt", job.attempt);
            span.note_number("job.priority", job.priority.get());
            span.note("job.channel", job.channel.as_str());
            if let Some(id) = &record.request_id {
                span.note("request_id", id.as_str());
            }
        }
        Self { tracer: tracer.clone(), span }
    }

    /// A monitor that makes a span of each stage, and passes everything on.
    pub(crate) fn watch(&self, monitor: Box<dyn Monitor>) -> Box<dyn Monitor> {
        match self.span.context() {
            None => monitor,
            Some(job) => {
                let tracer = self.tracer.clone();
                Box::new(StageSpans { inner: monitor, tracer, job, stage: None, is_done: false })
            }
        }
    }

    /// Notes how the run ended, if not well.
    pub(crate) fn failed(&mut self, error: &dyn std::error::Error) {
        if self.tracer.is_on() {
            self.span.fail(&error.to_string());
        }
    }
}

struct StageSpans {
    inner: Box<dyn Monitor>,
    tracer: Tracer,
    job: TraceParent,
    stage: Option<(&'static str, Span)>,
    /// The last stage has ended: whoever holds this monitor may keep it for longer than the job takes.
    is_done: bool,
}

impl Monitor for StageSpans {
    fn progress(&mut self, stage: &'static str, fraction: f32) {
        let is_new = self.stage.as_ref().is_none_or(|(running, _)| *running != stage);
        if is_new && !self.is_done {
            // The stage before ends when it is replaced.
            self.stage = Some((stage, self.tracer.span(stage, Kind::Internal, Some(self.job))));
        }
        if fraction >= 1.0 {
            self.stage = None;
            self.is_done = true;
        }
        self.inner.progress(stage, fraction);
    }

    fn is_cancelled(&self) -> bool {
        self.inner.is_cancelled()
    }

    fn weights(&self) -> StageWeights {
        self.inner.weights()
    }
}
