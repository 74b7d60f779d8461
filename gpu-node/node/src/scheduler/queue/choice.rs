//! Which job starts: the decision alone, which changes nothing.

use orfeas_protocol::Timestamp;

use super::lines::{BANDS, Turn};
use super::{Fit, JobQueue};

/// What [`JobQueue::choose`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    Start { turn: Turn, passes: Option<Turn> },
    Never(Turn),
    NoRoom(Turn),
    Reserve(Turn),
    Nothing,
}

impl<K: Ord + Clone> JobQueue<K> {
    /// The first job in order that may start, or what else is to be done about one. `fit` is asked once per kind.
    pub(super) fn choose(&self, now: Timestamp, mut fit: impl FnMut(&K) -> Fit) -> Choice {
        if let Some(reserved) = self.reservation
            && let Some(waiting) = self.jobs.get(&reserved.turn)
        {
            return match fit(&waiting.job.kind) {
                Fit::Warm | Fit::Cold => Choice::Start { turn: reserved.turn, passes: None },
                Fit::Never => Choice::Never(reserved.turn),
                Fit::NotNow if now.since(reserved.since) >= self.policy.reservation_max => {
                    Choice::NoRoom(reserved.turn)
                }
                Fit::NotNow => Choice::Nothing,
            };
        }
        let mut known: Vec<(&K, Fit)> = Vec::new();
        let mut fit_of = |kind| match known.iter().find(|(known, _)| *known == kind) {
            Some((_, fit)) => *fit,
            None => {
                let answer = fit(kind);
                known.push((kind, answer));
                answer
            }
        };
        let mut first = None;
        for band in (0..BANDS).rev() {
            // The band's first fitting job, and whether its model is loaded.
            let mut best = None;
            for (used, turn, kind) in self.lines.heads(band) {
                let first = *first.get_or_insert(turn);
                let fit = fit_of(kind);
                match (fit, best) {
                    (Fit::Never, _) => return Choice::Never(turn),
                    (Fit::NotNow, _)
                        if turn == first && self.passed_over(first) >= self.policy.bypass_max =>
                    {
                        return Choice::Reserve(turn);
                    }
                    (Fit::NotNow, _) => {}
                    (Fit::Cold, None) => best = Some((used, turn)),
                    (Fit::Cold, Some(_)) => {}
                    (Fit::Warm, None) => return start(turn, first),
                    (Fit::Warm, Some((best_used, best))) => {
                        let near = used.since(best_used) <= self.policy.affinity_window;
                        let may_pass = best != first || self.passed_over(first) < self.policy.affinity_max;
                        return start(if near && may_pass { turn } else { best }, first);
                    }
                }
            }
            if let (Some((_, turn)), Some(first)) = (best, first) {
                return start(turn, first);
            }
        }
        Choice::Nothing
    }

    fn passed_over(&self, turn: Turn) -> u32 {
        self.jobs.get(&turn).map_or(0, |waiting| waiting.passed_over)
    }
}

/// A start that passes the first in order, if it is another.
fn start(turn: Turn, first: Turn) -> Choice {
    Choice::Start { turn, passes: (turn != first).then_some(first) }
}
