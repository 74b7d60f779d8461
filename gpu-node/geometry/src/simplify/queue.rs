//! Candidates in the order of their errors, to within a sixteenth of an octave.
//!
//! Collapses that differ by a few per cent in harm may go in any order, so the errors' leading bits choose one of a
//! few thousand first-in-first-out buckets. A heap keeps an order that nobody needs, and half the time of a
//! simplification went into its cache misses.

use std::collections::VecDeque;

/// Of the 32 bits of a float, sign, exponent and four bits of the fraction stay.
const DROPPED_BITS: u32 = 19;
/// Non-negative floats only: the sign bit is never set.
const BUCKETS: usize = 1 << (31 - DROPPED_BITS);

/// An edge in the queue. Its error is out of date once either end has moved: `stamp` tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) half_edge: u32,
    pub(super) stamp: u32,
}

/// The queue.
pub(super) struct ErrorQueue {
    buckets: Vec<VecDeque<Candidate>>,
    /// No bucket below has a candidate.
    lowest: usize,
}

impl ErrorQueue {
    pub(super) fn new() -> Self {
        Self { buckets: vec![VecDeque::new(); BUCKETS], lowest: BUCKETS }
    }

    /// Adds a candidate; `error` is not negative.
    pub(super) fn push(&mut self, error: f64, candidate: Candidate) {
        let bucket = bucket(error);
        self.buckets[bucket].push_back(candidate);
        self.lowest = self.lowest.min(bucket);
    }

    /// Whether a candidate with this error has to wait for others.
    pub(super) fn is_behind(&self, error: f64) -> bool {
        bucket(error) > self.lowest
    }

    /// Takes a candidate with about the least error; of those, the first that came.
    pub(super) fn pop(&mut self) -> Option<Candidate> {
        while let Some(bucket) = self.buckets.get_mut(self.lowest) {
            match bucket.pop_front() {
                Some(candidate) => return Some(candidate),
                None => self.lowest += 1,
            }
        }
        None
    }
}

fn bucket(error: f64) -> usize {
    (((error as f32).to_bits() >> DROPPED_BITS) as usize).min(BUCKETS - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lesser_errors_come_first_and_equal_ones_in_turn() {
        let mut queue = ErrorQueue::new();
        for (half_edge, error) in [5.0, 1e-30, 5.0, 0.0, f64::INFINITY, 1e9].into_iter().enumerate() {
            queue.push(error, Candidate { half_edge: half_edge as u32, stamp: 0 });
        }
        let mut order: Vec<u32> = std::iter::from_fn(|| queue.pop()).map(|next| next.half_edge).collect();
        assert_eq!(order, [3, 1, 0, 2, 5, 4]);
        queue.push(2.0, Candidate { half_edge: 9, stamp: 0 });
        order = queue.pop().into_iter().map(|next| next.half_edge).collect();
        assert_eq!(order, [9]);
    }
}
