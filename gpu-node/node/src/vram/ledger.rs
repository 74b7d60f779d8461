//! The memory budget of one device as a plain state machine: what is promised to whom, and what may still
//! be promised.
//!
//! ```text
//!  total ─ × margin ─▶ ceiling ─ − foreign ─▶ budget ─ − promised ─▶ available
//! ```
//! *Foreign* is what other processes hold on the same card. It is measured, it can grow at any time, and a
//! promise once made is kept: then the budget is overdrawn, and nothing new is admitted until it is not.

use std::collections::HashMap;

use thiserror::Error;

/// Names one promise in its ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ReservationId(u64);

/// What a device has, and how much of it we may use.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Capacity {
    /// Memory of the device.
    pub total_bytes: u64,
    /// The part that we plan with, 0 to 1: fragmentation and the driver's own needs live in the rest.
    pub safety_margin: f64,
}

/// Why a reservation was not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Refusal {
    /// There is no room now; there may be later.
    #[error("{asked_bytes} bytes asked, {available_bytes} available")]
    NoRoomNow {
        /// What was asked.
        asked_bytes: u64,
        /// What is free for new promises.
        available_bytes: u64,
    },
    /// Even the empty device is too small.
    #[error("{asked_bytes} bytes asked, {ceiling_bytes} is the most that this device can give")]
    NeverFits {
        /// What was asked.
        asked_bytes: u64,
        /// The budget of the empty device.
        ceiling_bytes: u64,
    },
}

/// The ledger.
#[derive(Debug, Clone)]
pub struct Ledger {
    ceiling_bytes: u64,
    total_bytes: u64,
    foreign_bytes: u64,
    promised_bytes: u64,
    reservations: HashMap<ReservationId, u64>,
    next_id: u64,
}

impl Ledger {
    /// An empty ledger of a device.
    pub fn new(capacity: Capacity) -> Self {
        let margin = capacity.safety_margin.clamp(0.0, 1.0);
        Self {
            // f64 is exact to 2^53 bytes, which is 8 PiB.
            ceiling_bytes: (capacity.total_bytes as f64 * margin) as u64,
            total_bytes: capacity.total_bytes,
            foreign_bytes: 0,
            promised_bytes: 0,
            reservations: HashMap::new(),
            next_id: 0,
        }
    }

    /// Promises memory.
    ///
    /// # Errors
    /// There is no room now, or never will be.
    pub fn reserve(&mut self, bytes: u64) -> Result<ReservationId, Refusal> {
        self.can_reserve(bytes)?;
        let id = ReservationId(self.next_id);
        self.next_id += 1;
        self.promised_bytes += bytes;
        self.reservations.insert(id, bytes);
        Ok(id)
    }

    /// Whether [`Self::reserve`] would succeed.
    ///
    /// # Errors
    /// As there.
    pub fn can_reserve(&self, bytes: u64) -> Result<(), Refusal> {
        if bytes > self.ceiling_bytes {
            return Err(Refusal::NeverFits { asked_bytes: bytes, ceiling_bytes: self.ceiling_bytes });
        }
        let available_bytes = self.available_bytes();
        if bytes > available_bytes {
            return Err(Refusal::NoRoomNow { asked_bytes: bytes, available_bytes });
        }
        Ok(())
    }

    /// Corrects a promise to what was measured. Growth is always granted: the memory is in use already, and
    /// the ledger has to say so, even if that overdraws the budget.
    pub fn correct(&mut self, id: ReservationId, measured_bytes: u64) {
        if let Some(bytes) = self.reservations.get_mut(&id) {
            self.promised_bytes = self.promised_bytes - *bytes + measured_bytes;
            *bytes = measured_bytes;
        }
    }

    /// Changes a promise to what will be used. Less is always granted; more as a new promise of the difference is.
    ///
    /// # Errors
    /// As [`Self::reserve`]; the promise stays as it was then.
    pub fn resize(&mut self, id: ReservationId, bytes: u64) -> Result<(), Refusal> {
        let Some(&held_bytes) = self.reservations.get(&id) else { return Ok(()) };
        if bytes > held_bytes {
            if bytes > self.ceiling_bytes {
                return Err(Refusal::NeverFits { asked_bytes: bytes, ceiling_bytes: self.ceiling_bytes });
            }
            self.can_reserve(bytes - held_bytes)?;
        }
        self.correct(id, bytes);
        Ok(())
    }

    /// Takes a promise back. A second time, or for another ledger's id, it does nothing.
    pub fn release(&mut self, id: ReservationId) {
        if let Some(bytes) = self.reservations.remove(&id) {
            self.promised_bytes -= bytes;
        }
    }

