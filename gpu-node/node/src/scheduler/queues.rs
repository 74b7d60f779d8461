//! Which queue to ask for work next.
//!
//! A work queue has a lane per channel and priority, each with its own consumer. Asking a lane costs a round
//! trip, so a lane is asked only when it may hold something: after a wake-up call, after it gave something,
//! and at each periodic scan (redelivered jobs make no wake-up call).

use orfeas_protocol::Channel;
use orfeas_protocol::options::Priority;

/// A channel's queue of one priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Lane {
    /// The channel.
    pub(crate) channel: Channel,
    /// The priority.
    pub(crate) priority: Priority,
}

impl Lane {
    /// The name of the lane's durable consumer.
    pub(crate) fn consumer_name(self) -> String {
        format!("{}-{}", self.channel, self.priority)
    }
}

/// The lanes that a node serves, the most urgent first.
#[derive(Debug, Clone)]
pub(crate) struct Lanes {
    lanes: Vec<(Lane, Expectation)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expectation {
    /// Was empty when last asked, and nobody has called since.
    Empty,
    /// May hold work.
    Maybe,
}

impl Lanes {
    /// All priorities of some channels. At the same priority, the channels take turns as they stand.
    pub(crate) fn new(channels: &[Channel]) -> Self {
        let lanes = Priority::descending()
            .flat_map(|priority| channels.iter().map(move |&channel| Lane { channel, priority }))
            .map(|lane| (lane, Expectation::Maybe))
            .collect();
        Self { lanes }
    }

    /// Every lane, the most urgent first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Lane> {
        self.lanes.iter().map(|(lane, _)| *lane)
    }

    /// The most urgent lane that may hold work.
    pub(crate) fn next(&self) -> Option<Lane> {
        self.next_of(|_| true)
    }

    /// The most urgent lane that may hold work, of those that work is wanted of.
    pub(crate) fn next_of(&self, is_wanted: impl Fn(Lane) -> bool) -> Option<Lane> {
        let mut lanes = self.lanes.iter().filter(|(_, state)| *state == Expectation::Maybe);
        lanes.find(|(lane, _)| is_wanted(*lane)).map(|(lane, _)| *lane)
    }

    /// Somebody has put work into a lane; a call for a lane of another node is nothing to us.
    pub(crate) fn call(&mut self, lane: Lane) {
        self.expect(lane, Expectation::Maybe);
    }

    /// A lane was asked and gave nothing.
    pub(crate) fn found_empty(&mut self, lane: Lane) {
        self.expect(lane, Expectation::Empty);
    }

    /// A lane gave work. Where two channels have the same priority, the other one is asked first next time.
    pub(crate) fn gave(&mut self, lane: Lane) {
        if let Some(at) = self.lanes.iter().position(|(known, _)| *known == lane) {
            let peers = self.lanes.iter().skip(at + 1);
            let later = peers.take_while(|(peer, _)| peer.priority == lane.priority).count();
            if let Some(turn) = self.lanes.get_mut(at..=at + later) {
                turn.rotate_left(1);
            }
        }
    }

    /// Every lane is worth a question again.
    pub(crate) fn call_all(&mut self) {
        for (_, state) in &mut self.lanes {
            *state = Expectation::Maybe;
        }
    }

    fn expect(&mut self, lane: Lane, expectation: Expectation) {
        if let Some((_, state)) = self.lanes.iter_mut().find(|(known, _)| *known == lane) {
            *state = expectation;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(channel: Channel, priority: u8) -> Lane {
        Lane { channel, priority: priority.try_into().unwrap() }
    }

    fn all_empty(channels: &[Channel]) -> Lanes {
        let mut lanes = Lanes::new(channels);
        for lane in lanes.clone().iter() {
            lanes.found_empty(lane);
        }
        lanes
    }

    #[test]
    fn the_highest_priority_that_may_hold_work_is_asked_first() {
        let mut lanes = all_empty(&[Channel::Stable]);
        assert_eq!(lanes.next(), None);
        lanes.call(lane(Channel::Stable, 3));
        lanes.call(lane(Channel::Stable, 8));
        assert_eq!(lanes.next(), Some(lane(Channel::Stable, 8)));
        lanes.gave(lane(Channel::Stable, 8));
        assert_eq!(lanes.next(), Some(lane(Channel::Stable, 8)), "it may hold more");
        lanes.found_empty(lane(Channel::Stable, 8));
        assert_eq!(lanes.next(), Some(lane(Channel::Stable, 3)));
    }

    #[test]
    fn a_scan_asks_every_lane_from_ten_to_one() {
        let mut lanes = all_empty(&[Channel::Stable]);
        lanes.call_all();
        let mut asked = Vec::new();
        while let Some(lane) = lanes.next() {
            asked.push(lane.priority.get());
            lanes.found_empty(lane);
        }
        assert_eq!(asked, [10, 9, 8, 7, 6, 5, 4, 3, 2, 1]);
    }

    #[test]
    fn channels_of_the_same_priority_take_turns() {
        let mut lanes = Lanes::new(&[Channel::Stable, Channel::Canary]);
        let first = lanes.next().unwrap();
        lanes.gave(first);
        let second = lanes.next().unwrap();
        assert_eq!((first.priority, second.priority), (second.priority, first.priority));
        assert_ne!(first.channel, second.channel);
        lanes.gave(second);
        assert_eq!(lanes.next(), Some(first));
    }

    #[test]
    fn a_lane_that_nothing_is_wanted_of_is_passed_over_and_keeps_its_call() {
        let mut lanes = all_empty(&[Channel::Stable]);
        lanes.call(lane(Channel::Stable, 3));
        lanes.call(lane(Channel::Stable, 8));
        let full = lane(Channel::Stable, 8);
        assert_eq!(lanes.next_of(|lane| lane != full), Some(lane(Channel::Stable, 3)));
        assert_eq!(lanes.next(), Some(full));
    }

    #[test]
    fn a_call_for_a_channel_of_another_node_is_ignored() {
        let mut lanes = all_empty(&[Channel::Stable]);
        lanes.call(lane(Channel::Canary, 10));
        assert_eq!(lanes.next(), None);
    }
}
