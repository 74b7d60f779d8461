//! From an admitted request to a component's answer, with a place in its class while it runs.
//!
//! The place is held by the guest's work, not by the client's patience: a client that goes away
//! does not free it, because the guest does not notice and runs on.

use super::refusal::Refusal;
use crate::class::RequestClass;
use crate::guest::{Guest, Ticket};
use crate::manifest::ComponentSpec;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};
use wasmtime_wasi_http::WasiBody;
use wasmtime_wasi_http::handler::{ExpirationError, InstantiationError, ProxyHandler, TrapOrPanicError};

/// A request that no instance takes, whose own deadline should have ended it, ends after this.
const DEADLINE_GRACE: Duration = Duration::from_secs(1);

/// Short requests end within milliseconds, so that places are free again soon.
const RETRY_AFTER_SECONDS: u32 = 1;

/// The limits of one class of requests.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClassLimits {
    /// Requests of the class that may run at the same time.
    pub(crate) requests: u32,
    /// From admission to the start of the answer.
    pub(crate) answer: Duration,
}

/// One component with a set of instances for each class.
pub(crate) struct Component {
    pub(crate) spec: Arc<ComponentSpec>,
    handlers: [ProxyHandler<Guest>; RequestClass::ALL.len()],
}

impl Component {
    /// `guest` makes the guest for a class; each class gets instances of its own.
    pub(crate) fn new(spec: Arc<ComponentSpec>, guest: impl Fn(RequestClass) -> Guest) -> Self {
        Self { spec, handlers: RequestClass::ALL.map(|class| ProxyHandler::new(guest(class))) }
    }
}

/// The places of one class.
struct Gate {
    places: Arc<Semaphore>,
    limits: ClassLimits,
}

pub(crate) struct Dispatcher {
    components: Vec<Component>,
    gates: [Gate; RequestClass::ALL.len()],
    queue_wait: Duration,
}

impl Dispatcher {
    /// `queue_wait` is how long a request waits for a place before it is refused.
    pub(crate) fn new(
        components: Vec<Component>,
        limits: impl Fn(RequestClass) -> ClassLimits,
        queue_wait: Duration,
    ) -> Self {
        let gates = RequestClass::ALL.map(|class| {
            let limits = limits(class);
            let places = usize::try_from(limits.requests).unwrap_or(Semaphore::MAX_PERMITS);
            Gate { places: Arc::new(Semaphore::new(places)), limits }
        });
        Self { components, gates, queue_wait }
    }

    pub(crate) fn component(&self, index: usize) -> Option<&Component> {
        self.components.get(index)
    }

    /// Runs a request; the ticket must live as long as the answer's body.
    pub(crate) async fn run(
        &self,
        component: &Component,
        class: RequestClass,
        request: http::Request<WasiBody>,
    ) -> Result<(http::Response<WasiBody>, Arc<Ticket>), Refusal> {
        let gate = &self.gates[class as usize];
        let place = timeout(self.queue_wait, Arc::clone(&gate.places).acquire_owned());
        let Ok(Ok(permit)) = place.await else {
            return Err(self.busy());
        };
        let ticket = Ticket::new(permit, Instant::now() + gate.limits.answer);
        let handler = component.handlers[class as usize].clone();
        let mine = Arc::clone(&ticket);
        // A task of its own, so that the ticket outlives this future when the client goes away.
        let work = tokio::spawn(async move {
            let latest = mine.deadline() + DEADLINE_GRACE;
            timeout_at(latest, handler.handle(Arc::clone(&mine), request)).await
        });
        match work.await {
            Ok(Ok(Ok(response))) => Ok((response, ticket)),
            Ok(Ok(Err(error))) => Err(self.explain(&error, &ticket)),
            Ok(Err(_elapsed)) => Err(Refusal::DeadlineExceeded),
            Err(panic) => {
                tracing::error!(error = %panic, "request task panicked");
                Err(Refusal::ComponentFailed)
            }
        }
    }

    /// Waits until nothing runs any more, also not for clients that went away.
    pub(crate) async fn idle(&self) {
        for gate in &self.gates {
            // An error would mean a closed semaphore, which this one never is.
            let _ = gate.places.acquire_many(gate.limits.requests).await;
        }
    }

    fn busy(&self) -> Refusal {
        Refusal::Busy { retry_after_seconds: RETRY_AFTER_SECONDS }
    }

    fn explain(&self, error: &wasmtime::Error, ticket: &Ticket) -> Refusal {
        use crate::guest::Failure;
        if error.downcast_ref::<ExpirationError>().is_some() {
            return Refusal::DeadlineExceeded;
        }
        if error.downcast_ref::<InstantiationError<Arc<Ticket>>>().is_some() {
            tracing::warn!(error = format!("{error:#}"), "no room for an instance");
            return self.busy();
        }
        if error.downcast_ref::<TrapOrPanicError>().is_some() {
            return match ticket.instance_failure() {
                Some(Failure::Busy | Failure::Deadline) => Refusal::DeadlineExceeded,
                _ => Refusal::ComponentFailed,
            };
        }
        tracing::warn!(error = format!("{error:#}"), "component answered with an error");
        Refusal::ComponentFailed
    }
}