    /// Notes what the device says: how much is free, and how much of the rest is our own allocator's.
    pub fn observe(&mut self, free_bytes: u64, own_bytes: u64) {
        self.foreign_bytes = self.total_bytes.saturating_sub(free_bytes).saturating_sub(own_bytes);
    }

    /// What the empty device may promise.
    pub fn ceiling_bytes(&self) -> u64 {
        self.ceiling_bytes
    }

    /// What may be promised in all.
    pub fn budget_bytes(&self) -> u64 {
        self.ceiling_bytes.saturating_sub(self.foreign_bytes)
    }

    /// What is promised.
    pub fn promised_bytes(&self) -> u64 {
        self.promised_bytes
    }

    /// What may still be promised.
    pub fn available_bytes(&self) -> u64 {
        self.budget_bytes().saturating_sub(self.promised_bytes)
    }

    /// Memory of the device.
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ledger(total_bytes: u64) -> Ledger {
        Ledger::new(Capacity { total_bytes, safety_margin: 0.8 })
    }

    #[test]
    fn a_fifth_of_the_device_is_never_promised() {
        let mut ledger = ledger(1_000);
        assert_eq!(ledger.reserve(801), Err(Refusal::NeverFits { asked_bytes: 801, ceiling_bytes: 800 }));
        ledger.reserve(800).unwrap();
        assert_eq!(ledger.reserve(1), Err(Refusal::NoRoomNow { asked_bytes: 1, available_bytes: 0 }));
    }

    #[test]
    fn memory_of_other_processes_shrinks_the_budget_and_promises_are_kept() {
        let mut ledger = ledger(1_000);
        let id = ledger.reserve(500).unwrap();
        ledger.observe(300, 200); // 500 bytes are somebody else's
        assert_eq!(ledger.budget_bytes(), 300);
        assert_eq!((ledger.promised_bytes(), ledger.available_bytes()), (500, 0));
        assert!(matches!(ledger.reserve(1), Err(Refusal::NoRoomNow { .. })));
        ledger.release(id);
        assert_eq!(ledger.available_bytes(), 300);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Reserve(u64),
        Release(usize),
        Correct(usize, u64),
        Resize(usize, u64),
        Observe(u64, u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => (0..600u64).prop_map(Step::Reserve),
            2 => (0..8usize).prop_map(Step::Release),
            1 => (0..8usize, 0..600u64).prop_map(|(which, bytes)| Step::Correct(which, bytes)),
            1 => (0..8usize, 0..900u64).prop_map(|(which, bytes)| Step::Resize(which, bytes)),
            1 => (0..=1_000u64, 0..=1_000u64).prop_map(|(free, own)| Step::Observe(free, own)),
        ];
        prop::collection::vec(step, 0..40)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        #[test]
        fn promises_add_up_and_no_admission_overdraws_the_budget(steps in steps()) {
            let mut ledger = ledger(1_000);
            let mut held: Vec<(ReservationId, u64)> = Vec::new();
            for step in steps {
                match step {
                    Step::Reserve(bytes) => {
                        let room = ledger.available_bytes();
                        match ledger.reserve(bytes) {
                            Ok(id) => {
                                prop_assert!(bytes <= room);
                                prop_assert!(bytes == 0 || ledger.promised_bytes() <= ledger.budget_bytes());
                                held.push((id, bytes));
                            }
                            Err(Refusal::NeverFits { .. }) => prop_assert!(bytes > 800),
                            Err(Refusal::NoRoomNow { .. }) => prop_assert!(bytes > room),
                        }
                    }
                    Step::Release(which) if which < held.len() => {
                        let (id, _) = held.swap_remove(which);
                        ledger.release(id);
                        ledger.release(id);
                    }
                    Step::Correct(which, bytes) if which < held.len() => {
                        held[which].1 = bytes;
                        ledger.correct(held[which].0, bytes);
                    }
                    Step::Resize(which, bytes) if which < held.len() => {
                        let (id, held_bytes) = held[which];
                        let room = ledger.available_bytes();
                        match ledger.resize(id, bytes) {
                            Ok(()) => {
                                prop_assert!(bytes <= held_bytes || bytes - held_bytes <= room);
                                held[which].1 = bytes;
                            }
                            Err(Refusal::NeverFits { .. }) => prop_assert!(bytes > 800),
                            Err(Refusal::NoRoomNow { .. }) => prop_assert!(bytes - held_bytes > room),
                        }
                    }
                    Step::Observe(free, own) => ledger.observe(free, own),
                    Step::Release(_) | Step::Correct(..) | Step::Resize(..) => {}
                }
                prop_assert_eq!(ledger.promised_bytes(), held.iter().map(|(_, bytes)| bytes).sum::<u64>());
            }
            for (id, _) in held {
                ledger.release(id);
            }
            prop_assert_eq!(ledger.promised_bytes(), 0);
        }
    }
}
