//! How many messages of each lane this node holds: running, waiting, or being settled.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::scheduler::Lane;

/// The counts, each with the same bound. Clones stand for the same ones.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    shared: Arc<Shared>,
    bound: usize,
}

#[derive(Debug, Default)]
struct Shared {
    counts: Mutex<HashMap<Lane, usize>>,
    freed: Notify,
}

/// A message that is held; dropping it makes room for another.
#[derive(Debug)]
pub(crate) struct HeldPlace {
    shared: Arc<Shared>,
    lane: Lane,
}

impl Held {
    pub(crate) fn new(bound: usize) -> Self {
        Self { shared: Arc::default(), bound }
    }

    /// How many more of a lane may be held.
    pub(crate) fn room(&self, lane: Lane) -> usize {
        self.bound.saturating_sub(self.shared.counts().get(&lane).copied().unwrap_or(0))
    }

    /// Whether it is time to ask for more of a lane: a question costs a round trip, so it is put when there is room
    /// for half of what may be held, and not for each message that leaves.
    pub(crate) fn is_low(&self, lane: Lane) -> bool {
        self.room(lane).saturating_mul(2) >= self.bound
    }

    /// Whether none is held.
    pub(crate) fn is_empty(&self) -> bool {
        self.shared.counts().is_empty()
    }

    /// Counts one more.
    pub(crate) fn take(&self, lane: Lane) -> HeldPlace {
        *self.shared.counts().entry(lane).or_default() += 1;
        HeldPlace { shared: self.shared.clone(), lane }
    }

    /// Waits until one is let go of.
    pub(crate) async fn freed(&self) {
        self.shared.freed.notified().await;
    }
}

impl Shared {
    fn counts(&self) -> MutexGuard<'_, HashMap<Lane, usize>> {
        // No code that can panic runs under this lock.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// For how long a lane is left to others that this node has passed a job on in: they are called at once, and this node
/// looks at its lanes each second.
const YIELD_FOR: Duration = Duration::from_secs(1);

/// Lanes that are left to other nodes for a moment.
#[derive(Debug, Default)]
pub(crate) struct Yielded {
    until: Mutex<HashMap<Lane, Instant>>,
}

impl Yielded {
    /// Leaves a lane to others.
    pub(crate) fn to_others(&self, lane: Lane) {
        self.lanes().insert(lane, Instant::now() + YIELD_FOR);
    }

    /// Whether a lane is left to others now.
    pub(crate) fn is_to_others(&self, lane: Lane) -> bool {
        let mut lanes = self.lanes();
        match lanes.get(&lane) {
            Some(until) if Instant::now() < *until => true,
            Some(_) => {
                lanes.remove(&lane);
                false
            }
            None => false,
        }
    }

    fn lanes(&self) -> MutexGuard<'_, HashMap<Lane, Instant>> {
        // No code that can panic runs under this lock.
        self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for HeldPlace {
    fn drop(&mut self) {
        let mut counts = self.shared.counts();
        if let Some(count) = counts.get_mut(&self.lane) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.lane);
            }
        }
        drop(counts);
        self.shared.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use orfeas_protocol::Channel;

    use super::*;

    #[tokio::test]
    async fn a_lane_is_bounded_and_a_dropped_place_makes_room() {
        let held = Held::new(2);
        let lane = |priority: u8| Lane { channel: Channel::Stable, priority: priority.try_into().unwrap() };
        let first = held.take(lane(5));
        let _second = held.take(lane(5));
        assert_eq!((held.room(lane(5)), held.room(lane(6))), (0, 2));
        drop(first);
        held.freed().await;
        assert_eq!(held.room(lane(5)), 1);
        assert!(!held.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_lane_is_left_to_others_for_a_moment() {
        let lane = |priority: u8| Lane { channel: Channel::Stable, priority: priority.try_into().unwrap() };
        let yielded = Yielded::default();
        yielded.to_others(lane(5));
        assert!(yielded.is_to_others(lane(5)) && !yielded.is_to_others(lane(6)));
        tokio::time::advance(YIELD_FOR).await;
        assert!(!yielded.is_to_others(lane(5)));
    }

    #[tokio::test]
    async fn more_is_asked_for_when_half_of_it_is_gone() {
        let lane = Lane { channel: Channel::Stable, priority: 5.try_into().unwrap() };
        let asks_while_holding = |bound: usize, holding: usize| {
            let held = Held::new(bound);
            let _places: Vec<_> = (0..holding).map(|_| held.take(lane)).collect();
            held.is_low(lane)
        };
        assert!(asks_while_holding(32, 16) && !asks_while_holding(32, 17));
        assert!(asks_while_holding(1, 0) && !asks_while_holding(1, 1));
        assert!(asks_while_holding(3, 1) && !asks_while_holding(3, 2));
    }
}
