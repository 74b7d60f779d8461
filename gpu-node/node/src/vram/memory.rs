//! The memory of the node's device: the ledger, kept true by what the device says, and the estimates, kept over a
//! restart.
//!
//! The estimates stand in a file of the node and not in the region's store: they are true of this card, driver and
//! build of libtorch, and of no other node's.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::estimate::{Estimates, JobKind, Snapshot, error_ratio};
use super::ledger::{Capacity, Ledger, Refusal};
use super::permit::{Permit, Vram};
use super::probe::{Probe, Reading};

/// The part of a machine's memory that a node on its CPU plans with unless it is told. The rest is for the server,
/// the edge and the file cache that may run beside it.
const MACHINE_SHARE: f64 = 0.5;
/// Short jobs follow each other faster than the memory of others changes, and a question costs as much as such a job.
const FRESH_FOR: Duration = Duration::from_millis(50);
/// What a device that does not tell is taken for: everything fits.
const UNKNOWN_BYTES: u64 = 1 << 50;

/// What to plan with.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The most that is used of the device; `None` = all of an accelerator, half of a machine's main memory.
    pub limit_bytes: Option<u64>,
    /// The part that is promised, 0 to 1; see [`Capacity::safety_margin`].
    pub safety_margin: f64,
    /// The device's memory is the machine's, which others live in too.
    pub is_main_memory: bool,
    /// Where the estimates are kept; `None` = nowhere.
    pub estimates_file: Option<PathBuf>,
}

/// The device's figures as the metrics show them, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// What we plan with of the device, before the safety margin.
    pub total_bytes: u64,
    /// What may be promised in all.
    pub budget_bytes: u64,
    /// What is promised.
    pub reserved_bytes: u64,
    /// What tensors use.
    pub allocated_bytes: u64,
    /// What is free.
    pub free_bytes: u64,
    /// The most that was used since the last job began.
    pub peak_bytes: u64,
}

/// The memory of the device.
pub struct Memory {
    vram: Vram,
    probe: Arc<dyn Probe>,
    limit_bytes: u64,
    asked_at: Mutex<Option<Instant>>,
    estimates: Mutex<Learned>,
    file: Option<PathBuf>,
}

#[derive(Debug, Default)]
struct Learned {
    estimates: Estimates,
    /// There is something that the file does not have.
    is_news: bool,
}

