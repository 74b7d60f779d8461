//! Deadlines and reuse: what [`ProxyHandler`](wasmtime_wasi_http::handler::ProxyHandler) asks of us.
//!
//! A request has three lines of defence: its own deadline inside the instance's event loop, the
//! instance's expiration outside of it (a guest that computes blocks the loop), and the busy
//! limit in the epoch callback (`instance.rs`).

use super::instance::{Host, InstanceLimits};
use super::vitals::{Failure, Vitals};
use crate::manifest::ComponentSpec;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Sleep;
use wasmtime::component::GuestTaskId;
use wasmtime::{Store, StoreContextMut};
use wasmtime_wasi_http::handler::{ShouldAccept, WorkerExpiration, WorkerState, WorkerStatus};

/// The instance's expiration acts this long after the request's own deadline could have.
pub(crate) const GRACE: Duration = Duration::from_millis(200);

/// What a request holds while any part of it runs: its place among its class.
#[derive(Debug)]
pub(crate) struct Ticket {
    deadline: tokio::time::Instant,
    instance: OnceLock<Arc<Vitals>>,
    _permit: OwnedSemaphorePermit,
}

impl Ticket {
    pub(crate) fn new(permit: OwnedSemaphorePermit, deadline: tokio::time::Instant) -> Arc<Self> {
        Arc::new(Self { deadline, instance: OnceLock::new(), _permit: permit })
    }

    pub(crate) fn deadline(&self) -> tokio::time::Instant {
        self.deadline
    }

    /// Why the instance that took this request was ended, if it was.
    pub(crate) fn instance_failure(&self) -> Option<Failure> {
        self.instance.get().and_then(|vitals| vitals.failure())
    }
}

/// When an instance has to go.
pub(crate) struct Expiration {
    vitals: Arc<Vitals>,
    limits: InstanceLimits,
    sleep: Pin<Box<Sleep>>,
}

impl Expiration {
    pub(super) fn new(vitals: Arc<Vitals>, limits: InstanceLimits) -> Self {
        Self { vitals, limits, sleep: Box::pin(tokio::time::sleep(limits.idle)) }
    }
}

impl WorkerExpiration for Expiration {
    fn poll(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        status: WorkerStatus,
        start: Instant,
    ) -> Poll<()> {
        self.vitals.paused();
        let limit = match status {
            WorkerStatus::Idle => self.limits.idle,
            WorkerStatus::Requests => self.limits.answer + GRACE,
            WorkerStatus::PostReturn => self.limits.after_answer,
        };
        let at = tokio::time::Instant::from_std(start + limit);
        if self.sleep.deadline() != at {
            self.sleep.as_mut().reset(at);
        }
        let expired = self.sleep.as_mut().poll(context);
        if expired.is_ready() && status != WorkerStatus::Idle {
            self.vitals.fail(Failure::Deadline);
        }
        expired
    }
}

/// Decides how often an instance is used and what happens when it ends.
pub(crate) struct Worker {
    pub(super) spec: Arc<ComponentSpec>,
    pub(super) vitals: Arc<Vitals>,
    pub(super) limits: InstanceLimits,
    pub(super) on_failure: Arc<dyn Fn(Failure) + Send + Sync>,
    /// Expired requests whose guest task may still run: they keep their place until the instance
    /// is gone, so that abandoned work counts as load.
    pub(super) stranded: Arc<Mutex<Vec<Arc<Ticket>>>>,
}

impl WorkerState for Worker {
    type StoreData = Host;
    type RequestData = Arc<Ticket>;

    fn should_accept_request(&self, concurrent: usize, total: usize) -> ShouldAccept {
        // Linear memory never shrinks, so after a large request the instance is let go.
        let swollen = self.vitals.memory_peak_bytes() > self.limits.retire_above_bytes;
        if total >= self.limits.reuse || (total > 0 && swollen) {
            ShouldAccept::Never
        } else if concurrent >= self.limits.concurrency {
            ShouldAccept::No
        } else {
            ShouldAccept::Yes
        }
    }

    fn on_request_start(
        &self,
        _store: StoreContextMut<'_, Host>,
        ticket: Arc<Ticket>,
        _task: GuestTaskId,
    ) -> Pin<Box<dyn Future<Output = ()> + 'static + Send + Sync>> {
        // A ticket goes to one instance: it is consumed with its request.
        let _ = ticket.instance.set(Arc::clone(&self.vitals));
        let stranded = Arc::clone(&self.stranded);
        Box::pin(async move {
            tokio::time::sleep_until(ticket.deadline).await;
            if let Ok(mut stranded) = stranded.lock() {
                stranded.push(ticket);
            }
        })
    }

    fn drop(&self, store: Store<Host>, result: Result<(), wasmtime::Error>) {
        if let Err(error) = result {
            self.vitals.trapped();
            let failure = self.vitals.failure().unwrap_or(Failure::Trap);
            let error = format!("{error:#}");
            tracing::warn!(component = self.spec.id, failure = failure.name(), error, "instance lost");
            (self.on_failure)(failure);
        }
        // After the reason is recorded: the end of the store ends its response bodies, whose
        // readers then ask for the reason.
        drop(store);
    }
}
