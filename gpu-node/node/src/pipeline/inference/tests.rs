use std::io::Cursor;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use image::{DynamicImage, ImageFormat, RgbaImage};
use orfeas_protocol::options::{JobOptions, JobType};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::*;
use crate::pipeline::Settings;
use crate::pipeline::family::{Shape, Subject, Volume};
use crate::pipeline::generate;
use crate::pipeline::stage::Steps;

/// A ball, a panic, or work without an end: as many steps as the job asks for say which.
struct Moody;

const BALL: u16 = 1;
const PANIC: u16 = 2;
const FAILED_OPERATION: u16 = 3;
const ENDLESS: u16 = 4;

impl Family for Moody {
    fn shape(
        &self,
        _subject: &Subject,
        settings: &Settings,
        steps: &mut Steps<'_, '_>,
    ) -> Result<Shape, PipelineError> {
        match settings.steps {
            PANIC => panic!("moody"),
            FAILED_OPERATION => {
                let ones = tch::Tensor::ones([2, 3], (tch::Kind::Float, Device::Cpu));
                drop(ones.matmul(&ones));
            }
            ENDLESS => loop {
                steps.advance(0.5)?;
                thread::yield_now();
            },
            _ => {}
        }
        let side = 24_i32;
        let radius = |i: i32| (i - side / 2) as f32;
        let samples = (0..side * side * side)
            .map(|i| [i / side / side, i / side % side, i % side].map(radius))
            .map(|[x, y, z]| 8.0 - (x * x + y * y + z * z).sqrt())
            .collect();
        Ok(Shape { volume: Volume::centred([side as usize; 3], samples, 0.05), projection: None })
    }
}

struct MoodySource;

impl ModelSource for MoodySource {
    fn family(&self) -> &'static str {
        "moody"
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
        Ok(LoadedModel::new(Moody))
    }
}

fn key() -> ModelKey {
    ModelKey::new("moody", "1")
}

/// With its model installed.
fn inference() -> Inference {
    let config = InferenceConfig { default_family: "moody".to_owned(), queue_depth: 1, ..Default::default() };
    let inference = Inference::start_with(config, |_, _| vec![Box::new(MoodySource)]).unwrap();
    inference.install(key(), LoadedModel::new(Moody)).unwrap();
    inference
}

async fn run_on(
    inference: &Inference,
    request: GenerationRequest,
    monitor: Watcher,
) -> Result<Generated, PipelineError> {
    inference.run(key(), request, Box::new(monitor)).await.outcome
}

fn request(mood: u16) -> GenerationRequest {
    let disc = RgbaImage::from_fn(64, 64, |x, y| {
        let inside = (x as f32 - 31.5).hypot(y as f32 - 31.5) < 20.0;
        image::Rgba([200, 80, 40, if inside { 255 } else { 0 }])
    });
    let mut file = Cursor::new(Vec::new());
    DynamicImage::from(disc).write_to(&mut file, ImageFormat::Png).unwrap();
    let settings = Settings::decide(&JobOptions { steps: Some(mood), ..JobOptions::default() });
    GenerationRequest { image: file.into_inner().into(), job_type: JobType::Generation3d, settings }
}

