//! Bodies in both directions, with what the host adds: limits for requests, an end for responses.

use super::record::Record;
use crate::guest::Ticket;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::{Instant, Sleep};
use wasmtime_wasi_http::{Error, WasiBody};

/// How large and how slow a request body may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BodyLimits {
    pub(crate) bytes: u64,
    /// The longest wait for the next piece.
    pub(crate) stall: Duration,
    /// Over time the client must keep up with this rate, so that a trickle is not forever.
    pub(crate) bytes_per_second_min: u64,
}

/// What went wrong with a request body, as the host saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyFault {
    TooLarge,
    Stalled,
}

/// A request body under limits; tells its fault to whoever holds the other end.
pub(crate) struct RequestBody {
    inner: Incoming,
    limits: BodyLimits,
    received_bytes: u64,
    /// Time spent waiting for the client, without the wait that is going on.
    waited: Duration,
    waiting: Option<Waiting>,
    fault: Arc<OnceLock<BodyFault>>,
}

struct Waiting {
    since: Instant,
    limit: Pin<Box<Sleep>>,
}

impl RequestBody {
    /// Wraps a body; the second value tells the fault once there is one.
    pub(crate) fn new(inner: Incoming, limits: BodyLimits) -> (Self, Arc<OnceLock<BodyFault>>) {
        let fault = Arc::new(OnceLock::new());
        let body = Self {
            inner,
            limits,
            received_bytes: 0,
            waited: Duration::ZERO,
            waiting: None,
            fault: Arc::clone(&fault),
        };
        (body, fault)
    }

    pub(crate) fn into_wasi(self) -> WasiBody {
        self.boxed_unsync()
    }

    fn fail(&self, fault: BodyFault) -> Error {
        // The first fault is the one to report.
        let _ = self.fault.set(fault);
        match fault {
            BodyFault::TooLarge => Error::HttpRequestBodySize(Some(self.limits.bytes)),
            BodyFault::Stalled => Error::ConnectionReadTimeout,
        }
    }

    fn received(&mut self, frame: &Frame<Bytes>) -> Result<(), Error> {
        if let Some(waiting) = self.waiting.take() {
            self.waited += waiting.since.elapsed();
        }
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        self.received_bytes += u64::try_from(bytes).unwrap_or(u64::MAX);
        if self.received_bytes > self.limits.bytes { Err(self.fail(BodyFault::TooLarge)) } else { Ok(()) }
    }
}

/// How long a client may still be waited for.
fn patience(limits: BodyLimits, received_bytes: u64, waited: Duration) -> Duration {
    let earned = Duration::from_secs(received_bytes / limits.bytes_per_second_min.max(1));
    (limits.stall + earned).saturating_sub(waited).min(limits.stall)
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match Pin::new(&mut self.inner).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                return Poll::Ready(Some(self.received(&frame).map(|()| frame)));
            }
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error.into()))),
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending => {}
        }
        let patience = patience(self.limits, self.received_bytes, self.waited);
        let waiting = self.waiting.get_or_insert_with(|| Waiting {
            since: Instant::now(),
            limit: Box::pin(tokio::time::sleep(patience)),
        });
        match waiting.limit.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Some(Err(self.fail(BodyFault::Stalled)))),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A response body; while it lives, its request counts as load, and when it ends, it is recorded.
pub(crate) struct ResponseBody {
    inner: WasiBody,
    /// None where the host itself answers.
    ticket: Option<Arc<Ticket>>,
    record: Record,
    ended: bool,
    /// What is left of a body whose length is known: nobody asks for its end.
    remaining_bytes: Option<u64>,
}

impl ResponseBody {
    /// The answer of a component.
    pub(crate) fn of_guest(inner: WasiBody, ticket: Arc<Ticket>, record: Record) -> Self {
        Self::new(inner, Some(ticket), record)
    }

    /// An answer of the host's own.
    pub(crate) fn of_host(bytes: Bytes, record: Record) -> Self {
        let inner = Full::new(bytes).map_err(|never| match never {}).boxed_unsync();
        Self::new(inner, None, record)
    }

    fn new(inner: WasiBody, ticket: Option<Arc<Ticket>>, mut record: Record) -> Self {
        let remaining_bytes = inner.size_hint().exact();
        if remaining_bytes == Some(0) {
            record.complete();
        }
        Self { inner, ticket, record, ended: false, remaining_bytes }
    }

    fn sent(&mut self, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.record.sent(bytes);
        if let Some(remaining) = &mut self.remaining_bytes {
            *remaining = remaining.saturating_sub(bytes);
            if *remaining == 0 {
                self.record.complete();
            }
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(context);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => self.sent(frame.data_ref().map_or(0, Bytes::len)),
            Poll::Ready(None) => {
                self.ended = true;
                // A stream that its instance's end has cut looks complete from here; to the client
                // it must not.
                let lost = self.ticket.as_ref().is_some_and(|ticket| ticket.instance_failure().is_some());
                if lost {
                    return Poll::Ready(Some(Err(Error::ConnectionTerminated)));
                }
                self.record.complete();
            }
            _ => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        // Not asked of the inner body: the check above has to see its end.
        self.ended
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(received_bytes: u64, waited_seconds: u64, expected_seconds: u64) {
        let limits =
            BodyLimits { bytes: 1 << 20, stall: Duration::from_secs(30), bytes_per_second_min: 1000 };
        let left = patience(limits, received_bytes, Duration::from_secs(waited_seconds));
        assert_eq!(left.as_secs(), expected_seconds, "{received_bytes} bytes in {waited_seconds} s");
    }

    #[test]
    fn patience_is_bounded_per_piece_and_earned_by_progress() {
        check(0, 0, 30);
        check(0, 20, 10);
        check(0, 30, 0);
        check(1_000_000, 20, 30);
        check(20_000, 45, 5);
    }
}
