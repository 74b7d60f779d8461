//! Requests as they come from the host.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use orfeas_protocol::Code;
use wasip3::http::types::{ErrorCode, Method as WasiMethod, Request, Trailers};
use wasip3::wit_bindgen::{FutureReader, StreamReader, StreamResult};
use wasip3::wit_future;

use super::clock;
use crate::failure::Failure;
use crate::head::Head;

/// One read of the body: as much as the host has ready, up to this.
const READ_BYTES: usize = 64 * 1024;

/// The longest silence in a body. A client on a bad line sends something in this time.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// A body, read once from its beginning.
pub(super) struct RequestBody {
    stream: StreamReader<u8>,
    /// Tells at the end whether the body is whole.
    outcome: FutureReader<Result<Option<Trailers>, ErrorCode>>,
}

/// Takes a request apart.
pub(super) fn receive(request: Request) -> (Head, RequestBody) {
    let path = request.get_path_with_query().unwrap_or_else(|| "/".to_owned());
    let mut headers = HeaderMap::new();
    for (name, value) in request.get_headers().copy_all() {
        // The host speaks HTTP, so its headers are valid; one that is not is left out.
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_bytes(&value)) {
            headers.append(name, value);
        }
    }
    let head = Head::new(method(request.get_method()), &path, headers, clock::random());
    let (_handled, handled_reader) = wit_future::new(|| Ok(()));
    let (stream, outcome) = Request::consume_body(request, handled_reader);
    (head, RequestBody { stream, outcome })
}

impl RequestBody {
    /// The next bytes, or `None` at the end.
    ///
    /// # Errors
    /// The client is too slow, or gone.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        let read = self.stream.read(Vec::with_capacity(READ_BYTES));
        let Some((result, bytes)) = clock::within(SILENCE_MAX, read).await else {
            return Err(Failure::new(Code::RequestTimeout, "the body stopped coming"));
        };
        match result {
            StreamResult::Complete(_) => Ok(Some(Bytes::from(bytes))),
            StreamResult::Dropped | StreamResult::Cancelled => Ok(None),
        }
    }

    /// Whether the body that has ended is whole.
    ///
    /// # Errors
    /// It broke off.
    pub(super) async fn finish(self) -> Result<(), Failure> {
        drop(self.stream);
        match clock::within(SILENCE_MAX, self.outcome.into_future()).await {
            Some(Ok(_)) => Ok(()),
            // Too long, by the host's limit.
            Some(Err(ErrorCode::HttpRequestBodySize(limit))) => {
                let rejection = orfeas_intake::Rejection::TooLarge { limit_bytes: limit.unwrap_or_default() };
                Err(rejection.into())
            }
            Some(Err(_)) | None => Err(Failure::invalid("the body broke off")),
        }
    }
}

fn method(method: WasiMethod) -> Method {
    match method {
        WasiMethod::Get => Method::GET,
        WasiMethod::Head => Method::HEAD,
        WasiMethod::Post => Method::POST,
        WasiMethod::Put => Method::PUT,
        WasiMethod::Delete => Method::DELETE,
        WasiMethod::Connect => Method::CONNECT,
        WasiMethod::Options => Method::OPTIONS,
        WasiMethod::Trace => Method::TRACE,
        WasiMethod::Patch => Method::PATCH,
        // Whatever it is, no resource allows it.
        WasiMethod::Other(_) => Method::PATCH,
    }
}
