//! The admin port: `/metrics`, `/livez` and `/readyz`, apart from the public one.

use super::identity::Identity;
use super::refusal::Refusal;
use super::unparsed::Unparsed;
use crate::metrics::Metrics;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, header};
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
/// Scrapers and probers send a few hundred bytes.
const HEAD_BYTES_MAX: usize = 16 << 10;
const HEADERS_MAX: usize = 64;
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
            let response = answer(&request, &metrics, *draining.borrow());
            async move { Ok::<_, Infallible>(response) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(HEAD_BYTES_MAX)
            .max_headers(HEADERS_MAX)
            .serve_connection(TokioIo::new(Unparsed::new(stream, HEAD_BYTES_MAX, |_, _| {})), answer);
        tokio::spawn(async move {
            // A scraper that breaks off is not worth a word.
            let _ = connection.await;
            drop(place);
        });
    }
}

fn answer(request: &Request<impl Sized>, metrics: &Metrics, draining: bool) -> Response<Full<Bytes>> {
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    const PLAIN: &str = "text/plain; charset=utf-8";
    let answered = match request.uri().path() {
        "/metrics" | "/livez" | "/readyz" if !matches!(*request.method(), Method::GET | Method::HEAD) => {
            Err(Refusal::MethodNotAllowed { allow: "GET, HEAD" })
        }
        "/metrics" => metrics.encode().map(|text| respond(OPEN_METRICS, text)).map_err(|error| {
            tracing::error!(%error, "cannot encode metrics");
            Refusal::Internal
        }),
        "/readyz" if draining => Err(Refusal::Draining),
        "/livez" | "/readyz" => Ok(respond(PLAIN, "ok\n")),
        _ => Err(Refusal::NotFound),
    };
    let identity = Identity::from_headers(request.headers());
    match answered {
        Ok(mut response) => {
            identity.write_answer(response.headers_mut());
            response
        }
        Err(refusal) => refusal.response(&identity).map(Full::new),
    }
}

fn respond(content_type: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(method: Method, path: &str, draining: bool) -> Response<Full<Bytes>> {
        let request = Request::builder().method(method).uri(path).body(()).unwrap();
        answer(&request, &Metrics::new(), draining)
    }

    fn status(path: &str, draining: bool) -> u16 {
        response(Method::GET, path, draining).status().as_u16()
    }

    #[test]
    fn errors_are_problems_and_every_answer_has_a_request_id() {
        for (method, path, status) in [(Method::GET, "/x", 404), (Method::POST, "/metrics", 405)] {
            let response = response(method, path, false);
            assert_eq!(response.status(), status);
            assert_eq!(response.headers()["content-type"], "application/problem+json");
            assert!(response.headers().contains_key("x-request-id"));
        }
        assert!(response(Method::GET, "/livez", false).headers().contains_key("x-request-id"));
        assert_eq!(response(Method::HEAD, "/metrics", false).status(), 200);
    }

    #[test]
    fn a_draining_host_is_alive_but_not_ready() {
        assert_eq!((status("/livez", false), status("/readyz", false)), (200, 200));
        assert_eq!((status("/livez", true), status("/readyz", true)), (200, 503));
        assert_eq!(status("/metrics", true), 200);
        assert_eq!(status("/", false), 404);
    }
}