#[derive(Clone)]
struct Watcher {
    cancelled: Arc<AtomicBool>,
    seen: UnboundedSender<(&'static str, f32)>,
}

fn watcher() -> (Watcher, UnboundedReceiver<(&'static str, f32)>) {
    let (seen, stages) = unbounded_channel();
    (Watcher { cancelled: Arc::default(), seen }, stages)
}

impl Monitor for Watcher {
    fn progress(&mut self, stage: &'static str, fraction: f32) {
        // A test that has seen enough has dropped its end.
        let _ = self.seen.send((stage, fraction));
    }

    fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}

async fn wait_for(stages: &mut UnboundedReceiver<(&'static str, f32)>, stage: Stage) {
    while stages.recv().await.unwrap().0 != stage.as_str() {}
}

#[tokio::test]
async fn a_panic_fails_its_job_only() {
    let inference = inference();
    let panicked = run_on(&inference, request(PANIC), watcher().0).await;
    assert!(matches!(panicked, Err(PipelineError::Panicked { stage: "shape", .. })), "{panicked:?}");
    let failed = run_on(&inference, request(FAILED_OPERATION), watcher().0).await;
    assert!(matches!(failed, Err(PipelineError::Tensor(_))), "{failed:?}");
    let generated = run_on(&inference, request(BALL), watcher().0).await.unwrap();
    assert!(generated.report.watertight && generated.report.genus == Some(0));
}

#[tokio::test]
async fn progress_never_falls_and_ends_at_one() {
    let (monitor, mut stages) = watcher();
    run_on(&inference(), request(BALL), monitor).await.unwrap();
    let mut last = 0.0;
    let mut names = Vec::new();
    while let Some((stage, fraction)) = stages.recv().await {
        assert!(fraction >= last, "{stage} falls from {last} to {fraction}");
        last = fraction;
        names.push(stage);
    }
    assert_eq!(last, 1.0);
    names.dedup();
    assert_eq!(names, Stage::ALL.map(Stage::as_str));
}

#[tokio::test]
async fn a_cancelled_job_stops_within_its_stage() {
    let (monitor, mut stages) = watcher();
    let cancel = monitor.cancelled.clone();
    let inference = inference();
    let job = tokio::spawn(async move { run_on(&inference, request(ENDLESS), monitor).await });
    wait_for(&mut stages, Stage::Shape).await;
    cancel.store(true, Ordering::Relaxed);
    assert!(matches!(job.await.unwrap(), Err(PipelineError::Cancelled)));
}

#[tokio::test]
async fn a_dropped_call_is_a_cancelled_job() {
    let (monitor, mut stages) = watcher();
    let inference = inference();
    let handle = inference.clone();
    let job = tokio::spawn(async move { run_on(&handle, request(ENDLESS), monitor).await });
    wait_for(&mut stages, Stage::Shape).await;
    job.abort();
    assert!(job.await.is_err());
    // The endless job must have made room, or this one would never run.
    run_on(&inference, request(BALL), watcher().0).await.unwrap();
}

#[tokio::test]
async fn a_full_queue_is_busy() {
    let (monitor, mut stages) = watcher();
    let cancel = monitor.cancelled.clone();
    let inference = inference();
    let running = {
        let (inference, monitor) = (inference.clone(), monitor.clone());
        tokio::spawn(async move { run_on(&inference, request(ENDLESS), monitor).await })
    };
    wait_for(&mut stages, Stage::Shape).await;
    let waiting = run_on(&inference, request(BALL), watcher().0);
    let mut waiting = Box::pin(waiting);
    // Polled once, the call has taken the only place.
    let polled = futures::poll!(waiting.as_mut());
    assert!(polled.is_pending());
    let third = run_on(&inference, request(BALL), watcher().0).await;
    assert!(matches!(third, Err(PipelineError::Busy)));
    cancel.store(true, Ordering::Relaxed);
    assert!(running.await.unwrap().is_err());
    waiting.await.unwrap();
}

#[tokio::test]
async fn what_this_node_does_not_do_is_not_supported() {
    let inference = inference();
    let video = GenerationRequest { job_type: JobType::VideoGeneration, ..request(BALL) };
    let outcome = run_on(&inference, video, watcher().0).await;
    assert!(matches!(outcome, Err(PipelineError::NotSupported(_))));
    let other = generate(&inference, Some("other"), request(BALL), Box::new(watcher().0)).await.outcome;
    assert!(matches!(other, Err(PipelineError::NotSupported(_))));
    let unknown = InferenceConfig { default_family: "none".to_owned(), ..InferenceConfig::default() };
    assert!(matches!(Inference::start(unknown), Err(StartError::UnknownFamily(_))));
}

#[tokio::test]
async fn a_job_runs_on_the_model_that_it_names_or_not_at_all() {
    let inference = inference();
    let newer = ModelKey::new("moody", "2");
    let early = inference.run(newer.clone(), request(BALL), Box::new(watcher().0)).await;
    assert!(matches!(early.outcome, Err(PipelineError::NotInstalled(key)) if key == newer));
    inference.install(newer.clone(), LoadedModel::new(Moody)).unwrap();
    inference.remove(key()).await;
    assert_eq!(inference.installed(), std::slice::from_ref(&newer));
    let gone = run_on(&inference, request(BALL), watcher().0).await;
    assert!(matches!(gone, Err(PipelineError::NotInstalled(_))));
    let made = inference.run(newer, request(BALL), Box::new(watcher().0)).await.outcome.unwrap();
    assert_eq!(made.model.version.as_deref(), Some("2"));
    assert!(inference.install(key(), LoadedModel::hollow()).is_err());
}

#[tokio::test]
async fn models_come_and_go_while_another_one_runs() {
    let (monitor, mut stages) = watcher();
    let cancel = monitor.cancelled.clone();
    let inference = inference();
    let handle = inference.clone();
    let running = tokio::spawn(async move { run_on(&handle, request(ENDLESS), monitor).await });
    wait_for(&mut stages, Stage::Shape).await;
    let newer = ModelKey::new("moody", "2");
    inference.install(newer.clone(), LoadedModel::new(Moody)).unwrap();
    inference.remove(key()).await;
    assert_eq!(inference.installed(), [newer], "the one that runs is as good as gone");
    cancel.store(true, Ordering::Relaxed);
    assert!(matches!(running.await.unwrap(), Err(PipelineError::Cancelled)));
    let gone = run_on(&inference, request(BALL), watcher().0).await;
    assert!(matches!(gone, Err(PipelineError::NotInstalled(_))), "it did not come back");
}

/// Asks libtorch for more memory than there is as soon as a stage begins, while it holds a little.
struct Greedy(Stage);

impl Monitor for Greedy {
    fn progress(&mut self, stage: &'static str, _fraction: f32) {
        if stage == self.0.as_str() {
            let held = tch::Tensor::ones([HELD_BYTES / 4], (tch::Kind::Float, Device::Cpu));
            let _refused = tch::Tensor::zeros([1 << 44], (tch::Kind::Float, Device::Cpu));
            drop(held);
        }
    }

    fn is_cancelled(&self) -> bool {
        false
    }
}

const HELD_BYTES: i64 = 64 << 20;

#[tokio::test]
async fn libtorchs_out_of_memory_at_any_stage_is_told_as_such_and_leaves_nothing_behind() {
    let inference = inference();
    run_on(&inference, request(BALL), watcher().0).await.unwrap();
    let baseline = inference.memory().allocated_bytes;
    for stage in Stage::ALL {
        let run = inference.run(key(), request(BALL), Box::new(Greedy(stage))).await;
        assert!(matches!(run.outcome, Err(PipelineError::OutOfMemory(_))), "{stage:?}: {:?}", run.outcome);
        assert_eq!(run.leaked_bytes, 0, "{stage:?}");
    }
    // Eight runs held 512 MiB between them; other tests of this process may hold a little at the same time.
    let left = inference.memory().allocated_bytes.saturating_sub(baseline);
    assert!(left < 4 * HELD_BYTES as u64, "{left} bytes are left");
    run_on(&inference, request(BALL), watcher().0).await.unwrap();
}

#[tokio::test]
async fn an_inference_thread_that_has_ended_is_noticed_by_who_waits_for_it() {
    let (commands, inbox) = mpsc::channel(1);
    let inference = Inference { commands, ..inference() };
    let stopped = inference.stopped();
    let mut stopped = Box::pin(stopped);
    assert!(futures::poll!(stopped.as_mut()).is_pending(), "it lives");
    drop(inbox);
    stopped.await;
    let run = inference.run(key(), request(BALL), Box::new(watcher().0)).await;
    assert!(matches!(run.outcome, Err(PipelineError::Stopped)));
}
