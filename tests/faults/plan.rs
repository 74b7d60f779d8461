//! What happens in a run, drawn from a seed before anything starts: plain data, the same for the same seed.
//!
//! The programs' own timing is theirs, so two runs of a plan do not interleave alike; but the same jobs come
//! by the same ways at the same times, and the same faults strike in the same order with the same pauses.

use std::time::Duration;

/// What goes wrong in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    /// The node is killed (SIGKILL) at random moments and started again.
    NodeKilled,
    /// `nats-server` is killed at random moments and started again on its folder.
    BusKilled,
    /// Either of them, or both at once.
    BothKilled,
    /// The results' bucket has met its bound (`retention.results_bytes_max`) until somebody makes room.
    ResultsFull,
    /// JetStream's folder lies on a file system without a free byte: a small tmpfs.
    DiskFull,
    /// A NATS subscriber to everything and HTTP clients that do not read, and uploads that do not go on.
    SlowConsumer,
    /// The wall clocks of node and edge jump, forward and back.
    ClockJump,
}

impl Scenario {
    /// In the order in which they run.
    pub const ALL: [Scenario; 7] = [
        Scenario::NodeKilled,
        Scenario::BusKilled,
        Scenario::BothKilled,
        Scenario::ResultsFull,
        Scenario::DiskFull,
        Scenario::SlowConsumer,
        Scenario::ClockJump,
    ];

    /// The name in tables and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Scenario::NodeKilled => "node-killed",
            Scenario::BusKilled => "bus-killed",
            Scenario::BothKilled => "both-killed",
            Scenario::ResultsFull => "results-full",
            Scenario::DiskFull => "disk-full",
            Scenario::SlowConsumer => "slow-consumer",
            Scenario::ClockJump => "clock-jump",
        }
    }
}

/// A blow to the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL of the node, and a start after a while.
    KillNode {
        /// How long there is none.
        away: Duration,
    },
    /// SIGKILL of `nats-server`, and a start on the same folder after a while.
    KillBus {
        /// How long there is none.
        away: Duration,
    },
    /// SIGKILL of both within the same millisecond.
    KillBoth {
        /// How long both are away.
        away: Duration,
    },
    /// The store takes no more, and after a while it does again.
    FillStore {
        /// How long it is full.
        full: Duration,
    },
    /// A client that connects and does not read.
    StopReading,
    /// The wall clock is off by this much from now on.
    SetClock {
        /// Seconds ahead of the true time.
        ahead_s: i64,
    },
}

/// The way by which a job is submitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// `POST /api/submit-job`.
    Http,
    /// `orfeas.<region>.submit`.
    Nats,
}

/// A job to submit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlannedJob {
    /// When, from the start of the run.
    pub at: Duration,
    /// By which way.
    pub way: Way,
    /// The no-op family sleeps for a millisecond in each of its steps.
    pub steps: u16,
    /// 1 to 10.
    pub priority: u8,
    /// Which of the pictures.
    pub picture: u8,
    /// Cancel it so long after it was accepted.
    pub cancel_after: Option<Duration>,
}

/// Everything that happens in a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What goes wrong.
    pub scenario: Scenario,
    /// What it was drawn from.
    pub seed: u64,
    /// In the order of their times.
    pub jobs: Vec<PlannedJob>,
    /// Each with the time that the service is left alone before it, however long it took to come back from the
    /// one before. A run whose jobs have all been submitted needs no more of them, once there were two.
    pub faults: Vec<(Duration, Fault)>,
}

/// Different pictures, so that some uploads meet a stored one and some do not.
pub const PICTURES: u8 = 6;
/// One job in so many is cancelled.
const CANCEL_ONE_IN: u64 = 16;
/// A job each so often on average: a third of what one device of the no-op family can do, the rest is for
/// what the faults hold up.
const JOB_INTERVAL_MS: u64 = 180;

impl Plan {
    /// Draws a plan for a number of jobs.
    pub fn draw(scenario: Scenario, jobs: usize, seed: u64) -> Plan {
        let mut dice = Dice::new(seed ^ (scenario as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut at = 0;
        let jobs: Vec<PlannedJob> = (0..jobs)
            .map(|_| {
                at += dice.below(2 * JOB_INTERVAL_MS);
                PlannedJob {
                    at: Duration::from_millis(at),
                    way: if dice.below(2) == 0 { Way::Http } else { Way::Nats },
                    steps: 1 + dice.below(120) as u16,
                    priority: 1 + dice.below(10) as u8,
                    picture: dice.below(u64::from(PICTURES)) as u8,
                    cancel_after: (dice.below(CANCEL_ONE_IN) == 0)
                        .then(|| Duration::from_millis(dice.below(400))),
                }
            })
            .collect();
        let faults = faults(scenario, Duration::from_millis(at), &mut dice);
        Plan { scenario, seed, jobs, faults }
    }
}

fn faults(scenario: Scenario, length: Duration, dice: &mut Dice) -> Vec<(Duration, Fault)> {
    let millis = |dice: &mut Dice, from: u64, to: u64| Duration::from_millis(from + dice.below(to - from));
    let mut faults = Vec::new();
    let mut pause = millis(dice, 100, 900);
    let mut at = pause;
    // At least two, however short the run is.
    while at < length || faults.len() < 2 {
        let fault = match scenario {
            Scenario::NodeKilled => Fault::KillNode { away: millis(dice, 0, 300) },
            Scenario::BusKilled => Fault::KillBus { away: millis(dice, 0, 500) },
            Scenario::BothKilled => match dice.below(3) {
                0 => Fault::KillNode { away: millis(dice, 0, 300) },
                1 => Fault::KillBus { away: millis(dice, 0, 500) },
                _ => Fault::KillBoth { away: millis(dice, 0, 500) },
            },
            Scenario::ResultsFull | Scenario::DiskFull => Fault::FillStore { full: millis(dice, 500, 2_500) },
            Scenario::SlowConsumer => Fault::StopReading,
            Scenario::ClockJump => {
                Fault::SetClock { ahead_s: [7_200, -3_600, 30 * 86_400, -86_400, 0][dice.below(5) as usize] }
            }
        };
        faults.push((pause, fault));
        // Long enough for a program to be hit in the middle of its work.
        pause = match scenario {
            Scenario::SlowConsumer => millis(dice, 300, 900),
            Scenario::ResultsFull | Scenario::DiskFull => millis(dice, 4_000, 7_000),
            _ => millis(dice, 300, 2_500),
        };
        at += pause;
    }
    faults
}

/// SplitMix64 (Steele, Lea, Flood 2014): small, seedable, good enough to draw moments.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// Dice that fall the same way for the same seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `bound`, which must not be 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_plan_and_another_seed_another() {
        for scenario in Scenario::ALL {
            assert_eq!(Plan::draw(scenario, 40, 7), Plan::draw(scenario, 40, 7));
            assert_ne!(Plan::draw(scenario, 40, 7).jobs, Plan::draw(scenario, 40, 8).jobs);
        }
    }

    #[test]
    fn every_plan_has_faults_in_the_midst_of_its_jobs() {
        for scenario in Scenario::ALL {
            let plan = Plan::draw(scenario, 40, 1);
            assert!(plan.faults.len() >= 2);
            assert!(plan.jobs.is_sorted_by_key(|job| job.at));
            assert!(plan.faults[0].0 < plan.jobs[39].at);
        }
    }
}
