//! How much memory a job will need, learned from what jobs like it have used.
//!
//! The first job of a kind is admitted by its family's own guess. After that the estimate is a high quantile
//! of the measured peaks and a little more, so that nineteen in twenty jobs stay within what they reserved.

use std::collections::{HashMap, VecDeque};

use serde::{Deserialize, Serialize};

/// How many peaks of a kind are remembered: enough for a quantile, few enough to follow a change within a day.
const PEAKS_MAX: usize = 64;
/// How many kinds are remembered; the one unused for longest goes first. A kind takes about half a kilobyte.
const KINDS_MAX: usize = 1_024;
/// The quantile of the peaks.
const QUANTILE: f64 = 0.95;
/// What is added to it: allocators round up, and the largest job is yet to come.
const HEADROOM: f64 = 1.05;

/// Jobs that need about the same memory.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct JobKind {
    /// The model family.
    pub family: String,
    /// The version of its weights.
    pub version: String,
    /// The quality preset.
    pub preset: String,
    /// The picture's longest side, rounded up to a power of two; the volume's own resolution follows from family and
    /// preset.
    pub resolution: u32,
}

/// What has been learned, in a form that can be stored.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    kinds: Vec<(JobKind, VecDeque<u64>)>,
}

/// The estimates of one node.
#[derive(Debug, Clone, Default)]
pub struct Estimates {
    kinds: HashMap<JobKind, Peaks>,
    clock: u64,
}

#[derive(Debug, Clone, Default)]
struct Peaks {
    bytes: VecDeque<u64>,
    used_at: u64,
}

impl Estimates {
    /// Continues from what was stored.
    pub fn restore(snapshot: Snapshot) -> Self {
        let mut estimates = Self::default();
        for (kind, peaks) in snapshot.kinds {
            for bytes in peaks {
                estimates.learn(&kind, bytes);
            }
        }
        estimates
    }

    /// What has been learned.
    pub fn snapshot(&self) -> Snapshot {
        let mut kinds: Vec<_> = self.kinds.iter().collect();
        // In the order of use, so that restoring keeps it.
        kinds.sort_by_key(|(_, peaks)| peaks.used_at);
        Snapshot {
            kinds: kinds.into_iter().map(|(kind, peaks)| (kind.clone(), peaks.bytes.clone())).collect(),
        }
    }

    /// What to reserve for a job; `guess_bytes` is its family's own answer, used until a job of the kind has run.
    pub fn estimate(&self, kind: &JobKind, guess_bytes: u64) -> u64 {
        let Some(peaks) = self.kinds.get(kind) else { return guess_bytes };
        let mut sorted: Vec<u64> = peaks.bytes.iter().copied().collect();
        sorted.sort_unstable();
        let rank = (sorted.len() as f64 * QUANTILE).ceil() as usize;
        let quantile = sorted.get(rank.saturating_sub(1)).copied().unwrap_or(guess_bytes);
        (quantile as f64 * HEADROOM).ceil() as u64
    }

    /// Notes the measured peak of a job.
    pub fn learn(&mut self, kind: &JobKind, peak_bytes: u64) {
        self.clock += 1;
        let peaks = self.kinds.entry(kind.clone()).or_default();
        peaks.used_at = self.clock;
        peaks.bytes.push_back(peak_bytes);
        if peaks.bytes.len() > PEAKS_MAX {
            peaks.bytes.pop_front();
        }
        if self.kinds.len() > KINDS_MAX {
            let oldest =
                self.kinds.iter().min_by_key(|(_, peaks)| peaks.used_at).map(|(kind, _)| kind.clone());
            oldest.and_then(|kind| self.kinds.remove(&kind));
        }
    }
}

/// By how much an estimate was off: 0 is exact, 1 twice the need, -0.5 half of it. `None` without a peak.
pub fn error_ratio(estimated_bytes: u64, peak_bytes: u64) -> Option<f64> {
    (peak_bytes > 0).then(|| estimated_bytes as f64 / peak_bytes as f64 - 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(resolution: u32) -> JobKind {
        JobKind { family: "f".into(), version: "v".into(), preset: "fast".into(), resolution }
    }

    #[test]
    fn the_familys_guess_counts_until_a_job_has_run() {
        let mut estimates = Estimates::default();
        assert_eq!(estimates.estimate(&kind(128), 500), 500);
        estimates.learn(&kind(128), 100);
        assert_eq!(estimates.estimate(&kind(128), 500), 105);
        assert_eq!(estimates.estimate(&kind(256), 500), 500, "another kind");
    }

    #[test]
    fn nineteen_in_twenty_jobs_stay_within_the_estimate() {
        let mut estimates = Estimates::default();
        let peaks: Vec<u64> = (0..PEAKS_MAX as u64).map(|n| 1_000 + n * 37 % 401).collect();
        for peak in &peaks {
            estimates.learn(&kind(128), *peak);
        }
        let estimate = estimates.estimate(&kind(128), 0);
        let within = peaks.iter().filter(|peak| **peak <= estimate).count();
        assert!(within * 20 >= peaks.len() * 19, "{within} of {}", peaks.len());
        assert!(
            estimate <= 1_401 * 106 / 100,
            "and the estimate is no larger than it needs to be: {estimate}"
        );
    }

    #[test]
    fn a_change_of_need_is_followed_and_memory_stays_bounded() {
        let mut estimates = Estimates::default();
        for _ in 0..PEAKS_MAX {
            estimates.learn(&kind(1), 1_000);
        }
        for _ in 0..PEAKS_MAX {
            estimates.learn(&kind(1), 100);
        }
        assert_eq!(estimates.estimate(&kind(1), 0), 105);
        for resolution in 0..2 * KINDS_MAX as u32 {
            estimates.learn(&kind(resolution), 1);
        }
        assert_eq!(estimates.kinds.len(), KINDS_MAX);
        assert_eq!(estimates.estimate(&kind(2 * KINDS_MAX as u32 - 1), 0), 2, "the newest kind is kept");
    }

    #[test]
    fn what_was_learned_survives_a_restart() {
        let mut estimates = Estimates::default();
        estimates.learn(&kind(1), 1_000);
        estimates.learn(&kind(2), 2_000);
        let json = serde_json::to_string(&estimates.snapshot()).unwrap();
        let restored = Estimates::restore(serde_json::from_str(&json).unwrap());
        assert_eq!(restored.snapshot(), estimates.snapshot());
        assert_eq!(error_ratio(restored.estimate(&kind(2), 0), 2_000), Some(0.050_000_000_000_000_044));
    }
}
