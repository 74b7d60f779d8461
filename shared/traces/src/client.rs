//! The way to the collector: one HTTP/1.1 request on a connection of its own for each batch. Batches come every few
//! seconds, so a pool would keep connections for nothing; and there is no TLS, which a collector beside the process
//! does not need.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HOST, HeaderValue};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::settings::Settings;

/// One batch, from connecting to the end of the answer; the specification's default.
const SEND_LIMIT: Duration = Duration::from_secs(10);
/// Collectors answer with a few bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// The port of a URL that names none.
const PORT_DEFAULT: u16 = 80;

/// A batch was not taken.
#[derive(Debug, Error)]
pub(crate) enum PostError {
    #[error("cannot connect to the collector")]
    Connect(#[from] std::io::Error),
    #[error("cannot talk to the collector")]
    Http(#[from] hyper::Error),
    #[error("the request cannot be written")]
    Request(#[from] http::Error),
    #[error("the collector answered {0}")]
    Status(StatusCode),
    #[error("the collector did not answer in time")]
    Deadline,
}

/// Posts a batch.
pub(crate) async fn post(settings: &Settings, body: Vec<u8>) -> Result<(), PostError> {
    timeout(SEND_LIMIT, exchange(settings, body)).await.unwrap_or(Err(PostError::Deadline))
}

async fn exchange(settings: &Settings, body: Vec<u8>) -> Result<(), PostError> {
    let uri = &settings.endpoint;
    let host = uri.host().unwrap_or_default();
    let port = uri.port_u16().unwrap_or(PORT_DEFAULT);
    let stream = TcpStream::connect((host.trim_start_matches('[').trim_end_matches(']'), port)).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let mut request = Request::post(path).header(HOST, authority).body(Full::new(Bytes::from(body)))?;
    let headers = request.headers_mut();
    headers.extend(settings.headers.clone());
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    let answer = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        // What it says does not matter; that it is read to its end lets the connection end well.
        let _ = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        if status.is_success() { Ok(()) } else { Err(PostError::Status(status)) }
    };
    tokio::pin!(connection, answer);
    // The connection works for as long as the exchange goes on, and is dropped with it.
    tokio::select! {
        biased;
        answered = &mut answer => answered,
        ended = &mut connection => match ended {
            Ok(()) => answer.await,
            Err(error) => Err(error.into()),
        },
    }
}
