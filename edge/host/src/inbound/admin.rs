//! The admin port: `/metrics`, `/livez` and `/readyz`, apart from the public one.

use crate::metrics::Metrics;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

const CONNECTIONS_MAX: usize = 64;
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves for as long as it is polled.
pub(crate) async fn serve(listener: TcpListener, metrics: Arc<Metrics>, draining: watch::Receiver<bool>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept an admin connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (metrics, draining) = (Arc::clone(&metrics), draining.clone());
        let answer = service_fn(move |request: Request<Incoming>| {
            let response = answer(request.method(), request.uri().path(), &metrics, *draining.borrow());
            async move { Ok::<_, Infallible>(response) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .serve_connection(TokioIo::new(stream), answer);
        tokio::spawn(async move {
            // A scraper that breaks off is not worth a word.
            let _ = connection.await;
            drop(place);
        });
    }
}

fn answer(method: &Method, path: &str, metrics: &Metrics, draining: bool) -> Response<Full<Bytes>> {
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    const PLAIN: &str = "text/plain; charset=utf-8";
    if !matches!(*method, Method::GET | Method::HEAD) {
        return respond(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "only GET\n");
    }
    match path {
        "/metrics" => match metrics.encode() {
            Ok(text) => respond(StatusCode::OK, OPEN_METRICS, text),
            Err(error) => {
                tracing::error!(%error, "cannot encode metrics");
                respond(StatusCode::INTERNAL_SERVER_ERROR, PLAIN, "cannot encode metrics\n")
            }
        },
        "/livez" => respond(StatusCode::OK, PLAIN, "ok\n"),
        "/readyz" if draining => respond(StatusCode::SERVICE_UNAVAILABLE, PLAIN, "draining\n"),
        "/readyz" => respond(StatusCode::OK, PLAIN, "ok\n"),
        _ => respond(StatusCode::NOT_FOUND, PLAIN, "only /metrics, /livez and /readyz\n"),
    }
}

fn respond(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(path: &str, draining: bool) -> u16 {
        answer(&Method::GET, path, &Metrics::new(), draining).status().as_u16()
    }

    #[test]
    fn a_draining_host_is_alive_but_not_ready() {
        assert_eq!((status("/livez", false), status("/readyz", false)), (200, 200));
        assert_eq!((status("/livez", true), status("/readyz", true)), (200, 503));
        assert_eq!(status("/metrics", true), 200);
        assert_eq!(status("/", false), 404);
    }
}
