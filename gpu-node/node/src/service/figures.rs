//! The device in figures: memory, how busy it is, and what runs on it. Each node puts its own into its heartbeat;
//! the `gpu` answer adds up those of the region.
//!
//! Memory is the allocator's and the driver's view on an accelerator. On the CPU it is the machine's: total and
//! available as the kernel says, and of this process what is resident; there is no caching allocator, so what is
//! reserved is what is allocated. A megabyte is 2^20 bytes, as everywhere in the interface.
//!
//! How busy the device is, is the part of the last seconds (since the heartbeat before) in which a job was on its
//! inference thread. That thread is the device's only user in this process; what other processes do with the card
//! shows in the free memory, not here.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::pipeline::DeviceMemory;

/// Figures that can be added up, for one node or for the region.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Figures {
    /// The device's memory.
    pub(crate) total_vram_mb: u64,
    /// Free on the device: other processes count.
    pub(crate) free_vram_mb: u64,
    /// In use by tensors.
    pub(crate) allocated_mb: u64,
    /// Held by the allocator, in use or cached.
    pub(crate) reserved_mb: u64,
    /// The part of the last seconds in which the device had a job, 0 to 100.
    pub(crate) utilization_percent: f64,
    /// The most that the process held since its last run began.
    pub(crate) peak_memory_mb: u64,
    /// Jobs that wait: in the region for a node, on a node for its device.
    pub(crate) jobs_queued: u64,
}

impl Figures {
    /// What the device says of its memory.
    pub(crate) fn of(memory: DeviceMemory) -> Self {
        let mb = |bytes: u64| bytes >> 20;
        Self {
            total_vram_mb: mb(memory.total_bytes),
            free_vram_mb: mb(memory.free_bytes),
            allocated_mb: mb(memory.allocated_bytes),
            reserved_mb: mb(memory.reserved_bytes),
            peak_memory_mb: mb(memory.peak_bytes),
            ..Self::default()
        }
    }

    /// The sum over nodes; of the utilization, the mean.
    pub(crate) fn sum(nodes: impl IntoIterator<Item = Self>) -> Self {
        let mut sum = Self::default();
        let mut count = 0.0;
        for node in nodes {
            count += 1.0;
            sum.total_vram_mb += node.total_vram_mb;
            sum.free_vram_mb += node.free_vram_mb;
            sum.allocated_mb += node.allocated_mb;
            sum.reserved_mb += node.reserved_mb;
            sum.utilization_percent += node.utilization_percent;
            sum.peak_memory_mb += node.peak_memory_mb;
            sum.jobs_queued += node.jobs_queued;
        }
        if count > 0.0 {
            sum.utilization_percent = round_tenth(sum.utilization_percent / count);
        }
        sum
    }
}

fn round_tenth(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// Measures how busy the device is. Clones stand for the same meter.
#[derive(Debug, Clone, Default)]
pub(crate) struct BusyMeter {
    clock: Arc<Mutex<BusyClock>>,
}

/// A job is on the device for as long as this lives.
#[derive(Debug)]
pub(crate) struct BusyGuard {
    meter: BusyMeter,
}

impl BusyMeter {
    /// A job goes to the device.
    pub(crate) fn begin(&self) -> BusyGuard {
        self.lock().begin(Instant::now());
        BusyGuard { meter: self.clone() }
    }

    /// Jobs on the device now, or next to it.
    pub(crate) fn jobs(&self) -> usize {
        self.lock().jobs
    }

    /// The part of the time since the last reading in which the device had a job, in percent.
    pub(crate) fn read_percent(&self) -> f64 {
        round_tenth(self.lock().read(Instant::now()) * 100.0)
    }

    fn lock(&self) -> MutexGuard<'_, BusyClock> {
        // No code that can panic runs under this lock.
        self.clock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for BusyGuard {
    fn drop(&mut self) {
        self.meter.lock().end(Instant::now());
    }
}

#[derive(Debug)]
struct BusyClock {
    jobs: usize,
    busy: Duration,
    /// Up to when `busy` is counted.
    counted_to: Instant,
    read_at: Instant,
}

impl Default for BusyClock {
    fn default() -> Self {
        Self::new(Instant::now())
    }
}

impl BusyClock {
    fn new(now: Instant) -> Self {
        Self { jobs: 0, busy: Duration::ZERO, counted_to: now, read_at: now }
    }

    fn begin(&mut self, now: Instant) {
        self.count(now);
        self.jobs += 1;
    }

    fn end(&mut self, now: Instant) {
        self.count(now);
        self.jobs = self.jobs.saturating_sub(1);
    }

    fn read(&mut self, now: Instant) -> f64 {
        self.count(now);
        let passed = now.saturating_duration_since(self.read_at);
        let share = if passed.is_zero() { 0.0 } else { self.busy.as_secs_f64() / passed.as_secs_f64() };
        self.busy = Duration::ZERO;
        self.read_at = now;
        share.clamp(0.0, 1.0)
    }

    fn count(&mut self, now: Instant) {
        if self.jobs > 0 {
            self.busy += now.saturating_duration_since(self.counted_to);
        }
        self.counted_to = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_region_is_the_sum_of_its_nodes_and_as_busy_as_they_are_on_average() {
        let node = |total_vram_mb, utilization_percent, jobs_queued| Figures {
            total_vram_mb,
            free_vram_mb: total_vram_mb / 2,
            utilization_percent,
            jobs_queued,
            ..Figures::default()
        };
        let sum = Figures::sum([node(1000, 100.0, 1), node(500, 50.0, 2), node(1, 0.0, 0)]);
        assert_eq!((sum.total_vram_mb, sum.free_vram_mb, sum.jobs_queued), (1501, 750, 3));
        assert_eq!(sum.utilization_percent, 50.0);
        assert_eq!(Figures::sum([]), Figures::default());
    }

    #[test]
    fn overlapping_jobs_count_once() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut clock = BusyClock::new(start);
        clock.begin(at(100));
        clock.begin(at(200));
        clock.end(at(300));
        clock.end(at(500));
        assert!((clock.read(at(1000)) - 0.4).abs() < 1e-9);
        // A job that goes on counts in both readings.
        clock.begin(at(1500));
        assert!((clock.read(at(2000)) - 0.5).abs() < 1e-9);
        assert!((clock.read(at(2100)) - 1.0).abs() < 1e-9);
        clock.end(at(2100));
        assert_eq!(clock.read(at(2200)), 0.0);
        assert_eq!(clock.read(at(2200)), 0.0, "no time has passed");
    }

    #[test]
    fn a_guard_is_one_job() {
        let meter = BusyMeter::default();
        let guard = meter.begin();
        assert_eq!(meter.jobs(), 1);
        drop(guard);
        assert_eq!(meter.jobs(), 0);
    }
}