impl Memory {
    /// Asks the device for its size and reads what an earlier run has learned. A file that cannot be used is left
    /// out: estimates start with the families' own guesses then.
    pub fn open(plan: Plan, probe: Arc<dyn Probe>) -> Self {
        let reading = probe.read().filter(|reading| reading.total_bytes > 0);
        let device_bytes = reading.map_or(UNKNOWN_BYTES, |reading| reading.total_bytes);
        let share = if plan.is_main_memory && reading.is_some() { MACHINE_SHARE } else { 1.0 };
        let limit_bytes = plan.limit_bytes.unwrap_or((device_bytes as f64 * share) as u64).min(device_bytes);
        let capacity = Capacity { total_bytes: limit_bytes, safety_margin: plan.safety_margin };
        let restored = plan.estimates_file.as_deref().map(read_snapshot);
        let estimates = match restored {
            Some(Ok(snapshot)) => Estimates::restore(snapshot),
            Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, "learned memory estimates not read");
                Estimates::default()
            }
            _ => Estimates::default(),
        };
        let learned = Mutex::new(Learned { estimates, is_news: false });
        let memory = Self {
            vram: Vram::new(capacity),
            probe,
            limit_bytes,
            asked_at: Mutex::new(None),
            estimates: learned,
            file: plan.estimates_file,
        };
        memory.refresh();
        memory
    }

    /// Asks the device what is free, so that the memory of others is respected.
    pub fn refresh(&self) {
        if let Some(reading) = self.read() {
            self.vram.observe(reading.free_bytes, reading.reserved_bytes);
        }
    }

    /// As [`Self::refresh`], unless somebody has done so just now.
    pub fn refresh_if_stale(&self) {
        let now = Instant::now();
        {
            // No code that can panic runs under this lock.
            let mut asked_at = self.asked_at.lock().unwrap_or_else(PoisonError::into_inner);
            if asked_at.is_some_and(|at| now.saturating_duration_since(at) < FRESH_FOR) {
                return;
            }
            *asked_at = Some(now);
        }
        self.refresh();
    }

    /// The ledger's handle.
    pub fn vram(&self) -> &Vram {
        &self.vram
    }

    /// What a job of this kind would reserve beside its model. What was learned is no reason to refuse a kind for ever:
    /// it is no more than the device gives, as those jobs have run on it. Only the family's own guess can be.
    pub fn estimate(&self, kind: &JobKind, guess_bytes: u64, resident_bytes: u64) -> u64 {
        let learned_bytes = self.learned().estimates.estimate(kind, guess_bytes);
        learned_bytes.min(self.ceiling_bytes().saturating_sub(resident_bytes).max(guess_bytes))
    }

    /// Whether a job of this kind could start now, with its model of `resident_bytes`, which is loaded or not.
    ///
    /// # Errors
    /// Not now, or never on this device.
    pub fn can_process(
        &self,
        kind: &JobKind,
        guess_bytes: u64,
        resident_bytes: u64,
        is_loaded: bool,
    ) -> Result<(), Refusal> {
        let job_bytes = self.estimate(kind, guess_bytes, resident_bytes);
        let all_bytes = job_bytes.saturating_add(resident_bytes);
        let ceiling_bytes = self.ceiling_bytes();
        if all_bytes > ceiling_bytes {
            return Err(Refusal::NeverFits { asked_bytes: all_bytes, ceiling_bytes });
        }
        self.vram.read(|ledger| ledger.can_reserve(if is_loaded { job_bytes } else { all_bytes }))
    }

    /// Reserves what a job of this kind is estimated to need.
    ///
    /// # Errors
    /// As [`Self::can_process`].
    pub fn reserve(
        &self,
        kind: &JobKind,
        guess_bytes: u64,
        resident_bytes: u64,
    ) -> Result<(Permit, u64), Refusal> {
        let bytes = self.estimate(kind, guess_bytes, resident_bytes);
        Ok((self.vram.try_reserve(bytes)?, bytes))
    }

    /// Notes the measured peak of a job that had reserved `estimated_bytes`; by how much that was off, where the
    /// peak was measured.
    pub fn learn(&self, kind: &JobKind, estimated_bytes: u64, peak_bytes: u64) -> Option<f64> {
        let error = error_ratio(estimated_bytes, peak_bytes)?;
        let mut learned = self.learned();
        learned.estimates.learn(kind, peak_bytes);
        learned.is_news = true;
        Some(error)
    }

    /// The most that the empty device could promise.
    pub fn ceiling_bytes(&self) -> u64 {
        self.vram.read(Ledger::ceiling_bytes)
    }

    /// The figures now.
    pub fn figures(&self) -> Figures {
        let reading = self.read().unwrap_or_default();
        let (budget_bytes, reserved_bytes) =
            self.vram.read(|ledger| (ledger.budget_bytes(), ledger.promised_bytes()));
        Figures {
            total_bytes: reading.total_bytes,
            budget_bytes,
            reserved_bytes,
            allocated_bytes: reading.allocated_bytes,
            free_bytes: reading.free_bytes,
            peak_bytes: reading.peak_bytes,
        }
    }

    /// Writes what has been learned since the last time. It blocks on the disk.
    ///
    /// # Errors
    /// The file cannot be replaced; the old one stays.
    pub fn save(&self) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let snapshot = {
            let mut learned = self.learned();
            if !std::mem::take(&mut learned.is_news) {
                return Ok(());
            }
            learned.estimates.snapshot()
        };
        let written = replace(file, &snapshot);
        if written.is_err() {
            self.learned().is_news = true;
        }
        written
    }

    fn read(&self) -> Option<Reading> {
        let reading = self.probe.read().filter(|reading| reading.total_bytes > 0)?;
        Some(reading.within(self.limit_bytes))
    }

    fn learned(&self) -> MutexGuard<'_, Learned> {
        // No code that can panic leaves it half changed.
        self.estimates.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Memory").field("vram", &self.vram).finish_non_exhaustive()
    }
}

