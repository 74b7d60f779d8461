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
}

impl Stage {
    /// The part of a job's time that the stage takes, roughly: measured on two CPU cores with the default preset.
    const fn share(self) -> f32 {
        match self {
            Stage::Decode => 0.05,
            Stage::Background => 0.30,
            Stage::Shape => 0.15,
            Stage::Surface => 0.10,
            Stage::Cleanup => 0.05,
            Stage::Simplify => 0.15,
            Stage::Texture => 0.12,
            Stage::Export => 0.08,
        }
    }

    /// The part of a job that is done when the stage begins.
    fn start(self) -> f32 {
        Stage::ALL.iter().take_while(|stage| **stage < self).map(|stage| stage.share()).sum()
    }
}

/// A job on its way through the stages: tells the monitor, takes the times, stops when asked to.
pub(crate) struct Track<'a> {
    monitor: &'a mut dyn Monitor,
    seconds: Vec<(&'static str, f64)>,
}

impl<'a> Track<'a> {
    pub(crate) fn new(monitor: &'a mut dyn Monitor) -> Self {
        Self { monitor, seconds: Vec::new() }
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
        let done = self.stage.start() + fraction.clamp(0.0, 1.0) * self.stage.share();
        self.track.monitor.progress(self.stage.as_str(), done.min(1.0));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_to_one_job() {
        assert!((Stage::ALL.map(Stage::share).iter().sum::<f32>() - 1.0).abs() < 1e-6);
    }
}
