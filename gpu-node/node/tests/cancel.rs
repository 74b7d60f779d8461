//! A job that is cancelled stops at its next look, and looks often in every stage: looks are counted, as times are the
//! machine's.
#![allow(clippy::unwrap_used, reason = "a test's helpers fail as its assertions do")]

use std::io::Cursor;
use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use image::{ImageFormat, Rgb, RgbImage};
use orfeas_node::pipeline::{
    GenerationRequest, Inference, InferenceConfig, Monitor, PipelineError, Settings, Stage, generate,
};
use orfeas_protocol::options::{JobOptions, JobType};

/// Notes the stage at each look, and cancels at one of them.
struct Looking {
    stage: &'static str,
    looks: Arc<Mutex<Vec<&'static str>>>,
    cancel_at: usize,
}

impl Monitor for Looking {
    fn progress(&mut self, stage: &'static str, _fraction: f32) {
        self.stage = stage;
    }

    fn is_cancelled(&self) -> bool {
        let mut looks = self.looks.lock().unwrap();
        looks.push(self.stage);
        looks.len() >= self.cancel_at
    }
}

/// A red disc on a blue ground that has to be found by its colour.
fn picture() -> Bytes {
    let picture = RgbImage::from_fn(96, 96, |x, y| {
        let inside = (x as f32 - 48.0).hypot(y as f32 - 48.0) < 30.0;
        if inside { Rgb([200, 40, 30]) } else { Rgb([60, 90, 160]) }
    });
    let mut file = Cursor::new(Vec::new());
    picture.write_to(&mut file, ImageFormat::Png).unwrap();
    file.into_inner().into()
}

async fn run(
    inference: &Inference,
    family: &str,
    options: &JobOptions,
    cancel_at: usize,
) -> (Result<(), PipelineError>, Vec<&'static str>) {
    let looks: Arc<Mutex<Vec<_>>> = Arc::default();
    let monitor = Looking { stage: "", looks: looks.clone(), cancel_at };
    let settings = Settings::decide(options);
    let request = GenerationRequest { image: picture(), job_type: JobType::Generation3d, settings };
    let outcome = generate(inference, Some(family), request, Box::new(monitor)).await.outcome;
    let looks = std::mem::take(&mut *looks.lock().unwrap());
    (outcome.map(drop), looks)
}

/// The fewest looks in each stage of a small job: what a stage of a large job does in addition, it does between more
/// looks.
const LOOKS_MIN: [(Stage, usize); 8] = [
    (Stage::Decode, 3),
    (Stage::Background, 12),
    (Stage::Shape, 6),
    (Stage::Surface, 50),
    (Stage::Cleanup, 6),
    (Stage::Simplify, 6),
    (Stage::Texture, 12),
    (Stage::Export, 5),
];

async fn check(inference: &Inference, family: &str, options: &JobOptions, stages: &[(Stage, usize)]) {
    let (outcome, looks) = run(inference, family, options, usize::MAX).await;
    outcome.unwrap();
    for &(stage, least) in stages {
        let within = |look: &usize| looks.get(*look).is_some_and(|name| *name == stage.as_str());
        let of_stage: Vec<usize> = (0..looks.len()).filter(within).collect();
        assert!(of_stage.len() >= least, "{stage:?} of {family} looks {} times", of_stage.len());
        for look in [of_stage[0], of_stage[of_stage.len() / 2], of_stage[of_stage.len() - 1]] {
            let (outcome, seen) = run(inference, family, options, look + 1).await;
            assert!(matches!(outcome, Err(PipelineError::Cancelled)), "{stage:?} of {family}: {outcome:?}");
            assert_eq!((seen.len(), seen[look]), (look + 1, stage.as_str()), "looks after the cancel");
        }
    }
}

#[tokio::test]
async fn each_stage_of_a_silhouette_stops_at_its_next_look() {
    let inference = Inference::start(InferenceConfig::default()).unwrap();
    let options =
        JobOptions { quality: Some(1), steps: Some(20), target_faces: Some(2000), ..JobOptions::default() };
    check(&inference, "silhouette", &options, &LOOKS_MIN).await;
}

#[tokio::test]
async fn the_shape_of_a_neural_model_stops_at_its_next_look() {
    let miniature = Path::new(env!("CARGO_MANIFEST_DIR")).join("../nets/tests/golden/mini_checkpoint");
    let models = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(miniature.canonicalize().unwrap(), models.path().join("hunyuan3d-2")).unwrap();
    let config =
        InferenceConfig { models_folder: Some(models.path().to_owned()), ..InferenceConfig::default() };
    let inference = Inference::start(config).unwrap();
    let options =
        JobOptions { quality: Some(1), steps: Some(3), target_faces: Some(2000), ..JobOptions::default() };
    // The other stages are those of every family.
    let steps_and_chunks = [(Stage::Shape, 10)];
    check(&inference, "hunyuan3d-2", &options, &steps_and_chunks).await;
}
