//! Between the inference thread and the job's task: progress out, stop signals in.

use std::sync::Arc;
use std::time::{Duration, Instant as Moment};

use tokio::sync::watch;
use tokio::time::Instant;

use crate::pipeline::{Monitor, StageWeights};
use crate::recovery::Pulse;

/// Each report is a compare-and-set that the server flushes to its disk: four a second are enough for eyes.
const REPORT_INTERVAL: Duration = Duration::from_millis(250);
/// Nobody sees a stage that is over sooner; and a job that is over sooner writes its start and its end only.
const STAGE_INTERVAL: Duration = Duration::from_millis(50);

/// A job that says nothing new is reported again after this long: its caller sees that time passes.
pub(crate) const REFRESH_INTERVAL: Duration = Duration::from_secs(2);

/// Why a job should stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stop {
    /// The node shuts down: back into the queue.
    Draining,
    /// The caller wants it.
    Cancelled,
    /// The job has ended, or another node has it.
    Lost,
}

/// Tells a job to stop. Clones stand for the same signal.
#[derive(Debug, Clone)]
pub(crate) struct StopSignal(Arc<watch::Sender<Option<(Stop, Instant)>>>);

impl StopSignal {
    pub(crate) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }

    /// Raises the signal. A weightier reason replaces a lighter one.
    pub(crate) fn raise(&self, stop: Stop) {
        self.0.send_if_modified(|raised| {
            let weightier = raised.is_none_or(|(raised, _)| raised < stop);
            if weightier {
                *raised = Some((stop, Instant::now()));
            }
            weightier
        });
    }

    pub(crate) fn raised(&self) -> Option<Stop> {
        self.0.borrow().map(|(stop, _)| stop)
    }

    /// How long ago the caller's wish to stop came here, if it is the weightiest reason.
    pub(crate) fn cancelled_for(&self) -> Option<Duration> {
        match *self.0.borrow() {
            Some((Stop::Cancelled, at)) => Some(at.elapsed()),
            _ => None,
        }
    }

    /// Waits for the signal.
    pub(crate) async fn wait(&self) -> Stop {
        let mut receiver = self.0.subscribe();
        match receiver.wait_for(Option::is_some).await.map(|raised| *raised) {
            Ok(Some((stop, _))) => stop,
            // `self` holds the sender, so the channel stays open.
            _ => std::future::pending().await,
        }
    }
}

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) stage: &'static str,
    /// Of the whole job, 0 to 1,000.
    pub(crate) permille: u16,
}

impl Progress {
    /// As callers see it.
    pub(crate) fn percent(self) -> u8 {
        u8::try_from(self.permille / 10).unwrap_or(100)
    }

    /// Of the whole job, 0 to 1.
    pub(crate) fn fraction(self) -> f32 {
        f32::from(self.permille) / 1_000.0
    }
}

/// What the pipeline gets.
#[derive(Debug)]
pub(crate) struct JobMonitor {
    stop: StopSignal,
    pulse: Arc<Pulse>,
    progress: watch::Sender<Option<Progress>>,
    weights: StageWeights,
}

impl JobMonitor {
    /// A monitor, and the receiver of the latest progress.
    pub(crate) fn new(
        stop: StopSignal,
        pulse: Arc<Pulse>,
        weights: StageWeights,
    ) -> (Self, watch::Receiver<Option<Progress>>) {
        let (progress, receiver) = watch::channel(None);
        (Self { stop, pulse, progress, weights }, receiver)
    }
}

impl Monitor for JobMonitor {
    fn progress(&mut self, stage: &'static str, fraction: f32) {
        self.pulse.beat(Moment::now());
        // `as` saturates, and takes NaN to 0.
        let permille = (fraction * 1_000.0) as u16;
        self.progress.send_replace(Some(Progress { stage, permille: permille.min(1_000) }));
    }

    fn weights(&self) -> StageWeights {
        self.weights
    }

    fn is_cancelled(&self) -> bool {
        let now = Moment::now();
        self.pulse.beat(now);
        self.pulse.is_overdue(now) || self.stop.raised().is_some()
    }
}

/// When the latest progress is to be reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    Now,
    At(Instant),
}

