//! The neural family through the inference thread, on the miniature checkpoint of the networks' tests: random
//! weights in the published layout, so the shape is a tangle, and everything else is real.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers fail as its assertions do")]

use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use image::{ImageFormat, Rgba, RgbaImage};
use orfeas_node::pipeline::{
    self, Engine, Generated, GenerationRequest, Inference, InferenceConfig, Monitor, NeuralConfig, Offload,
    PipelineError, Settings, Side, Views,
};
use orfeas_protocol::options::{JobOptions, JobType};

/// Few steps and the least effort: the cost is in the mesh of a random field.
fn options() -> JobOptions {
    JobOptions {
        model: Some("hunyuan3d-2".to_owned()),
        quality: Some(1),
        steps: Some(3),
        texture: false,
        target_faces: Some(2000),
        ..JobOptions::default()
    }
}

/// A green disc, cut out.
fn disc() -> Bytes {
    let picture = RgbaImage::from_fn(96, 96, |x, y| {
        let inside = (x as f32 - 48.0).hypot(y as f32 - 48.0) < 30.0;
        Rgba([20, 160, 60, if inside { 255 } else { 0 }])
    });
    let mut file = Cursor::new(Vec::new());
    picture.write_to(&mut file, ImageFormat::Png).unwrap();
    file.into_inner().into()
}

/// A models folder in which the family has this folder.
fn models(folder: &Path) -> tempfile::TempDir {
    let models = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(folder, models.path().join("hunyuan3d-2")).unwrap();
    models
}

fn miniature() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../nets/tests/golden/mini_checkpoint").canonicalize().unwrap()
}

fn start(models: &Path) -> Inference {
    let models_folder = Some(models.to_owned());
    Inference::start(InferenceConfig { models_folder, ..InferenceConfig::default() }).unwrap()
}

async fn generate(
    inference: &Inference,
    options: JobOptions,
    monitor: impl Monitor + 'static,
) -> Result<Generated, PipelineError> {
    let settings = Settings::decide(&options);
    let request = GenerationRequest { image: disc(), job_type: JobType::Generation3d, settings };
    pipeline::generate(inference, options.model.as_deref(), request, Box::new(monitor)).await.outcome
}

/// Counts reports within the shape stage, and cancels after some.
struct Counting {
    reports: Arc<AtomicUsize>,
    cancel_after: usize,
}

