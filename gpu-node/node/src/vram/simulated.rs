//! A device whose memory a test takes and gives back, and the property that nobody runs out of it by our doing.

use std::sync::{Arc, Mutex};

use proptest::prelude::*;

use super::memory::{Memory, Plan};
use super::permit::Permit;
use super::probe::{Probe, Reading};
use super::{Refusal, estimate::JobKind};

/// The device.
#[derive(Debug)]
pub(crate) struct SimulatedDevice {
    total_bytes: u64,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    own_bytes: u64,
    peak_bytes: u64,
    foreign_bytes: u64,
}

/// The device has no more memory to give.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct OutOfMemory;

impl SimulatedDevice {
    pub(crate) fn new(total_bytes: u64) -> Self {
        Self { total_bytes, held: Mutex::new(Held::default()) }
    }

    pub(crate) fn allocate(&self, bytes: u64) -> Result<(), OutOfMemory> {
        let mut held = self.held.lock().unwrap();
        if held.own_bytes + held.foreign_bytes + bytes > self.total_bytes {
            return Err(OutOfMemory);
        }
        held.own_bytes += bytes;
        held.peak_bytes = held.peak_bytes.max(held.own_bytes);
        Ok(())
    }

    pub(crate) fn free(&self, bytes: u64) {
        self.held.lock().unwrap().own_bytes -= bytes;
    }

    /// Another process takes or gives back; it gets no more than there is.
    pub(crate) fn set_foreign(&self, bytes: u64) -> u64 {
        let mut held = self.held.lock().unwrap();
        held.foreign_bytes = bytes.min(self.total_bytes - held.own_bytes);
        held.foreign_bytes
    }
}

impl Probe for SimulatedDevice {
    fn read(&self) -> Option<Reading> {
        let held = self.held.lock().unwrap();
        Some(Reading {
            total_bytes: self.total_bytes,
            free_bytes: self.total_bytes - held.own_bytes - held.foreign_bytes,
            allocated_bytes: held.own_bytes,
            reserved_bytes: held.own_bytes,
            peak_bytes: held.peak_bytes,
        })
    }
}

/// Who holds memory: a job that grows into what it reserved, or a loaded model.
struct Holder {
    permit: Permit,
    reserved_bytes: u64,
    used_bytes: u64,
}

#[derive(Debug, Clone)]
enum Step {
    /// A job of a kind, which guesses this much.
    Admit(u32, u64),
    Load(u64),
    /// By this part, in percent, of what it may still take.
    Grow(usize, u64),
    End(usize),
    Foreign(u64),
    /// A job ends, and its peak is learned.
    Learn(usize, u32),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..3u32, 0..500u64).prop_map(|(kind, bytes)| Step::Admit(kind, bytes)),
        2 => (0..500u64).prop_map(Step::Load),
        6 => (0..8usize, 0..=100u64).prop_map(|(who, part)| Step::Grow(who, part)),
        3 => (0..8usize).prop_map(Step::End),
        2 => (0..1_000u64).prop_map(Step::Foreign),
        1 => (0..8usize, 0..3u32).prop_map(|(who, kind)| Step::Learn(who, kind)),
    ];
    prop::collection::vec(step, 0..60)
}

fn kind(resolution: u32) -> JobKind {
    JobKind { family: "f".into(), version: "v".into(), preset: "fast".into(), resolution }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    /// Jobs and models share the budget with other processes: who stays within its permit runs out of memory only if
    /// others have taken more since the last admission; and when all are gone, nothing is promised.
    #[test]
    fn nobody_overcommits_and_no_permit_is_lost(steps in steps()) {
        let device = Arc::new(SimulatedDevice::new(1_000));
        let plan = Plan { limit_bytes: None, safety_margin: 0.8, is_main_memory: false, estimates_file: None };
        let memory = Memory::open(plan, device.clone());
        let mut holders: Vec<Holder> = Vec::new();
        let (mut foreign, mut foreign_at_admission) = (0, 0);
        for step in steps {
            match step {
                Step::Admit(..) | Step::Load(_) => {
                    memory.refresh();
                    let before = memory.figures();
                    let reserved = match &step {
                        Step::Admit(resolution, guess) => memory.reserve(&kind(*resolution), *guess, 0),
                        Step::Load(bytes) => memory.vram().try_reserve(*bytes).map(|permit| (permit, *bytes)),
                        _ => unreachable!(),
                    };
                    match reserved {
                        Ok((permit, reserved_bytes)) => {
                            // Nothing always fits.
                            if reserved_bytes > 0 {
                                prop_assert!(before.reserved_bytes + reserved_bytes + foreign <= 800);
                                foreign_at_admission = foreign;
                            }
                            let mut holder = Holder { permit, reserved_bytes, used_bytes: 0 };
                            if matches!(step, Step::Load(_)) {
                                prop_assert!(device.allocate(reserved_bytes).is_ok() || reserved_bytes == 0);
                                holder.used_bytes = reserved_bytes;
                            }
                            holders.push(holder);
                        }
                        Err(Refusal::NeverFits { asked_bytes, .. }) => prop_assert!(asked_bytes > 800),
                        Err(Refusal::NoRoomNow { asked_bytes, .. }) => {
                            prop_assert!(asked_bytes + before.reserved_bytes + foreign > 800);
                        }
                    }
                }
                Step::Grow(who, part) if who < holders.len() => {
                    let holder = &mut holders[who];
                    let more = (holder.reserved_bytes - holder.used_bytes) * part / 100;
                    match device.allocate(more) {
                        Ok(()) => holder.used_bytes += more,
                        Err(OutOfMemory) => prop_assert!(foreign > foreign_at_admission),
                    }
                }
                Step::End(who) if who < holders.len() => {
                    device.free(holders.swap_remove(who).used_bytes);
                }
                Step::Learn(who, resolution) if who < holders.len() => {
                    let holder = holders.swap_remove(who);
                    device.free(holder.used_bytes);
                    memory.learn(&kind(resolution), holder.reserved_bytes, holder.used_bytes);
                    drop(holder.permit);
                }
                Step::Foreign(bytes) => foreign = device.set_foreign(bytes),
                Step::Grow(..) | Step::End(_) | Step::Learn(..) => {}
            }
            let promised: u64 = holders.iter().map(|holder| holder.reserved_bytes).sum();
            prop_assert_eq!(memory.figures().reserved_bytes, promised);
        }
        drop(holders);
        prop_assert_eq!(memory.figures().reserved_bytes, 0);
    }
}
