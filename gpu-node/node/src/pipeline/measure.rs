//! What a job does to the device's memory, measured around it.
//!
//! On an accelerator libtorch's allocator counts. On a CPU the kernel does, for the whole process: what other threads
//! use in the meantime is counted in, so the figure errs to the safe side.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use orfeas_torch::{FailureClass, TorchError, memory};
use tch::Device;

use super::engine::{DeviceMemory, LoadedModel, ModelSource};
use super::{PipelineError, Settings};

/// The memory of one device, and whether anything beside the running job changes it.
#[derive(Debug)]
pub(super) struct Meter {
    device: Device,
    /// Models that came or went.
    changes: AtomicU64,
    loading: AtomicUsize,
}

/// Before a job.
pub(super) struct Baseline {
    memory: DeviceMemory,
    /// `None` when a model was being loaded.
    changes: Option<u64>,
    has_peak: bool,
}

/// After a job.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) peak_bytes: u64,
    pub(super) leaked_bytes: u64,
    /// The device refuses all work.
    pub(super) is_lost: bool,
}

impl Meter {
    pub(super) fn new(device: Device) -> Self {
        Self { device, changes: AtomicU64::new(0), loading: AtomicUsize::new(0) }
    }

    /// The device's name.
    pub(super) fn device_name(&self) -> String {
        match self.device {
            Device::Cuda(index) => format!("cuda:{index}"),
            _ => "cpu".to_owned(),
        }
    }

    /// Whether the device has no memory of its own.
    pub(super) fn is_of_main_memory(&self) -> bool {
        !matches!(self.device, Device::Cuda(_))
    }

    /// The device's figures now.
    pub(super) fn memory(&self) -> DeviceMemory {
        match self.device {
            Device::Cuda(_) => of_accelerator(self.device),
            _ => of_process().unwrap_or_default(),
        }
    }

    /// Starts the peak anew.
    pub(super) fn begin(&self) -> Baseline {
        let has_peak = match self.device {
            Device::Cuda(_) => memory::reset_peak(self.device).is_ok(),
            // Resets the high-water mark of the resident set; see proc(5).
            _ => fs::write("/proc/self/clear_refs", "5").is_ok(),
        };
        Baseline { memory: self.memory(), changes: self.undisturbed(), has_peak }
    }

    /// Reads the peak, makes the device give back what it can, and looks what is left.
    pub(super) fn end(&self, before: &Baseline) -> Usage {
        let is_lost = matches!(memory::synchronize(self.device), Err(error) if is_lost(&error));
        let peak = self.memory().peak_bytes;
        self.trim();
        let is_comparable = before.changes.is_some() && before.changes == self.undisturbed();
        if !is_comparable || is_lost {
            return Usage { is_lost, ..Usage::default() };
        }
        let peak_bytes = if before.has_peak { peak.saturating_sub(before.memory.reserved_bytes) } else { 0 };
        let leaked_bytes = match self.device {
            Device::Cuda(_) => self.memory().allocated_bytes.saturating_sub(before.memory.allocated_bytes),
            _ => 0,
        };
        Usage { peak_bytes, leaked_bytes, is_lost }
    }

    /// Gives cached blocks back.
    pub(super) fn trim(&self) {
        match memory::empty_cache(self.device) {
            Ok(()) | Err(TorchError::NoAccelerator) => {}
            Err(error) => tracing::warn!(%error, "the device's cache was not emptied"),
        }
    }

    /// A model came or went.
    pub(super) fn note_change(&self) {
        self.changes.fetch_add(1, Ordering::SeqCst);
    }

    /// The number of changes so far, while none is under way.
    fn undisturbed(&self) -> Option<u64> {
        let changes = self.changes.load(Ordering::SeqCst);
        (self.loading.load(Ordering::SeqCst) == 0).then_some(changes)
    }
}

fn is_lost(error: &TorchError) -> bool {
    error.class() == FailureClass::DeviceLost
}

