//! A model folder is replaced ten times while jobs run on the device's real inference thread: each job ends well, and
//! on the one version that its lease names.

use std::collections::HashMap;
use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use image::{DynamicImage, ImageFormat, RgbaImage};
use orfeas_protocol::JobOptions;
use orfeas_protocol::options::JobType;
use tokio::sync::watch;
use tokio::time::timeout;

use super::{ModelCache, Unlimited};
use crate::config::ModelsConfig;
use crate::metrics::Metrics;
use crate::pipeline::{
    Engine, Family, GenerationRequest, Inference, InferenceConfig, LoadedModel, ModelSource, PipelineError,
    Settings, Shape, Steps, Subject, Unwatched, Volume, generate,
};

const REPLACEMENTS: u8 = 10;
const TASKS: usize = 3;
const PATIENCE: Duration = Duration::from_secs(60);

/// Makes an ellipsoid whose proportions stand in a file: two numbers, the second of which comes late.
struct Weights {
    axes: [u8; 2],
}

impl Family for Weights {
    fn shape(
        &self,
        _subject: &Subject,
        _settings: &Settings,
        steps: &mut Steps<'_, '_>,
    ) -> Result<Shape, PipelineError> {
        let side = 20_i32;
        let mut samples = Vec::new();
        for x in 0..side {
            steps.advance(x as f32 / side as f32)?;
            for y in 0..side {
                for z in 0..side {
                    let [x, y, z] = [x, y, z].map(|i| (i - side / 2) as f32);
                    let (x, y) = (
                        x * (1.0 + f32::from(self.axes[0]) / 20.0),
                        y * (1.0 + f32::from(self.axes[1]) / 20.0),
                    );
                    samples.push(7.0 - (x * x + y * y + z * z).sqrt());
                }
            }
        }
        Ok(Shape { volume: Volume::centred([side as usize; 3], samples, 0.05), projection: None })
    }
}

/// `<models>/weights/axes.bin`, of which the version is the content.
struct Folder(PathBuf);

impl Folder {
    fn read(&self) -> Result<[u8; 2], PipelineError> {
        let unusable = |reason: String| PipelineError::WeightsUnusable { family: "weights", reason };
        let bytes = fs::read(self.0.join("axes.bin")).map_err(|error| unusable(error.to_string()))?;
        bytes.try_into().map_err(|bytes: Vec<u8>| unusable(format!("{} bytes", bytes.len())))
    }
}

fn version([x, y]: [u8; 2]) -> String {
    format!("{x}-{y}")
}

impl ModelSource for Folder {
    fn family(&self) -> &'static str {
        "weights"
    }

    fn fingerprint(&self) -> Result<String, PipelineError> {
        self.read().map(version)
    }

    fn resident_bytes(&self) -> u64 {
        0
    }

    fn job_bytes(&self, _settings: &Settings) -> u64 {
        0
    }

    fn load(&self, wanted: &str) -> Result<LoadedModel, PipelineError> {
        let axes = self.read()?;
        if version(axes) != wanted {
            let reason = "it changed while it was read".to_owned();
            return Err(PipelineError::WeightsUnusable { family: "weights", reason });
        }
        Ok(LoadedModel::new(Weights { axes }))
    }
}

/// Replaces the folder's content in place, in three steps that a look may fall between.
fn replace(folder: &Path, axes: [u8; 2]) {
    let file = folder.join("axes.bin");
    fs::write(&file, &axes[..1]).unwrap();
    fs::remove_file(&file).unwrap();
    fs::write(&file, axes).unwrap();
}

fn request() -> GenerationRequest {
    let disc = RgbaImage::from_fn(48, 48, |x, y| {
        let inside = (x as f32 - 23.5).hypot(y as f32 - 23.5) < 16.0;
        image::Rgba([200, 80, 40, if inside { 255 } else { 0 }])
    });
    let mut file = Cursor::new(Vec::new());
    DynamicImage::from(disc).write_to(&mut file, ImageFormat::Png).unwrap();
    let settings = Settings::decide(&JobOptions { texture: false, ..JobOptions::default() });
    GenerationRequest { image: file.into_inner().into(), job_type: JobType::Generation3d, settings }
}