fn read_snapshot(path: &Path) -> io::Result<Snapshot> {
    Ok(serde_json::from_slice(&fs::read(path)?)?)
}

/// All or nothing, whatever is cut off: written beside, flushed, and moved over.
fn replace(path: &Path, snapshot: &Snapshot) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let beside = path.with_extension("new");
    let mut file = File::create(&beside)?;
    file.write_all(&serde_json::to_vec(snapshot)?)?;
    file.sync_all()?;
    fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vram::simulated::SimulatedDevice;

    fn kind() -> JobKind {
        JobKind { family: "f".into(), version: "v".into(), preset: "fast".into(), resolution: 1_024 }
    }

    fn plan(limit_bytes: Option<u64>) -> Plan {
        Plan { limit_bytes, safety_margin: 0.8, is_main_memory: false, estimates_file: None }
    }

    #[test]
    fn a_node_on_a_cpu_plans_with_half_of_the_machine_unless_it_is_told() {
        let device = Arc::new(SimulatedDevice::new(1_000));
        let on_cpu = |limit| Memory::open(Plan { is_main_memory: true, ..plan(limit) }, device.clone());
        assert_eq!(on_cpu(None).ceiling_bytes(), 400);
        assert_eq!(on_cpu(Some(900)).ceiling_bytes(), 720);
        assert_eq!(Memory::open(plan(None), device.clone()).ceiling_bytes(), 800);
    }

    #[test]
    fn a_device_that_does_not_tell_takes_everything() {
        let memory = Memory::open(plan(None), Arc::new(SimulatedDevice::new(0)));
        memory.refresh();
        assert_eq!(memory.can_process(&kind(), 1 << 40, 1 << 40, false), Ok(()));
        assert_eq!(memory.figures().allocated_bytes, 0);
    }

    #[test]
    fn a_job_fits_with_what_has_to_be_loaded_for_it_or_not_now_or_never() {
        let device = Arc::new(SimulatedDevice::new(1_000));
        let memory = Memory::open(plan(None), device.clone());
        assert_eq!(memory.can_process(&kind(), 300, 500, false), Ok(()));
        assert!(matches!(memory.can_process(&kind(), 301, 500, true), Err(Refusal::NeverFits { .. })));
        device.set_foreign(100);
        memory.refresh();
        assert!(matches!(memory.can_process(&kind(), 300, 500, false), Err(Refusal::NoRoomNow { .. })));
        let (permit, bytes) = memory.reserve(&kind(), 300, 0).unwrap();
        assert_eq!((bytes, memory.figures().reserved_bytes), (300, 300));
        drop(permit);
        assert_eq!(memory.learn(&kind(), 300, 200), Some(0.5));
        assert_eq!(memory.estimate(&kind(), 300, 0), 210);
    }

    #[test]
    fn a_peak_beyond_the_device_makes_a_kind_wait_for_the_whole_device_and_not_for_ever() {
        let memory = Memory::open(plan(None), Arc::new(SimulatedDevice::new(1_000)));
        memory.learn(&kind(), 300, 5_000);
        assert_eq!(memory.estimate(&kind(), 300, 200), 600, "800 and the model's 200");
        assert_eq!(memory.can_process(&kind(), 300, 200, true), Ok(()));
    }

    #[test]
    fn what_was_learned_is_there_after_a_restart_and_a_broken_file_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("state/estimates.json");
        let open = || {
            let plan = Plan { estimates_file: Some(file.clone()), ..plan(None) };
            Memory::open(plan, Arc::new(SimulatedDevice::new(1_000)))
        };
        let memory = open();
        memory.save().unwrap();
        assert!(!file.exists(), "nothing was learned");
        memory.learn(&kind(), 300, 200);
        assert_eq!(memory.learn(&kind(), 300, 0), None, "not measured");
        memory.save().unwrap();
        assert_eq!(open().estimate(&kind(), 300, 0), 210);
        fs::write(&file, "{").unwrap();
        assert_eq!(open().estimate(&kind(), 300, 0), 300);
    }
}
