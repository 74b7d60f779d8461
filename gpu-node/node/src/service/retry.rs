//! When to try again: exponential back-off with jitter, as plain arithmetic.

use std::time::Duration;

use super::entropy;

/// Waits that double from `first` to `longest`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Backoff {
    first: Duration,
    longest: Duration,
}

impl Backoff {
    /// For one call to NATS: quick at first, because most interruptions are a reconnect.
    pub(crate) const CALL: Self = Self::new(Duration::from_millis(50), Duration::from_secs(2));
    /// For background work that has lost its footing, such as a watch.
    pub(crate) const BACKGROUND: Self = Self::new(Duration::from_millis(200), Duration::from_secs(5));
    /// For another start of a job that failed on this one.
    pub(crate) const JOB: Self = Self::new(Duration::from_secs(1), Duration::from_secs(60));

    const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest }
    }

    /// The wait before the try after `failures` failures (at least one), where `unit` in 0..1 is drawn at
    /// random. Between half of the step and all of it, so that those who failed together come back apart.
    pub(crate) fn wait(self, failures: u32, unit: f64) -> Duration {
        let doublings = failures.saturating_sub(1).min(16);
        let step = self.first.saturating_mul(1 << doublings).min(self.longest);
        step.mul_f64(0.5 + unit.clamp(0.0, 1.0) / 2.0)
    }

    /// [`Self::wait`] with a fresh draw.
    pub(crate) fn jittered(self, failures: u32) -> Duration {
        self.wait(failures, entropy::unit())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let waits: Vec<_> = (1..=8).map(|failures| Backoff::JOB.wait(failures, 1.0).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
    }

    proptest! {
        #[test]
        fn a_wait_is_within_its_bounds(failures in 1u32.., unit in 0.0f64..1.0) {
            let wait = Backoff::CALL.wait(failures, unit);
            prop_assert!(wait >= Duration::from_millis(25) && wait <= Duration::from_secs(2));
        }
    }
}
