//! What bounds the queue and its order.

use std::time::Duration;

use orfeas_protocol::options::Priority;

use super::lines::BANDS;

/// The bounds of the queue.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// Jobs that may wait.
    pub depth_max: usize,
    /// How long a job waits for each level that it rises.
    pub age_step: Duration,
    /// How often a job that does not fit is passed over before the device is kept for it.
    pub bypass_max: u32,
    /// How long the device is kept for a job that does not fit.
    pub reservation_max: Duration,
    /// How often a job that needs another model is passed over by jobs of loaded ones.
    pub affinity_max: u32,
    /// How much more device time than the first one's a tenant may have used and still pass it, with a loaded model.
    pub affinity_window: Duration,
    /// What a tenant can owe or be owed at most, in device time.
    pub account_max: Duration,
}

impl Default for Policy {
    /// For jobs of a second to a minute on one device.
    fn default() -> Self {
        Self {
            // What one node may hold with its look-ahead over 20 lanes is a tenth of this.
            depth_max: 10_000,
            // A level is worth half a minute: the least urgent job is among the most urgent after 4.5 minutes.
            age_step: Duration::from_secs(30),
            // About the time in which what runs now ends and makes room.
            bypass_max: 16,
            reservation_max: Duration::from_secs(60),
            // A swap of a large model costs some jobs' time; nobody waits for more than eight.
            affinity_max: 8,
            affinity_window: Duration::from_secs(30),
            account_max: Duration::from_secs(600),
        }
    }
}

impl Policy {
    /// The band, 0 to 9, of a job of a priority that has waited for so long. Jobs of a higher band start first.
    pub fn band(&self, priority: Priority, waited: Duration) -> usize {
        let steps = waited.as_millis() / u128::from(self.age_step_ms());
        let entry = usize::from(priority.get()) - 1;
        entry.saturating_add(usize::try_from(steps).unwrap_or(usize::MAX)).min(BANDS - 1)
    }

    pub(super) fn age_step_ms(&self) -> u64 {
        u64::try_from(self.age_step.as_millis()).unwrap_or(u64::MAX).max(1)
    }
}
