//! Ctrl-C and SIGTERM as a condition that waits can look at.
//!
//! The first one asks for an orderly end, the second one for an immediate one.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// Cloneable view of how often the user has asked to stop.
#[derive(Clone, Default)]
pub(crate) struct Interrupt(Arc<(Mutex<u32>, Condvar)>);

/// The work was ended by Ctrl-C or SIGTERM.
#[derive(Debug)]
pub(crate) struct Interrupted;

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

impl Interrupt {
    /// Installs the handler; once in a process.
    pub(crate) fn install() -> Result<Self> {
        let interrupt = Self::default();
        let handler = interrupt.clone();
        ctrlc::set_handler(move || handler.raise()).context("install the Ctrl-C handler")?;
        Ok(interrupt)
    }

    pub(crate) fn requested(&self) -> bool {
        self.count() >= 1
    }

    pub(crate) fn insisted(&self) -> bool {
        self.count() >= 2
    }

    /// Fails once the user has asked to stop.
    pub(crate) fn check(&self) -> Result<()> {
        if self.requested() {
            return Err(Interrupted.into());
        }
        Ok(())
    }

    /// Waits for `limit` or for the next request to stop, whichever comes first.
    pub(crate) fn wait(&self, limit: Duration) {
        let (count, changed) = &*self.0;
        let deadline = Instant::now() + limit;
        let mut guard = count.lock().unwrap_or_else(PoisonError::into_inner);
        let before = *guard;
        while *guard == before {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            guard = changed
                .wait_timeout(guard, left)
                .map_or_else(|poisoned| poisoned.into_inner().0, |(guard, _)| guard);
        }
    }

    fn raise(&self) {
        let (count, changed) = &*self.0;
        let mut guard = count.lock().unwrap_or_else(PoisonError::into_inner);
        *guard += 1;
        changed.notify_all();
    }

    fn count(&self) -> u32 {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wait_ends_at_the_request_not_at_the_limit() {
        let interrupt = Interrupt::default();
        let other = interrupt.clone();
        let started = Instant::now();
        let waiter = std::thread::spawn(move || other.wait(Duration::from_secs(60)));
        while !waiter.is_finished() {
            interrupt.raise();
            std::thread::yield_now();
        }
        waiter.join().unwrap();
        assert!(started.elapsed() < Duration::from_secs(30));
        assert!(interrupt.requested());
        interrupt.check().unwrap_err();
    }

    #[test]
    fn second_request_insists() {
        let interrupt = Interrupt::default();
        interrupt.raise();
        assert!(interrupt.requested() && !interrupt.insisted());
        interrupt.raise();
        assert!(interrupt.insisted());
    }
}
