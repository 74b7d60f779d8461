//! Accepts connections, bounds their number and their clients' slowness, and drains at the end.

use super::identity::Identity;
use super::io::WriteDeadline;
use super::record::Record;
use super::refusal::Refusal;
use super::service::Service;
use super::unparsed::Unparsed;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// The parser's limits: above those of `admit.rs`, which answer with a problem.
const PARSER_BUFFER_BYTES: usize = 128 << 10;
const PARSER_HEADERS: usize = 256;

/// After an error that concerns the process, not a connection (no file descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, Debug)]
pub(crate) struct ConnectionLimits {
    pub(crate) connections: usize,
    /// From the end of one request (or the connection's start) to the end of the next head.
    pub(crate) head: Duration,
    /// The longest that a write may make no progress.
    pub(crate) write_stall: Duration,
}

/// Serves until `stop` says so, then finishes what runs, for at most `drain`.
pub(crate) async fn serve(
    listener: TcpListener,
    service: Arc<Service>,
    limits: ConnectionLimits,
    mut stop: watch::Receiver<bool>,
    drain: Duration,
) {
    let places = Arc::new(Semaphore::new(limits.connections));
    let graceful = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            // An error means that nobody can say "stop" any more.
            _ = stop.wait_for(|stop| *stop) => break,
            accepted = accept(&listener, &places) => accepted,
        };
        let Some((stream, peer, place)) = accepted else { continue };
        serve_connection(stream, peer, place, &service, limits, &graceful);
    }
    drop(listener);
    let drained = tokio::time::timeout(drain, async {
        graceful.shutdown().await;
        service.dispatcher.idle().await;
    });
    if drained.await.is_err() {
        tracing::warn!(seconds = drain.as_secs_f64(), "stopping with requests still running");
    }
}

/// Waits for a place first, so that connections over the limit wait in the kernel's queue.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => Some((stream, peer, place)),
        Err(error) => {
            tracing::warn!(%error, "cannot accept a connection");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

fn serve_connection(
    stream: TcpStream,
    peer: SocketAddr,
    place: OwnedSemaphorePermit,
    service: &Arc<Service>,
    limits: ConnectionLimits,
    graceful: &GracefulShutdown,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, %peer, "cannot set TCP_NODELAY");
    }
    let answering = Arc::clone(service);
    let answer = service_fn(move |request| {
        let service = Arc::clone(&answering);
        async move { Ok::<_, Infallible>(service.answer(request, peer).await) }
    });
    let metrics = Arc::clone(&service.metrics);
    let note = move |refusal: Refusal, identity: &Identity| {
        // Nothing is known of it, not even a method; the record is written when it is dropped.
        Record::of_no_request(Arc::clone(&metrics), identity.clone()).answered(refusal.status(), None);
    };
    let stream = WriteDeadline::new(stream, limits.write_stall);
    let io = TokioIo::new(Unparsed::new(stream, service.head_limits.bytes, note));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_buf_size(PARSER_BUFFER_BYTES)
        .max_headers(PARSER_HEADERS)
        .serve_connection(io, answer);
    let connection = graceful.watch(connection);
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, %peer, "connection ended");
        }
        drop(place);
    });
}
