//! The pulse of a run: does the inference thread show signs of life, and is the run over its time?
//!
//! The thread beats whenever it talks to its monitor: at each stage, each denoising step, each decode chunk. Who waits
//! for the run reads the pulse: a run over its time is asked to stop and has timed out; a silent one is stuck, and
//! nothing that is sent to its thread will be heard.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long a run may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PulseLimits {
    /// From its beginning to its end; then it is asked to stop.
    pub run: Duration,
    /// Between two signs of life; then its thread counts as stuck.
    pub silence: Duration,
}

/// How a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vital {
    /// It goes on; look again after this time at the earliest.
    Well(Duration),
    /// Nobody has heard of it for longer than a thread that works can be silent.
    Stuck,
}

/// The pulse of one run, shared by the inference thread and those who wait for it.
#[derive(Debug)]
pub struct Pulse {
    began: Instant,
    limits: PulseLimits,
    /// Milliseconds from the beginning to the last sign of life.
    last_beat_ms: AtomicU64,
}

impl Pulse {
    /// A run that begins now.
    pub fn begin(limits: PulseLimits, now: Instant) -> Self {
        Self { began: now, limits, last_beat_ms: AtomicU64::new(0) }
    }

    /// A sign of life.
    pub fn beat(&self, now: Instant) {
        // Signs of life may come from more than one thread; the latest counts.
        self.last_beat_ms.fetch_max(self.age_ms(now), Ordering::Relaxed);
    }

    /// Whether the run has had its time.
    pub fn is_overdue(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.began) >= self.limits.run
    }

    /// How the run is.
    pub fn vital(&self, now: Instant) -> Vital {
        let silent_ms = self.age_ms(now).saturating_sub(self.last_beat_ms.load(Ordering::Relaxed));
        let silent = Duration::from_millis(silent_ms);
        match self.limits.silence.checked_sub(silent) {
            Some(left) if !left.is_zero() => Vital::Well(left),
            _ => Vital::Stuck,
        }
    }

    /// What the run is held to.
    pub fn limits(&self) -> PulseLimits {
        self.limits
    }

    fn age_ms(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.began).as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: PulseLimits =
        PulseLimits { run: Duration::from_secs(600), silence: Duration::from_secs(60) };

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn silence_is_measured_from_the_last_sign_of_life() {
        let began = Instant::now();
        let pulse = Pulse::begin(LIMITS, began);
        assert_eq!(pulse.vital(began + seconds(59)), Vital::Well(seconds(1)));
        assert_eq!(pulse.vital(began + seconds(60)), Vital::Stuck);
        pulse.beat(began + seconds(50));
        assert_eq!(pulse.vital(began + seconds(60)), Vital::Well(seconds(50)));
        assert_eq!(pulse.vital(began + seconds(110)), Vital::Stuck);
    }

    #[test]
    fn a_run_that_shows_life_is_overdue_all_the_same() {
        let began = Instant::now();
        let pulse = Pulse::begin(LIMITS, began);
        pulse.beat(began + seconds(599));
        assert!(!pulse.is_overdue(began + seconds(599)));
        assert!(pulse.is_overdue(began + seconds(600)));
        assert!(matches!(pulse.vital(began + seconds(600)), Vital::Well(_)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        /// A run is stuck exactly when its latest sign of life is as old as the limit, whatever the order in which
        /// signs arrive.
        #[test]
        fn stuck_means_no_sign_of_life_within_the_limit(
            beats_ms in prop::collection::vec(0u64..200_000, 0..20),
            now_ms in 0u64..400_000,
        ) {
            let began = Instant::now();
            let pulse = Pulse::begin(LIMITS, began);
            for beat in &beats_ms {
                pulse.beat(began + Duration::from_millis(*beat));
            }
            let last = beats_ms.iter().copied().max().unwrap_or(0);
            let stuck = now_ms >= last + 60_000;
            let vital = pulse.vital(began + Duration::from_millis(now_ms));
            prop_assert_eq!(vital == Vital::Stuck, stuck);
        }
    }
}
