//! The stages as users see them, and how much of a job each one is.

use std::time::Instant;

use super::{Monitor, PipelineError};

/// A stage of the pipeline, in the order in which they run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Read the picture.
    Decode,
    /// Cut the subject out.
    Background,
    /// Make the shape: the family's own work.
    Shape,
    /// Turn the shape into triangles.
    Surface,
    /// Remove floaters and defects.
    Cleanup,
    /// Reduce the triangles to the requested number.
    Simplify,
    /// Paint the surface.
    Texture,
    /// Write the file.
    Export,
}

impl Stage {
    /// In the order in which they run.
    pub const ALL: [Stage; 8] = [
        Stage::Decode,
        Stage::Background,
        Stage::Shape,
        Stage::Surface,
        Stage::Cleanup,
        Stage::Simplify,
        Stage::Texture,
        Stage::Export,
    ];

    /// The name that job objects and metrics carry.
    pub const fn as_str(self) -> &'static str {
        match self {
            Stage::Decode => "decode",
            Stage::Background => "background",
            Stage::Shape => "shape",
            Stage::Surface => "surface",
            Stage::Cleanup => "cleanup",
            Stage::Simplify => "simplify",
            Stage::Texture => "texture",
            Stage::Export => "export",
        }
    }

    /// Its place in [`Self::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The stage of a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stage| stage.as_str() == name)
    }
}

/// How much of a job each stage is, in parts that add up to one. Measured on jobs like it where there are any.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StageWeights([f32; Stage::ALL.len()]);

impl Default for StageWeights {
    /// Measured on two CPU cores with the `silhouette` family and the default preset.
    fn default() -> Self {
        Self([0.05, 0.30, 0.15, 0.10, 0.05, 0.15, 0.12, 0.08])
    }
}

impl StageWeights {
    /// From the seconds that each stage takes, in the order of [`Stage::ALL`]. `None` when nothing takes any time.
    pub fn of_seconds(seconds: [f64; Stage::ALL.len()]) -> Option<Self> {
        let seconds = seconds.map(|seconds| if seconds.is_finite() { seconds.max(0.0) } else { 0.0 });
        let total: f64 = seconds.iter().sum();
        (total > 0.0 && total.is_finite()).then(|| Self(seconds.map(|seconds| (seconds / total) as f32)))
    }

    /// The part of a job that a stage is.
    pub fn share(&self, stage: Stage) -> f32 {
        self.0.get(stage.index()).copied().unwrap_or(0.0)
    }

    /// The part of a job that is done when a stage begins.
    pub fn start(&self, stage: Stage) -> f32 {
        self.0.iter().take(stage.index()).sum::<f32>().min(1.0)
    }

    /// The part of a job that is done when `within` of a stage is.
    pub fn done(&self, stage: Stage, within: f32) -> f32 {
        (self.start(stage) + within.clamp(0.0, 1.0) * self.share(stage)).min(1.0)
    }

    /// The reverse of [`Self::done`]: how much of the stage is done when `done` of the job is. 0 for a stage that is
    /// no part of the job.
    pub fn within(&self, stage: Stage, done: f32) -> f32 {
        let share = self.share(stage);
        if share > 0.0 { ((done - self.start(stage)) / share).clamp(0.0, 1.0) } else { 0.0 }
    }
}

/// A job on its way through the stages: tells the monitor, takes the times, stops when asked to.
pub(crate) struct Track<'a> {
    monitor: &'a mut dyn Monitor,
    weights: StageWeights,
    /// What the monitor has been told.
    done: f32,
    seconds: Vec<(&'static str, f64)>,
}

impl<'a> Track<'a> {
    pub(crate) fn new(monitor: &'a mut dyn Monitor) -> Self {
        let weights = monitor.weights();
        Self { monitor, weights, done: 0.0, seconds: Vec::new() }
    }

    /// Runs a stage.
    ///
    /// # Errors
    /// [`PipelineError::Cancelled`] instead of starting, or what the stage answers.
    pub(crate) fn run<T>(
        &mut self,
        stage: Stage,
        work: impl FnOnce(&mut Steps<'_, 'a>) -> Result<T, PipelineError>,
    ) -> Result<T, PipelineError> {
        let mut steps = Steps { track: self, stage };
        steps.advance(0.0)?;
        let start = Instant::now();
        let outcome = work(&mut steps);
        self.seconds.push((stage.as_str(), start.elapsed().as_secs_f64()));
        outcome
    }

