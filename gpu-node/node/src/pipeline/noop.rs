//! The no-op family, for measuring what everything around the pipeline costs and for fault tests that need many jobs
//! soon: every job makes the same tetrahedron, whatever its picture, through none of the stages' work.
//!
//! It is there only when asked for (`--noop-family`). A request's `steps` script its time: it sleeps for a millisecond
//! after each step but the last, spread over all stages, and reports and stops between them as a real one does.

mod fault;

use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::thread::sleep;
use std::time::Duration;

use orfeas_geometry::{Mesh, MeshReport, Model};
use orfeas_protocol::options::ModelFormat;

use super::engine::{LoadedModel, ModelSource};
use super::family::{Family, ReadyMade, Shape, Subject};
use super::stage::{Stage, Steps, Track};
use super::{PipelineError, Settings, export};
use fault::Fault;

/// The family's name in requests.
pub(crate) const NOOP_FAMILY: &str = "noop";

/// What a step costs, but the last.
const STEP_TIME: Duration = Duration::from_millis(1);

/// Where the family comes from: nowhere, and it weighs nothing.
#[derive(Debug)]
pub(super) struct NoopSource {
    faults: Option<PathBuf>,
}

impl NoopSource {
    /// For a node with this models folder, see [`fault`].
    pub(super) fn new(models: Option<&Path>) -> Self {
        Self { faults: models.map(Fault::file) }
    }
}

impl ModelSource for NoopSource {
    fn family(&self) -> &'static str {
        NOOP_FAMILY
    }

    fn fingerprint(&self) -> Result<String, PipelineError> {
        Ok("1".to_owned())
    }

    fn resident_bytes(&self) -> u64 {
        0
    }

    fn job_bytes(&self, _settings: &Settings) -> u64 {
        0
    }

    fn load(&self, _version: &str) -> Result<LoadedModel, PipelineError> {
        Ok(LoadedModel::new(Noop { faults: self.faults.clone() }))
    }
}

/// Makes a tetrahedron.
#[derive(Debug)]
struct Noop {
    faults: Option<PathBuf>,
}

impl Family for Noop {
    fn shape(&self, _: &Subject, _: &Settings, _: &mut Steps<'_, '_>) -> Result<Shape, PipelineError> {
        // Never asked: `ready_made` comes first.
        Err(PipelineError::NotSupported(format!("a shape of family {NOOP_FAMILY}")))
    }

    fn ready_made(
        &self,
        settings: &Settings,
        track: &mut Track<'_>,
    ) -> Option<Result<ReadyMade, PipelineError>> {
        Some(match self.faults.as_deref().and_then(Fault::take) {
            Some(fault) => fault.act_out(),
            None => make(settings, track),
        })
    }
}

fn make(settings: &Settings, track: &mut Track<'_>) -> Result<ReadyMade, PipelineError> {
    let sleeps = u32::from(settings.steps.saturating_sub(1));
    let stages = Stage::ALL.len() as u32;
    for (index, stage) in (0u32..).zip(Stage::ALL) {
        // Rounded so that the parts add up to the whole.
        let (begin, end) = (sleeps * index / stages, sleeps * (index + 1) / stages);
        track.run(stage, |steps| {
            for step in begin..end {
                sleep(STEP_TIME);
                steps.advance((step + 1 - begin) as f32 / (end - begin) as f32)?;
            }
            Ok(())
        })?;
    }
    let (model, report) = TETRAHEDRON.as_ref().map_err(|reason| PipelineError::Geometry(reason.clone()))?;
    // GLB is what nearly every request asks for.
    let file = match (settings.format, GLB.as_ref()) {
        (ModelFormat::Glb, Ok(file)) => file.clone(),
        (format, _) => export::write(model, format)?,
    };
    Ok(ReadyMade { file, report: report.clone() })
}

static TETRAHEDRON: LazyLock<Result<(Model, MeshReport), String>> = LazyLock::new(|| {
    let positions = vec![[-0.5, -0.5, 0.5], [0.5, -0.5, -0.5], [-0.5, 0.5, -0.5], [0.5, 0.5, 0.5]];
    let triangles = vec![[0, 1, 3], [0, 2, 1], [0, 3, 2], [1, 2, 3]];
    let mesh = Mesh::new(positions, triangles).map_err(|error| error.to_string())?;
    let report = MeshReport::of(&mesh);
    Ok((Model::untextured(mesh), report))
});

static GLB: LazyLock<Result<Vec<u8>, String>> = LazyLock::new(|| {
    let (model, _) = TETRAHEDRON.as_ref().map_err(Clone::clone)?;
    export::write(model, ModelFormat::Glb).map_err(|error| error.to_string())
});

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use orfeas_protocol::options::JobOptions;

    use super::*;
    use crate::pipeline::Monitor;

    #[derive(Default)]
    struct Recorder {
        fractions: Vec<f32>,
        cancelled_after: Option<usize>,
    }

    impl Monitor for Recorder {
        fn progress(&mut self, _stage: &'static str, fraction: f32) {
            self.fractions.push(fraction);
        }

        fn is_cancelled(&self) -> bool {
            self.cancelled_after.is_some_and(|calls| self.fractions.len() >= calls)
        }
    }

    fn settings(steps: u16) -> Settings {
        Settings::decide(&JobOptions { steps: Some(steps), ..JobOptions::default() })
    }

    #[test]
    fn it_makes_a_closed_tetrahedron_that_points_outward() {
        let mut recorder = Recorder::default();
        let made = make(&settings(1), &mut Track::new(&mut recorder)).unwrap();
        assert_eq!(&made.file[..4], b"glTF");
        assert_eq!((made.report.faces, made.report.watertight, made.report.manifold), (4, true, true));
        assert!(made.report.volume > 0.0);
    }

    #[test]
    fn steps_take_their_time_report_and_are_stopped() {
        let mut recorder = Recorder::default();
        let began = Instant::now();
        make(&settings(21), &mut Track::new(&mut recorder)).unwrap();
        assert!(began.elapsed() >= 20 * STEP_TIME);
        assert_eq!(recorder.fractions.len(), 20 + Stage::ALL.len());
        assert!(recorder.fractions.is_sorted());
        let mut stopped = Recorder { cancelled_after: Some(10), ..Recorder::default() };
        let outcome = make(&settings(200), &mut Track::new(&mut stopped));
        assert!(matches!(outcome, Err(PipelineError::Cancelled)));
        assert_eq!(stopped.fractions.len(), 10);
    }
}