impl Monitor for Counting {
    fn progress(&mut self, stage: &'static str, _fraction: f32) {
        if stage == "shape" {
            self.reports.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn is_cancelled(&self) -> bool {
        self.reports.load(Ordering::Relaxed) >= self.cancel_after
    }
}

fn counting(cancel_after: usize) -> (Counting, Arc<AtomicUsize>) {
    let reports = Arc::new(AtomicUsize::new(0));
    (Counting { reports: Arc::clone(&reports), cancel_after }, reports)
}

#[tokio::test]
async fn a_checkpoint_in_the_published_layout_makes_a_model_from_a_picture() {
    let models = models(&miniature());
    let inference = start(models.path());
    let sources = inference.sources();
    let source = sources.iter().find(|source| source.family() == "hunyuan3d-2").unwrap();
    let version = source.fingerprint().unwrap();
    let (monitor, reports) = counting(usize::MAX);
    let made = generate(&inference, options(), monitor).await.unwrap();
    assert_eq!(&made.file[..4], b"glTF");
    assert!(made.report.watertight && made.report.faces <= 2000, "{:?}", made.report);
    assert_eq!(made.model.version, Some(version));
    assert!(reports.load(Ordering::Relaxed) > 10, "steps and chunks are reported");

    let again = generate(&inference, options(), counting(usize::MAX).0).await.unwrap();
    assert!(again.file == made.file, "the same seed gives the same model");
}

#[tokio::test]
async fn cancelling_stops_within_the_shape_stage() {
    let models = models(&miniature());
    let (monitor, reports) = counting(4);
    let outcome = generate(&start(models.path()), options(), monitor).await;
    assert!(matches!(outcome, Err(PipelineError::Cancelled)));
    assert_eq!(reports.load(Ordering::Relaxed), 4);
}

#[tokio::test]
async fn weights_that_cannot_be_used_fail_their_jobs_and_leave_the_node_serving() {
    let broken = tempfile::tempdir().unwrap();
    for name in ["config.yaml", "model.fp16.safetensors"] {
        let whole = std::fs::read(miniature().join(name)).unwrap();
        let kept = if name == "config.yaml" { whole.len() } else { whole.len() / 2 };
        std::fs::write(broken.path().join(name), &whole[..kept]).unwrap();
    }
    let models = models(broken.path());
    let inference = start(models.path());
    let outcome = generate(&inference, options(), counting(usize::MAX).0).await;
    let Err(PipelineError::WeightsUnusable { reason, .. }) = outcome else { panic!("another outcome") };
    assert!(reason.contains("model.fp16.safetensors"), "{reason}");

    let silhouette = JobOptions { model: Some("silhouette".to_owned()), ..options() };
    assert!(generate(&inference, silhouette, counting(usize::MAX).0).await.is_ok());
}

/// The miniature as a model of several views, which has the same weights.
fn miniature_of_views() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let config = std::fs::read_to_string(miniature().join("config.yaml")).unwrap();
    let of_views = config.replace("DinoImageEncoder\n", "DinoImageEncoderMV\n");
    assert_ne!(of_views, config);
    std::fs::write(folder.path().join("config.yaml"), of_views).unwrap();
    std::fs::copy(miniature().join(WEIGHTS), folder.path().join(WEIGHTS)).unwrap();
    folder
}

const WEIGHTS: &str = "model.fp16.safetensors";

#[tokio::test]
async fn another_view_of_the_subject_changes_the_shape_of_a_model_that_takes_several() {
    let folder = miniature_of_views();
    let models = models(folder.path());
    let inference = start(models.path());
    let make = async |views: Vec<(Side, Bytes)>| {
        let settings = Settings { views: Views::new(views).unwrap(), ..Settings::decide(&options()) };
        let request = GenerationRequest { image: disc(), job_type: JobType::Generation3d, settings };
        let monitor = Box::new(counting(usize::MAX).0);
        pipeline::generate(&inference, Some("hunyuan3d-2"), request, monitor).await.outcome
    };
    let front = make(Vec::new()).await.unwrap();
    let both = make(vec![(Side::Back, disc())]).await.unwrap();
    assert!(front.file != both.file);
}

#[tokio::test]
async fn pictures_that_share_a_pass_make_the_same_model_as_one_after_the_other() {
    let folder = miniature_of_views();
    let models = models(folder.path());
    let inference = start(models.path());
    let make = async |batch: u8| {
        let views = Views::new(vec![(Side::Left, disc()), (Side::Back, disc())]).unwrap();
        let settings = Settings { views, batch, ..Settings::decide(&options()) };
        let request = GenerationRequest { image: disc(), job_type: JobType::Generation3d, settings };
        let (monitor, reports) = counting(usize::MAX);
        let outcome = pipeline::generate(&inference, Some("hunyuan3d-2"), request, Box::new(monitor)).await;
        (outcome.outcome.unwrap().report, reports.load(Ordering::Relaxed))
    };
    let (apart, looks_apart) = make(1).await;
    let (together, looks_together) = make(3).await;
    assert_eq!(looks_apart, looks_together + 2, "a look before each of three passes, and before one");
    // Sums in another order move the last digits of the field, and with them single triangles.
    assert!((apart.volume - together.volume).abs() <= 0.02 * together.volume.abs(), "{apart:?} {together:?}");
}

#[tokio::test]
async fn views_for_a_model_of_one_are_refused_as_such() {
    let models = models(&miniature());
    let views = Views::new(vec![(Side::Left, disc())]).unwrap();
    let settings = Settings { views, ..Settings::decide(&options()) };
    let request = GenerationRequest { image: disc(), job_type: JobType::Generation3d, settings };
    let monitor = Box::new(counting(usize::MAX).0);
    let inference = start(models.path());
    let outcome = pipeline::generate(&inference, Some("hunyuan3d-2"), request, monitor).await.outcome;
    assert!(matches!(outcome, Err(PipelineError::NotSupported(_))));
}

#[tokio::test]
async fn networks_that_leave_the_device_in_turn_make_the_same_model() {
    let models = models(&miniature());
    let make = async |offload| {
        let neural = NeuralConfig { offload, ..NeuralConfig::default() };
        let models_folder = Some(models.path().to_owned());
        let config = InferenceConfig { models_folder, neural, ..InferenceConfig::default() };
        let inference = Inference::start(config).unwrap();
        generate(&inference, options(), counting(usize::MAX).0).await.unwrap().file
    };
    assert!(make(Offload::Always).await == make(Offload::Never).await);
}
