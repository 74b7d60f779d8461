//! How long jobs of a kind have the device, from how long the last ones had it: what their tenants are charged when
//! they start.

use std::collections::BTreeMap;
use std::time::Duration;

/// What a job is taken for before any has run: the fastest model on two cores takes about this long.
const FIRST_GUESS: Duration = Duration::from_secs(1);
/// The weight of the newest job: half of the figure is of the last three.
const NEWEST: f64 = 0.2;
/// Kinds that are remembered. More than a node has families, presets and picture sizes.
const KINDS_MAX: usize = 256;

/// Mean device times, newer jobs weighing more.
#[derive(Debug)]
pub(super) struct Costs<K> {
    means: BTreeMap<K, Duration>,
}

impl<K> Default for Costs<K> {
    fn default() -> Self {
        Self { means: BTreeMap::new() }
    }
}

impl<K: Ord + Clone> Costs<K> {
    pub(super) fn expected(&self, kind: &K) -> Duration {
        self.means.get(kind).copied().unwrap_or(FIRST_GUESS)
    }

    pub(super) fn learn(&mut self, kind: &K, used: Duration) {
        if let Some(mean) = self.means.get_mut(kind) {
            *mean = mean.mul_f64(1.0 - NEWEST) + used.mul_f64(NEWEST);
            return;
        }
        if self.means.len() >= KINDS_MAX {
            self.means.pop_first();
        }
        self.means.insert(kind.clone(), used);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_follows_what_jobs_take_and_memory_is_bounded() {
        let mut costs = Costs::default();
        assert_eq!(costs.expected(&0), FIRST_GUESS);
        for _ in 0..30 {
            costs.learn(&0, Duration::from_secs(9));
        }
        costs.learn(&0, Duration::from_secs(4));
        assert!((costs.expected(&0).as_secs_f64() - 8.0).abs() < 1e-6, "{:?}", costs.expected(&0));
        for kind in 0..2 * KINDS_MAX {
            costs.learn(&kind, Duration::from_secs(1));
        }
        assert_eq!(costs.means.len(), KINDS_MAX);
    }
}
