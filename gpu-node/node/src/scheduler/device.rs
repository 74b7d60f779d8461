//! Which of the taken jobs gets the device: the most urgent, and among equals the one that came first.
//!
//! A node takes a few jobs ahead so that their pictures are there when the device is free. Without this line
//! an urgent job would wait behind all of those; with it, it waits for at most the one that runs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use orfeas_protocol::options::Priority;
use tokio::sync::oneshot;

/// The line in front of one device. Clones stand for the same line.
#[derive(Debug, Clone, Default)]
pub struct DeviceQueue {
    line: Arc<Mutex<Line<oneshot::Sender<DeviceSlot>>>>,
}

/// The right to use the device. Dropping it calls the next in line.
#[derive(Debug)]
pub struct DeviceSlot {
    queue: DeviceQueue,
}

impl DeviceQueue {
    /// Waits for the device. Dropping the future leaves the line.
    pub async fn acquire(&self, priority: Priority) -> DeviceSlot {
        let (sender, receiver) = oneshot::channel();
        let called = self.line().arrive(priority, sender);
        self.call(called);
        match receiver.await {
            Ok(slot) => slot,
            // The line holds the sender until it has called; it outlives this borrow of the queue.
            Err(_closed) => std::future::pending().await,
        }
    }

    /// Hands the device over. Who has left in the meantime drops the slot, and that calls the next.
    fn call(&self, called: Option<oneshot::Sender<DeviceSlot>>) {
        if let Some(sender) = called {
            drop(sender.send(DeviceSlot { queue: self.clone() }));
        }
    }

    fn line(&self) -> MutexGuard<'_, Line<oneshot::Sender<DeviceSlot>>> {
        // No code that can panic runs under this lock; a poisoned one is as good as any.
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for DeviceSlot {
    fn drop(&mut self) {
        let called = self.queue.line().leave();
        self.queue.call(called);
    }
}

/// A line with one place at its counter.
#[derive(Debug)]
struct Line<T> {
    taken: bool,
    arrivals: u64,
    /// By urgency, then by arrival: the last is next.
    waiting: BTreeMap<(Priority, std::cmp::Reverse<u64>), T>,
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self { taken: false, arrivals: 0, waiting: BTreeMap::new() }
    }
}

impl<T> Line<T> {
    /// Somebody arrives; who is called to the counter now, if anybody.
    fn arrive(&mut self, priority: Priority, who: T) -> Option<T> {
        if !self.taken {
            self.taken = true;
            return Some(who);
        }
        self.arrivals += 1;
        self.waiting.insert((priority, std::cmp::Reverse(self.arrivals)), who);
        None
    }

    /// The counter is free; who is called to it now, if anybody.
    fn leave(&mut self) -> Option<T> {
        let next = self.waiting.pop_last().map(|(_, who)| who);
        self.taken = next.is_some();
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(priority: u8) -> Priority {
        priority.try_into().unwrap()
    }

    #[test]
    fn the_most_urgent_goes_first_and_equals_in_order_of_arrival() {
        let mut line = Line::default();
        assert_eq!(line.arrive(level(1), "first"), Some("first"), "nobody was there");
        for (priority, who) in [(5, "a"), (9, "b"), (5, "c"), (9, "d")] {
            assert_eq!(line.arrive(level(priority), who), None);
        }
        let order: Vec<_> = std::iter::from_fn(|| line.leave()).collect();
        assert_eq!(order, ["b", "d", "a", "c"]);
        assert_eq!(line.arrive(level(1), "next"), Some("next"), "the line is empty again");
    }

    #[tokio::test]
    async fn one_at_a_time_and_those_who_left_are_passed_over() {
        let queue = DeviceQueue::default();
        let running = queue.acquire(level(5)).await;
        let mut low = Box::pin(queue.acquire(level(3)));
        let mut high = Box::pin(queue.acquire(level(8)));
        assert!(futures::poll!(low.as_mut()).is_pending());
        assert!(futures::poll!(high.as_mut()).is_pending());
        drop(running);
        drop(high);
        let slot = low.await;
        let mut next = Box::pin(queue.acquire(level(10)));
        assert!(futures::poll!(next.as_mut()).is_pending(), "the device is taken");
        drop(slot);
        drop(next.await);
    }
}
