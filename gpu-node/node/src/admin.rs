//! The admin port: `/metrics`, `/livez`, `/readyz`. Plain HTTP/1.1, meant for the machine or the cluster only.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::metrics::Metrics;

/// A scraper, a prober and a person or two.
const CONNECTIONS_MAX: usize = 64;
/// Who has not sent a request by then is not going to.
const HEADER_LIMIT: Duration = Duration::from_secs(5);
/// Scrapers reconnect; nobody may hold a place for ever.
const CONNECTION_LIMIT: Duration = Duration::from_secs(300);
/// What `/metrics` speaks.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Whether the node can take work; asked on each probe.
pub trait Readiness: Send + Sync + 'static {
    /// What keeps the node from taking work; `None` if nothing does.
    fn obstacle(&self) -> Option<&'static str>;
}

/// The admin port, bound but not served yet.
#[derive(Debug)]
pub struct Admin {
    listener: TcpListener,
    address: SocketAddr,
}

impl Admin {
    /// Binds the port; 0 takes a free one.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn bind(address: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until the future is dropped.
    pub async fn serve(self, metrics: Arc<Metrics>, readiness: Arc<dyn Readiness>) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            // Never closed, so never an error.
            let Ok(place) = places.clone().acquire_owned().await else { return };
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept an admin connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let (metrics, readiness) = (metrics.clone(), readiness.clone());
            tokio::spawn(async move {
                let _place = place;
                let served = timeout(CONNECTION_LIMIT, connection(stream, metrics, readiness)).await;
                if let Ok(Err(error)) = served {
                    tracing::debug!(%error, "admin connection");
                }
            });
        }
    }
}

async fn connection(
    stream: TcpStream,
    metrics: Arc<Metrics>,
    readiness: Arc<dyn Readiness>,
) -> hyper::Result<()> {
    let service = service_fn(|request: Request<Incoming>| {
        let response = answer(request.method(), request.uri().path(), &metrics, readiness.as_ref());
        std::future::ready(Ok::<_, Infallible>(response))
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_LIMIT)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

fn answer(
    method: &Method,
    path: &str,
    metrics: &Metrics,
    readiness: &dyn Readiness,
) -> Response<Full<Bytes>> {
    if !matches!(path, "/metrics" | "/livez" | "/readyz") {
        return plain(StatusCode::NOT_FOUND, "not found: try /metrics, /livez or /readyz\n");
    }
    if !matches!(*method, Method::GET | Method::HEAD) {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match path {
        "/livez" => plain(StatusCode::OK, "ok\n"),
        "/readyz" => match readiness.obstacle() {
            None => plain(StatusCode::OK, "ok\n"),
            Some(obstacle) => plain(StatusCode::SERVICE_UNAVAILABLE, format!("{obstacle}\n")),
        },
        _ => match metrics.exposition() {
            Ok(text) => typed(StatusCode::OK, OPENMETRICS, text),
            Err(_) => plain(StatusCode::INTERNAL_SERVER_ERROR, "cannot format the metrics\n"),
        },
    }
}

fn plain(status: StatusCode, text: impl Into<String>) -> Response<Full<Bytes>> {
    typed(status, "text/plain; charset=utf-8", text.into())
}

fn typed(status: StatusCode, media_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(Option<&'static str>);

    impl Readiness for Fixed {
        fn obstacle(&self) -> Option<&'static str> {
            self.0
        }
    }

    fn status(method: Method, path: &str, obstacle: Option<&'static str>) -> u16 {
        answer(&method, path, &Metrics::new(), &Fixed(obstacle)).status().as_u16()
    }

    #[test]
    fn a_node_that_cannot_take_work_lives_but_is_not_ready() {
        assert_eq!(status(Method::GET, "/livez", Some("nats is away")), 200);
        assert_eq!(status(Method::GET, "/readyz", Some("nats is away")), 503);
        assert_eq!(status(Method::GET, "/readyz", None), 200);
    }

    #[test]
    fn other_paths_and_methods_are_refused() {
        assert_eq!(status(Method::GET, "/", None), 404);
        assert_eq!(status(Method::POST, "/metrics", None), 405);
        assert_eq!(status(Method::HEAD, "/metrics", None), 200);
    }

    #[tokio::test]
    async fn metrics_are_served_over_http() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let admin = Admin::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let mut stream = TcpStream::connect(admin.address()).await.unwrap();
        let server = tokio::spawn(admin.serve(Arc::new(Metrics::new()), Arc::new(Fixed(None))));
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
        assert!(text.contains(OPENMETRICS) && text.ends_with("# EOF\n"), "{text}");
        server.abort();
    }
}
