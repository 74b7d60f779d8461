//! Permits: promises of the ledger that take themselves back.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::ledger::{Capacity, Ledger, Refusal, ReservationId};

/// The memory of one device. Clones stand for the same device.
#[derive(Debug, Clone)]
pub struct Vram {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    ledger: Mutex<Ledger>,
    room: Notify,
}

/// Reserved memory; dropping it gives it back, on every path.
#[derive(Debug)]
pub struct Permit {
    shared: Arc<Shared>,
    id: ReservationId,
}

impl Vram {
    /// The empty device.
    pub fn new(capacity: Capacity) -> Self {
        let ledger = Mutex::new(Ledger::new(capacity));
        Self { shared: Arc::new(Shared { ledger, room: Notify::new() }) }
    }

    /// Reserves memory if there is room now.
    ///
    /// # Errors
    /// There is no room now, or never will be.
    pub fn try_reserve(&self, bytes: u64) -> Result<Permit, Refusal> {
        let id = self.shared.ledger().reserve(bytes)?;
        Ok(Permit { shared: self.shared.clone(), id })
    }

    /// Waits for room. The caller bounds the wait; dropping the future leaves nothing behind.
    ///
    /// # Errors
    /// The device is too small.
    pub async fn reserve(&self, bytes: u64) -> Result<Permit, Refusal> {
        loop {
            // Listens before it looks, so that room made in between is not missed.
            let room = self.shared.room.notified();
            match self.try_reserve(bytes) {
                Err(Refusal::NoRoomNow { .. }) => room.await,
                decided => return decided,
            }
        }
    }

    /// Notes what the device says about its memory.
    pub fn observe(&self, free_bytes: u64, own_bytes: u64) {
        self.shared.ledger().observe(free_bytes, own_bytes);
        self.shared.room.notify_waiters();
    }

    /// Reads the ledger.
    pub fn read<T>(&self, read: impl FnOnce(&Ledger) -> T) -> T {
        read(&self.shared.ledger())
    }
}

impl Permit {
    /// Corrects the reservation to what was measured.
    pub fn correct(&self, measured_bytes: u64) {
        self.shared.ledger().correct(self.id, measured_bytes);
        self.shared.room.notify_waiters();
    }
}

impl Permit {
    /// Changes the reservation to what will be used next.
    ///
    /// # Errors
    /// More is asked than there is room for; the reservation stays as it was.
    pub fn resize(&self, bytes: u64) -> Result<(), Refusal> {
        self.shared.ledger().resize(self.id, bytes)?;
        self.shared.room.notify_waiters();
        Ok(())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.shared.ledger().release(self.id);
        self.shared.room.notify_waiters();
    }
}

impl Shared {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        // Its methods leave the ledger consistent at every point where they could panic.
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::FutureExt;
    use tokio::time::timeout;

    use super::*;

    /// For what happens at once on any machine.
    const PATIENCE: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn who_waits_gets_the_room_that_a_dropped_permit_leaves() {
        let vram = Vram::new(Capacity { total_bytes: 1_000, safety_margin: 0.8 });
        let first = vram.try_reserve(700).unwrap();
        let mut waiting = Box::pin(vram.reserve(500));
        assert!(futures::poll!(waiting.as_mut()).is_pending());
        drop(first);
        let second = timeout(PATIENCE, waiting).await.expect("woken in time").unwrap();
        assert_eq!(vram.read(Ledger::promised_bytes), 500);
        second.correct(300);
        assert_eq!(vram.read(Ledger::available_bytes), 500);
        drop(second);
        assert_eq!(vram.read(Ledger::promised_bytes), 0);
    }

    #[tokio::test]
    async fn what_can_never_fit_does_not_wait() {
        let vram = Vram::new(Capacity { total_bytes: 1_000, safety_margin: 0.8 });
        assert!(matches!(vram.reserve(801).now_or_never(), Some(Err(Refusal::NeverFits { .. }))));
    }

    #[tokio::test]
    async fn leaving_the_wait_leaves_nothing_behind() {
        let vram = Vram::new(Capacity { total_bytes: 1_000, safety_margin: 0.8 });
        let first = vram.try_reserve(800).unwrap();
        let mut waiting = Box::pin(vram.reserve(1));
        assert!(futures::poll!(waiting.as_mut()).is_pending());
        drop(waiting);
        drop(first);
        assert_eq!(vram.read(Ledger::promised_bytes), 0);
    }
}