    /// Tells the monitor that all is done, and gives the stages' wall times.
    pub(crate) fn finish(self) -> Vec<(&'static str, f64)> {
        self.monitor.progress(Stage::Export.as_str(), 1.0);
        self.seconds
    }
}

/// Told inside a stage how much of it is done, 0 to 1: goes on, or ends the stage because the job should stop.
/// [`Steps::advance`] for who needs no more of it.
pub(crate) type Tick<'t> = dyn FnMut(f32) -> Result<(), PipelineError> + 't;

/// The same over a part of the work.
pub(crate) fn within<'t>(
    tick: &'t mut Tick<'_>,
    from: f32,
    to: f32,
) -> impl FnMut(f32) -> Result<(), PipelineError> + 't {
    move |done| tick(from + (to - from) * done)
}

/// The inside of a stage, for those that take long enough to report and to be stopped.
pub(crate) struct Steps<'t, 'a> {
    track: &'t mut Track<'a>,
    stage: Stage,
}

impl Steps<'_, '_> {
    /// `fraction` of the stage is done.
    ///
    /// # Errors
    /// [`PipelineError::Cancelled`] when the job should stop.
    pub(crate) fn advance(&mut self, fraction: f32) -> Result<(), PipelineError> {
        if self.track.monitor.is_cancelled() {
            return Err(PipelineError::Cancelled);
        }
        let track = &mut *self.track;
        // A stage that is told of twice, or a part that begins anew, does not take back what was told.
        track.done = track.done.max(track.weights.done(self.stage, fraction));
        track.monitor.progress(self.stage.as_str(), track.done);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    struct Seen(Vec<f32>, StageWeights);

    impl Monitor for Seen {
        fn progress(&mut self, _stage: &'static str, fraction: f32) {
            self.0.push(fraction);
        }

        fn is_cancelled(&self) -> bool {
            false
        }

        fn weights(&self) -> StageWeights {
            self.1
        }
    }

    #[test]
    fn shares_add_up_to_one_job_and_stages_stand_at_their_index() {
        let weights = StageWeights::default();
        assert!((Stage::ALL.map(|stage| weights.share(stage)).iter().sum::<f32>() - 1.0).abs() < 1e-6);
        for (index, stage) in Stage::ALL.into_iter().enumerate() {
            assert_eq!((stage.index(), Stage::named(stage.as_str())), (index, Some(stage)));
        }
    }

    #[test]
    fn weights_of_nothing_are_none() {
        assert_eq!(StageWeights::of_seconds([0.0; 8]), None);
        assert_eq!(StageWeights::of_seconds([f64::NAN; 8]), None);
        let one = StageWeights::of_seconds([0.0, 0.0, 3.0, f64::NAN, -1.0, 0.0, 1.0, 0.0]).unwrap();
        assert_eq!((one.share(Stage::Shape), one.start(Stage::Texture)), (0.75, 0.75));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn progress_never_falls_whatever_the_weights_and_ends_at_one(
            seconds in prop::array::uniform8(0.0f64..100.0),
            left_out in prop::array::uniform8(prop::bool::weighted(0.2)),
            reports in prop::array::uniform8(prop::collection::vec(-0.5f32..1.5, 0..6)),
        ) {
            let weights = StageWeights::of_seconds(seconds).unwrap_or_default();
            let mut seen = Seen(Vec::new(), weights);
            let mut track = Track::new(&mut seen);
            for stage in Stage::ALL {
                if !left_out[stage.index()] {
                    let told: Result<(), PipelineError> = track.run(stage, |steps| {
                        reports[stage.index()].iter().try_for_each(|within| steps.advance(*within))
                    });
                    told.unwrap();
                }
            }
            track.finish();
            prop_assert!(seen.0.is_sorted() && seen.0.iter().all(|done| (0.0..=1.0).contains(done)));
            prop_assert_eq!(seen.0.last(), Some(&1.0));
        }

        #[test]
        fn a_stages_part_is_found_again_in_the_whole(
            seconds in prop::array::uniform8(0.1f64..10.0),
            stage in 0usize..8,
            within in 0.0f32..=1.0,
        ) {
            let weights = StageWeights::of_seconds(seconds).unwrap();
            let stage = Stage::ALL[stage];
            prop_assert!((weights.within(stage, weights.done(stage, within)) - within).abs() < 1e-3);
        }
    }
}
