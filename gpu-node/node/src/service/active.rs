//! The jobs that are on this node now.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_nats::jetstream::Message;
use orfeas_protocol::JobId;

use super::progress::{Stop, StopSignal};

/// A job on this node.
#[derive(Debug)]
pub(crate) struct ActiveJob {
    pub(crate) stop: StopSignal,
    message: Mutex<Arc<Message>>,
}

impl ActiveJob {
    /// The latest delivery of the job's message: the one to acknowledge.
    pub(crate) fn message(&self) -> Arc<Message> {
        lock(&self.message).clone()
    }
}

/// The jobs on this node, by id. Clones stand for the same set.
#[derive(Debug, Clone, Default)]
pub(crate) struct ActiveJobs {
    jobs: Arc<Mutex<HashMap<JobId, Arc<ActiveJob>>>>,
}

impl ActiveJobs {
    /// Takes a job in. `None` if it is here already: its message was delivered again because NATS was away
    /// for longer than the ack wait. The job goes on and will acknowledge the new delivery.
    pub(crate) fn admit(&self, id: JobId, message: Message) -> Option<ActiveGuard> {
        let message = Arc::new(message);
        let mut jobs = lock(&self.jobs);
        if let Some(here) = jobs.get(&id) {
            *lock(&here.message) = message;
            return None;
        }
        let job = Arc::new(ActiveJob { stop: StopSignal::new(), message: Mutex::new(message) });
        jobs.insert(id, job.clone());
        Some(ActiveGuard { id, job, set: self.clone() })
    }

    /// A job, if it is here.
    pub(crate) fn get(&self, id: JobId) -> Option<Arc<ActiveJob>> {
        lock(&self.jobs).get(&id).cloned()
    }

    /// How many are here.
    pub(crate) fn len(&self) -> usize {
        lock(&self.jobs).len()
    }

    /// Stops all of them.
    pub(crate) fn stop_all(&self, stop: Stop) {
        for job in lock(&self.jobs).values() {
            job.stop.raise(stop);
        }
    }
}

/// A job's place in the set; dropping it leaves the set.
#[derive(Debug)]
pub(crate) struct ActiveGuard {
    id: JobId,
    job: Arc<ActiveJob>,
    set: ActiveJobs,
}

impl std::ops::Deref for ActiveGuard {
    type Target = Arc<ActiveJob>;

    fn deref(&self) -> &Arc<ActiveJob> {
        &self.job
    }
}

impl Drop for ActiveGuard {
    fn drop(&mut self) {
        lock(&self.set.jobs).remove(&self.id);
    }
}

/// No code that can panic runs under these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
