//! Jobs that wait rise from band to band.

use orfeas_protocol::Timestamp;
use orfeas_protocol::options::Priority;

use super::JobQueue;
use super::lines::{BANDS, Place, Turn};

/// Jobs that one call lets rise by a band.
pub(super) const RISES_MAX: usize = 256;

impl<K: Ord + Clone> JobQueue<K> {
    /// The band of a job and when it rises to the next.
    pub(super) fn standing(
        &self,
        priority: Priority,
        turn: Turn,
        now: Timestamp,
    ) -> (usize, Option<Timestamp>) {
        let band = self.policy.band(priority, now.since(turn.since));
        let step_ms = self.policy.age_step_ms();
        let steps = now.since(turn.since).as_millis() as u64 / step_ms;
        let rises_ms = turn.since.unix_ms().saturating_add(step_ms.saturating_mul(steps.saturating_add(1)));
        (band, (band < BANDS - 1).then_some(Timestamp::from_unix_ms(rises_ms)))
    }

    /// Lets jobs rise that are due.
    pub(super) fn age(&mut self, now: Timestamp) {
        for _ in 0..RISES_MAX {
            let Some(&(at, turn)) = self.rises.first() else { return };
            if at > now {
                return;
            }
            self.rises.pop_first();
            let Some(waiting) = self.jobs.get(&turn) else { continue };
            let (band, rises_at) = self.standing(waiting.job.priority, turn, now);
            let virtual_time = self.accounts.virtual_time(waiting.tenant);
            let before = Place { band: waiting.band, tenant: waiting.tenant };
            self.lines.remove(before, &waiting.job.kind, turn, virtual_time);
            self.lines.insert(Place { band, ..before }, &waiting.job.kind, turn, virtual_time);
            self.rises.extend(rises_at.map(|at| (at, turn)));
            if let Some(waiting) = self.jobs.get_mut(&turn) {
                (waiting.band, waiting.rises_at) = (band, rises_at);
            }
        }
    }
}