fn of_accelerator(device: Device) -> DeviceMemory {
    let Ok(stats) = memory::stats(device) else { return DeviceMemory::default() };
    DeviceMemory {
        total_bytes: stats.total_bytes,
        free_bytes: stats.free_bytes,
        allocated_bytes: stats.allocated_bytes,
        reserved_bytes: stats.reserved_bytes,
        peak_bytes: stats.peak_reserved_bytes,
    }
}

fn of_process() -> Option<DeviceMemory> {
    let machine = fs::read_to_string("/proc/meminfo").ok()?;
    let process = fs::read_to_string("/proc/self/status").ok()?;
    let resident_bytes = field(&process, "VmRSS:")?;
    Some(DeviceMemory {
        total_bytes: field(&machine, "MemTotal:")?,
        free_bytes: field(&machine, "MemAvailable:")?,
        allocated_bytes: resident_bytes,
        reserved_bytes: resident_bytes,
        peak_bytes: field(&process, "VmHWM:")?,
    })
}

/// The bytes of a line such as `VmRSS:   1024 kB`.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// A source whose loads the meter knows of, so that a job is not charged for them.
pub(super) struct MeteredSource {
    pub(super) source: Box<dyn ModelSource>,
    pub(super) meter: Arc<Meter>,
}

/// While a model loads.
struct Loading<'a>(&'a Meter);

impl<'a> Loading<'a> {
    fn begin(meter: &'a Meter) -> Self {
        meter.loading.fetch_add(1, Ordering::SeqCst);
        Self(meter)
    }
}

impl Drop for Loading<'_> {
    fn drop(&mut self) {
        self.0.note_change();
        self.0.loading.fetch_sub(1, Ordering::SeqCst);
    }
}

impl ModelSource for MeteredSource {
    fn family(&self) -> &'static str {
        self.source.family()
    }

    fn fingerprint(&self) -> Result<String, PipelineError> {
        self.source.fingerprint()
    }

    fn resident_bytes(&self) -> u64 {
        self.source.resident_bytes()
    }

    fn job_bytes(&self, settings: &Settings) -> u64 {
        self.source.job_bytes(settings)
    }

    fn load(&self, version: &str) -> Result<LoadedModel, PipelineError> {
        let _loading = Loading::begin(&self.meter);
        // Loaders run on threads of their own, and gradients are switched off for each thread by itself.
        tch::no_grad(|| self.source.load(version))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_a_cpu_the_process_is_the_device() {
        let memory = Meter::new(Device::Cpu).memory();
        assert!(memory.allocated_bytes > 0 && memory.peak_bytes >= memory.allocated_bytes, "{memory:?}");
        assert!(memory.total_bytes > memory.free_bytes, "{memory:?}");
    }

    #[test]
    fn the_peak_of_what_a_job_held_is_measured_after_it_has_let_go() {
        const HELD: usize = 256 << 20;
        let meter = Meter::new(Device::Cpu);
        let before = meter.begin();
        // Written to, or the kernel would keep no page for it.
        drop(std::hint::black_box(vec![1_u8; HELD]));
        let usage = meter.end(&before);
        // 0 = a kernel that lets nobody reset the mark.
        assert!(usage.peak_bytes == 0 || usage.peak_bytes >= HELD as u64 / 2, "{usage:?}");
        assert_eq!((usage.leaked_bytes, usage.is_lost), (0, false));
    }

    #[test]
    fn a_job_beside_a_load_is_not_measured() {
        let meter = Meter::new(Device::Cpu);
        let before = meter.begin();
        drop(Loading::begin(&meter));
        assert_eq!(meter.end(&before), Usage::default(), "a load came and went");
        let loading = Loading::begin(&meter);
        let before = meter.begin();
        assert_eq!(meter.end(&before), Usage::default(), "a load is under way");
        drop(loading);
    }
}