/// The numbers of each replacement; no two have the same first or second.
fn axes(replacement: u8) -> [u8; 2] {
    [replacement, 2 * replacement + 1]
}

fn start(folder: &Path) -> Inference {
    let config = InferenceConfig {
        default_family: "weights".to_owned(),
        queue_depth: TASKS,
        models_folder: Some(folder.to_owned()),
        ..InferenceConfig::default()
    };
    let registry = |_, config: &InferenceConfig| -> Vec<Box<dyn ModelSource>> {
        vec![Box::new(Folder(config.models_folder.clone().unwrap()))]
    };
    Inference::start_with(config, registry).unwrap()
}

/// What each version makes, from an engine that saw no replacement.
async fn expected() -> HashMap<String, Vec<u8>> {
    let mut expected = HashMap::new();
    for replacement in 0..=REPLACEMENTS {
        let folder = tempfile::tempdir().unwrap();
        replace(folder.path(), axes(replacement));
        let made =
            generate(&start(folder.path()), None, request(), Box::new(Unwatched)).await.outcome.unwrap();
        expected.insert(version(axes(replacement)), made.file);
    }
    let files: std::collections::HashSet<_> = expected.values().collect();
    assert_eq!(files.len(), expected.len(), "versions can be told apart by what they make");
    expected
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_succeed_on_one_version_each_while_their_folder_is_replaced_ten_times() {
    let expected = Arc::new(expected().await);
    let folder = tempfile::tempdir().unwrap();
    replace(folder.path(), axes(0));
    let inference = start(folder.path());
    let cache =
        ModelCache::new(Arc::new(inference.clone()), ModelsConfig::default(), Arc::new(Metrics::new()));
    let driver = tokio::spawn(cache.clone().drive(Arc::new(Unlimited)));
    let is_over = Arc::new(AtomicBool::new(false));
    let (jobs, mut done) = watch::channel(0_usize);
    let mut tasks = Vec::new();
    for _ in 0..TASKS {
        let (cache, inference, expected) = (cache.clone(), inference.clone(), expected.clone());
        let (is_over, jobs) = (is_over.clone(), jobs.clone());
        tasks.push(tokio::spawn(async move {
            let mut versions = Vec::new();
            while !is_over.load(Ordering::Relaxed) {
                let lease = cache.lease("weights", None, PATIENCE).await.unwrap();
                let run = inference.run(lease.key().clone(), request(), Box::new(Unwatched)).await;
                let made = run.outcome.unwrap();
                assert_eq!(made.model.version.as_ref(), Some(&lease.key().version));
                assert!(made.file == expected[&lease.key().version], "{} is mixed", lease.key());
                versions.push(lease.key().version.clone());
                jobs.send_modify(|jobs| *jobs += 1);
            }
            versions.dedup();
            versions
        }));
    }
    // The first version serves before it is replaced: without a working one, a half-written folder is a failure.
    for replacement in 0..=REPLACEMENTS {
        if replacement > 0 {
            replace(folder.path(), axes(replacement));
        }
        let wanted = version(axes(replacement));
        let taken_over = async {
            while cache.version("weights").as_ref() != Some(&wanted) {
                done.changed().await.unwrap();
            }
        };
        timeout(PATIENCE, taken_over).await.unwrap_or_else(|_| panic!("{wanted} did not take over"));
    }
    is_over.store(true, Ordering::Relaxed);
    let all: Vec<String> = (0..=REPLACEMENTS).map(|replacement| version(axes(replacement))).collect();
    for task in tasks {
        let versions = task.await.unwrap();
        // In order, and no version comes back; a task may have missed one between two of its jobs.
        let places: Vec<_> =
            versions.iter().map(|version| all.iter().position(|one| one == version)).collect();
        assert!(places.is_sorted(), "{versions:?}");
    }
    assert!(*done.borrow() > usize::from(REPLACEMENTS), "{done:?}");
    driver.abort();
    // The last job has let go of its version: only the newest is left.
    assert_eq!(cache.views().iter().filter(|view| view.leases > 0).count(), 0);
}
