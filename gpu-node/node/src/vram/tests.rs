//! Memory over histories of jobs, models and other processes: nobody runs out of it by our doing.

use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::{TestError, TestRunner};

use super::estimate::JobKind;
use super::probe::{Probe, Reading};
use super::simulated::{OutOfMemory, SimulatedDevice};
use super::{Memory, Permit, Plan, Refusal};

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

/// What could go wrong, to see that [`check`] notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// The device's word does not say what others hold.
    HidesOthers,
    /// What is promised is not counted.
    ForgetsAPromise,
    /// A job ends, and its permit is not given back.
    LosesAPermit,
}

/// A device that does not tell of other processes.
struct Forgetful(Arc<SimulatedDevice>);

impl Probe for Forgetful {
    fn read(&self) -> Option<Reading> {
        let reading = self.0.read()?;
        Some(Reading { free_bytes: reading.total_bytes - reading.reserved_bytes, ..reading })
    }
}

/// Jobs and models share the budget with other processes: who stays within its permit runs out of memory only if
/// others have taken more since the last admission; and when all are gone, nothing is promised.
fn check(steps: Vec<Step>, fault: Option<Fault>) -> Result<(), TestCaseError> {
    let device = Arc::new(SimulatedDevice::new(1_000));
    let plan = Plan { limit_bytes: None, safety_margin: 0.8, is_main_memory: false, estimates_file: None };
    let probe: Arc<dyn Probe> = match fault {
        Some(Fault::HidesOthers) => Arc::new(Forgetful(device.clone())),
        _ => device.clone(),
    };
    let memory = Memory::open(plan, probe);
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
                        if fault == Some(Fault::ForgetsAPromise) {
                            permit.correct(0);
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
                let holder = holders.swap_remove(who);
                device.free(holder.used_bytes);
                if fault == Some(Fault::LosesAPermit) {
                    std::mem::forget(holder.permit);
                }
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
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn nobody_overcommits_and_no_permit_is_lost(steps in steps()) {
        check(steps, None)?;
    }
}

#[test]
fn an_account_that_goes_wrong_is_found_out() {
    for fault in [Fault::HidesOthers, Fault::ForgetsAPromise, Fault::LosesAPermit] {
        let found = TestRunner::deterministic().run(&steps(), |steps| check(steps, Some(fault)));
        assert!(matches!(found, Err(TestError::Fail(..))), "{fault:?} was not noticed");
    }
}