/// Thins reports out: a new stage after [`STAGE_INTERVAL`], a new percent after [`REPORT_INTERVAL`], nothing new after
/// [`REFRESH_INTERVAL`].
#[derive(Debug)]
pub(crate) struct ReportGate {
    last: Option<Progress>,
    at: Instant,
}

impl ReportGate {
    /// Of a job whose start was written just now.
    pub(crate) fn new(now: Instant) -> Self {
        Self { last: None, at: now }
    }

    pub(crate) fn due(&self, progress: Progress, now: Instant) -> Due {
        let interval = match self.last {
            Some(last) if last.stage == progress.stage && last.percent() == progress.percent() => {
                REFRESH_INTERVAL
            }
            Some(last) if last.stage == progress.stage => REPORT_INTERVAL,
            _ => STAGE_INTERVAL,
        };
        let at = self.at + interval;
        if now >= at { Due::Now } else { Due::At(at) }
    }

    pub(crate) fn reported(&mut self, progress: Progress, now: Instant) {
        (self.last, self.at) = (Some(progress), now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recovery::PulseLimits;

    fn pulse(run: Duration) -> Arc<Pulse> {
        let limits = PulseLimits { run, silence: Duration::from_secs(60) };
        Arc::new(Pulse::begin(limits, Moment::now()))
    }

    fn monitor(stop: StopSignal) -> (JobMonitor, watch::Receiver<Option<Progress>>) {
        JobMonitor::new(stop, pulse(Duration::from_secs(60)), StageWeights::default())
    }

    fn shape(percent: u16) -> Progress {
        Progress { stage: "shape", permille: 10 * percent }
    }

    #[test]
    fn a_new_stage_is_reported_soon_and_percents_four_times_a_second() {
        let start = Instant::now();
        let mut gate = ReportGate::new(start);
        assert_eq!(gate.due(shape(1), start), Due::At(start + STAGE_INTERVAL));
        assert_eq!(gate.due(shape(1), start + STAGE_INTERVAL), Due::Now);
        gate.reported(shape(1), start);
        assert_eq!(gate.due(shape(1), start + REPORT_INTERVAL * 2), Due::At(start + REFRESH_INTERVAL));
        assert_eq!(gate.due(shape(1), start + REFRESH_INTERVAL), Due::Now);
        assert_eq!(gate.due(shape(2), start), Due::At(start + REPORT_INTERVAL));
        assert_eq!(gate.due(shape(2), start + REPORT_INTERVAL), Due::Now);
        let texture = Progress { stage: "texture", permille: 10 };
        assert_eq!(gate.due(texture, start), Due::At(start + STAGE_INTERVAL));
        assert_eq!(gate.due(texture, start + STAGE_INTERVAL), Due::Now);
    }

    #[test]
    fn a_weightier_stop_replaces_a_lighter_one_but_not_the_other_way_round() {
        let signal = StopSignal::new();
        signal.raise(Stop::Draining);
        signal.raise(Stop::Cancelled);
        signal.raise(Stop::Draining);
        assert_eq!(signal.raised(), Some(Stop::Cancelled));
    }

    #[test]
    fn fractions_outside_of_their_range_are_held_at_its_ends() {
        let (mut monitor, receiver) = monitor(StopSignal::new());
        for (fraction, percent) in [(-1.0, 0), (f32::NAN, 0), (0.429, 42), (7.0, 100)] {
            monitor.progress("shape", fraction);
            assert_eq!(receiver.borrow().map(Progress::percent), Some(percent));
        }
    }

    #[tokio::test]
    async fn the_pipeline_sees_a_raised_signal() {
        let signal = StopSignal::new();
        let (monitor, _receiver) = monitor(signal.clone());
        assert!(!monitor.is_cancelled());
        signal.raise(Stop::Cancelled);
        assert!(monitor.is_cancelled());
        assert_eq!(signal.wait().await, Stop::Cancelled);
    }

    #[test]
    fn a_run_over_its_time_is_asked_to_stop() {
        let (monitor, _receiver) =
            JobMonitor::new(StopSignal::new(), pulse(Duration::ZERO), StageWeights::default());
        assert!(monitor.is_cancelled());
    }
}
