//! A small OpenTelemetry collector: takes OTLP over HTTP and keeps the spans.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use orfeas_traces::otlp::{ExportTraceServiceRequest, Span as OtlpSpan};
use prost::Message;
use tokio::net::TcpListener;

/// A span as it came.
#[derive(Debug, Clone)]
pub struct Span {
    /// The service that sent it.
    pub service: String,
    /// Its name.
    pub name: String,
    /// Its trace, in hexadecimal.
    pub trace_id: String,
    /// Its id, in hexadecimal.
    pub span_id: String,
    /// The id of the span above it; empty at the root.
    pub parent_span_id: String,
    /// When it began and ended, in nanoseconds since the epoch.
    pub nanos: (u64, u64),
}

/// The running collector.
#[derive(Debug, Clone)]
pub struct Collector {
    /// What `OTEL_EXPORTER_OTLP_ENDPOINT` is set to.
    pub endpoint: String,
    spans: Arc<Mutex<Vec<Span>>>,
}

impl Collector {
    /// Starts a collector on a free port.
    ///
    /// # Panics
    /// When there is none.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let spans = Arc::<Mutex<Vec<Span>>>::default();
        let kept = spans.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let kept = kept.clone();
                let take = service_fn(move |request| take(request, kept.clone()));
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), take));
            }
        });
        Self { endpoint, spans }
    }

    /// What makes a program send its spans here, in short intervals so that tests need not wait.
    pub fn environment(&self) -> [(String, String); 2] {
        let pairs =
            [("OTEL_EXPORTER_OTLP_ENDPOINT", self.endpoint.as_str()), ("OTEL_BSP_SCHEDULE_DELAY", "100")];
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned()))
    }

    /// What has come so far.
    ///
    /// # Panics
    /// When a task of the collector has panicked.
    pub fn spans(&self) -> Vec<Span> {
        self.spans.lock().unwrap().clone()
    }
}

async fn take(
    request: Request<Incoming>,
    kept: Arc<Mutex<Vec<Span>>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    assert_eq!(request.uri().path(), "/v1/traces");
    assert_eq!(request.headers()["content-type"], "application/x-protobuf");
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let export = ExportTraceServiceRequest::decode(body).unwrap();
    for resource_spans in export.resource_spans {
        let attributes = resource_spans.resource.unwrap_or_default().attributes;
        let service = attributes.into_iter().find(|attribute| attribute.key == "service.name");
        let service = service.and_then(|service| service.value?.string_value).unwrap_or_default();
        let spans = resource_spans.scope_spans.into_iter().flat_map(|scope| scope.spans);
        kept.lock().unwrap().extend(spans.map(|span| read(&service, span)));
    }
    Ok(Response::new(Full::default()))
}

fn read(service: &str, span: OtlpSpan) -> Span {
    let hex = |id: &[u8]| id.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    Span {
        service: service.to_owned(),
        name: span.name,
        trace_id: hex(&span.trace_id),
        span_id: hex(&span.span_id),
        parent_span_id: hex(&span.parent_span_id),
        nanos: (span.start_time_unix_nano, span.end_time_unix_nano),
    }
}
