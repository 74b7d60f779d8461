//! The vital signs of one instance, shared by its store's callbacks, its worker and its requests.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

/// Why the host ended an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It computed for too long without waiting once.
    Busy,
    /// It did not answer before the deadline.
    Deadline,
    /// It trapped after the host had refused it memory.
    OutOfMemory,
    /// It trapped for a reason of its own.
    Trap,
}

impl Failure {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Deadline => "deadline",
            Self::OutOfMemory => "out_of_memory",
            Self::Trap => "trap",
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Vitals {
    /// Set once, before the store is dropped.
    failure: OnceLock<Failure>,
    busy_ticks: AtomicU32,
    yielded_to_tick: AtomicBool,
    memory_refused: AtomicBool,
    memory_peak_bytes: AtomicUsize,
}

impl Vitals {
    pub(super) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Notes that the guest ran until the clock ticked; tells for how many ticks on end.
    pub(super) fn tick(&self) -> u32 {
        self.yielded_to_tick.store(true, Relaxed);
        self.busy_ticks.fetch_add(1, Relaxed) + 1
    }

    /// Notes that the instance stopped running; if it was not for a tick, it waits for something.
    pub(super) fn paused(&self) {
        if !self.yielded_to_tick.swap(false, Relaxed) {
            self.busy_ticks.store(0, Relaxed);
        }
    }

    /// Notes a wish for memory and whether it is granted.
    pub(super) fn memory(&self, wanted_bytes: usize, granted: bool) {
        if granted {
            self.memory_peak_bytes.fetch_max(wanted_bytes, Relaxed);
        } else {
            self.memory_refused.store(true, Relaxed);
        }
    }

    pub(super) fn memory_peak_bytes(&self) -> usize {
        self.memory_peak_bytes.load(Relaxed)
    }

    /// Records why the instance ends; the first reason stays.
    pub(super) fn fail(&self, failure: Failure) {
        // A second reason is a consequence of the first.
        let _ = self.failure.set(failure);
    }

    /// Records the end by a trap, whose cause the vital signs may tell.
    pub(super) fn trapped(&self) {
        let out_of_memory = self.memory_refused.load(Relaxed);
        self.fail(if out_of_memory { Failure::OutOfMemory } else { Failure::Trap });
    }

    /// Why the instance was ended, if it was.
    pub(crate) fn failure(&self) -> Option<Failure> {
        self.failure.get().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_add_up_only_while_the_guest_never_waits() {
        let vitals = Vitals::new();
        for expected in 1..=3 {
            assert_eq!(vitals.tick(), expected);
            vitals.paused();
        }
        vitals.paused();
        assert_eq!(vitals.tick(), 1);
    }

    #[test]
    fn a_trap_after_refused_memory_is_out_of_memory() {
        let vitals = Vitals::new();
        vitals.memory(100, true);
        vitals.memory(1000, false);
        vitals.trapped();
        assert_eq!(vitals.failure(), Some(Failure::OutOfMemory));
        assert_eq!(vitals.memory_peak_bytes(), 100);
    }

    #[test]
    fn the_first_reason_stays() {
        let vitals = Vitals::new();
        vitals.fail(Failure::Busy);
        vitals.trapped();
        assert_eq!(vitals.failure(), Some(Failure::Busy));
    }
}
