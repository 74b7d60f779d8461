//! When a job will be done: what is left of those before it, what is left of its own run, and how wrong such
//! answers have been of late.
//!
//! ```text
//!  running ─▶ when each server is free ─┐
//!  waiting ─▶ taken in turn ────────────┴─▶ wait ─┐
//!  own run, as far as it is ──────────────────────┴─▶ raw p50, p90 ─▶ calibration ─▶ told
//! ```

use super::spread::Spread;

/// Seconds until a job ends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// As likely later as sooner.
    pub p50_seconds: f64,
    /// Nine in ten jobs are done by then.
    pub p90_seconds: f64,
}

/// Mean and variance of a time, for sums of many.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Moments {
    /// Seconds.
    pub(crate) mean: f64,
    /// Seconds squared.
    pub(crate) variance: f64,
}

impl Moments {
    pub(crate) fn of(spread: &Spread) -> Self {
        Self { mean: spread.mean().max(0.0), variance: spread.variance().max(0.0) }
    }
}

/// The jobs before a waiting one.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Ahead {
    /// What is left of those that run.
    pub(crate) running: Vec<Moments>,
    /// Those that wait, the next first.
    pub(crate) waiting: Vec<Moments>,
    /// How many run at one time, on all nodes that serve the queue.
    pub(crate) servers: usize,
}

impl Ahead {
    /// How long until a server is free for the job behind all of these: each server takes the next waiting job as
    /// soon as it is free. The means decide who is free when; the spread of all that has to end first is shared
    /// among the servers, because one that is late leaves its share to the others.
    fn wait(&self) -> Moments {
        let servers = self.servers.max(1);
        let mut free_at = vec![0.0_f64; servers];
        let mut variance = 0.0;
        for job in self.running.iter().chain(&self.waiting) {
            if let Some(first) = free_at.iter_mut().min_by(|a, b| a.total_cmp(b)) {
                *first += job.mean;
            }
            variance += job.variance;
        }
        let mean = free_at.iter().copied().fold(f64::INFINITY, f64::min);
        let busy = mean > 0.0 && mean.is_finite();
        let share = (servers * servers) as f64;
        if busy { Moments { mean, variance: variance / share } } else { Moments::default() }
    }
}

/// The estimate of a running job, before calibration.
pub(crate) fn of_running(left: &Spread) -> Estimate {
    Estimate { p50_seconds: left.quantile(0.5).max(0.0), p90_seconds: left.quantile(0.9).max(0.0) }
}

/// The estimate of a waiting job, before calibration.
pub(crate) fn of_waiting(ahead: &Ahead, own: &Spread) -> Estimate {
    let wait = ahead.wait();
    if wait == Moments::default() {
        return of_running(own);
    }
    let own = Moments::of(own);
    log_normal(Moments { mean: wait.mean + own.mean, variance: wait.variance + own.variance })
}

/// The estimate of a running job of a kind that nobody has seen, from its progress alone; `None` too near to its
/// beginning to tell.
pub(crate) fn of_progress(elapsed_seconds: f64, fraction: f64) -> Option<Estimate> {
    (FRACTION_MIN..=1.0).contains(&fraction).then(|| {
        let p50_seconds = elapsed_seconds.max(0.0) * (1.0 - fraction) / fraction;
        Estimate { p50_seconds, p90_seconds: p50_seconds * UNKNOWN_P90_RATIO }
    })
}

/// Under this part of its way a job's pace says little.
const FRACTION_MIN: f64 = 0.1;
/// Stages that were weighted wrongly make the way look shorter or longer by such factors.
const UNKNOWN_P90_RATIO: f64 = 3.0;

/// Median and upper estimate of the log-normal distribution with these moments: sums of times are skewed to the
/// right, the less so the more of them there are, and so is it.
fn log_normal(time: Moments) -> Estimate {
    /// The standard normal distribution's 90 % quantile.
    const Z90: f64 = 1.281_551_565_5;
    let squared_sigma = (1.0 + time.variance / (time.mean * time.mean)).ln();
    let p50_seconds = time.mean * (-squared_sigma / 2.0).exp();
    Estimate { p50_seconds, p90_seconds: p50_seconds * (Z90 * squared_sigma.sqrt()).exp() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn jobs(seconds: &[f64]) -> Vec<Moments> {
        seconds.iter().map(|mean| Moments { mean: *mean, variance: 0.0 }).collect()
    }

    fn wait(running: &[f64], waiting: &[f64], servers: usize) -> f64 {
        Ahead { running: jobs(running), waiting: jobs(waiting), servers }.wait().mean
    }

    #[test]
    fn a_free_server_means_no_wait_and_busy_ones_are_waited_for_in_turn() {
        assert_eq!(wait(&[], &[], 1), 0.0);
        assert_eq!(wait(&[5.0], &[], 2), 0.0);
        assert_eq!(wait(&[5.0], &[], 1), 5.0);
        assert_eq!(wait(&[5.0, 3.0], &[], 2), 3.0);
        assert_eq!(wait(&[5.0, 3.0], &[4.0], 2), 5.0, "the one who waits takes the server that is free at 3");
        assert_eq!(wait(&[1.0], &[2.0, 3.0], 1), 6.0);
    }

    #[test]
    fn certain_times_give_certain_estimates() {
        let ahead = Ahead { running: jobs(&[2.0]), waiting: jobs(&[3.0]), servers: 1 };
        let told = of_waiting(&ahead, &Spread::certain(4.0));
        assert!((told.p50_seconds - 9.0).abs() < 1e-9 && (told.p90_seconds - 9.0).abs() < 1e-9, "{told:?}");
    }

    #[test]
    fn an_unknown_kind_is_told_from_its_pace_once_there_is_one() {
        assert_eq!(of_progress(1.0, 0.05), None);
        assert_eq!(of_progress(2.0, 0.5).unwrap().p50_seconds, 2.0);
        assert_eq!(of_progress(2.0, 1.0).unwrap().p90_seconds, 0.0);
        assert_eq!(of_progress(2.0, f64::NAN), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn one_more_job_ahead_never_shortens_the_wait_and_one_more_server_never_lengthens_it(
            running in prop::collection::vec(0.1f64..60.0, 0..4),
            waiting in prop::collection::vec(0.1f64..60.0, 0..30),
            servers in 1usize..5,
            more in 0.1f64..60.0,
        ) {
            let now = wait(&running, &waiting, servers);
            let longer: Vec<f64> = waiting.iter().copied().chain([more]).collect();
            prop_assert!(wait(&running, &longer, servers) >= now);
            prop_assert!(wait(&running, &waiting, servers + 1) <= now + 1e-9);
            prop_assert!(now >= 0.0 && now.is_finite());
        }

        #[test]
        fn estimates_are_finite_never_negative_and_in_order(
            own in prop::collection::vec(0f64..600.0, 1..20),
            ahead in prop::collection::vec((0f64..600.0, 0f64..1e5), 0..20),
        ) {
            let own = Spread::of(own.into_iter().map(|value| (value, 1.0))).unwrap();
            let waiting = ahead.into_iter().map(|(mean, variance)| Moments { mean, variance }).collect();
            let told = of_waiting(&Ahead { running: Vec::new(), waiting, servers: 2 }, &own);
            prop_assert!(told.p50_seconds >= 0.0 && told.p50_seconds <= told.p90_seconds, "{told:?}");
            prop_assert!(told.p90_seconds.is_finite());
        }
    }
}
