use std::io::Cursor;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use image::{DynamicImage, ImageFormat, RgbaImage};
use orfeas_protocol::options::{JobOptions, JobType};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::*;
use crate::pipeline::family::{Settings, Shape, Subject, Volume};
use crate::pipeline::stage::Steps;

/// A ball, a panic, or work without an end: as many steps as the job asks for say which.
struct Moody;

const BALL: u16 = 1;
const PANIC: u16 = 2;
const FAILED_OPERATION: u16 = 3;
const ENDLESS: u16 = 4;

impl Family for Moody {
    fn info(&self) -> FamilyInfo {
        FamilyInfo { name: "moody", version: "1".to_owned() }
    }

    fn shape(
        &mut self,
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

fn inference() -> Inference {
    let config = InferenceConfig { default_family: "moody".to_owned(), queue_depth: 1, ..Default::default() };
    Inference::start_with(config, |_, _| vec![Box::new(Moody)]).unwrap()
}

fn request(mood: u16) -> GenerationRequest {
    let disc = RgbaImage::from_fn(64, 64, |x, y| {
        let inside = (x as f32 - 31.5).hypot(y as f32 - 31.5) < 20.0;
        image::Rgba([200, 80, 40, if inside { 255 } else { 0 }])
    });
    let mut file = Cursor::new(Vec::new());
    DynamicImage::from(disc).write_to(&mut file, ImageFormat::Png).unwrap();
    let options = JobOptions { steps: Some(mood), ..JobOptions::default() };
    GenerationRequest { image: file.into_inner().into(), job_type: JobType::Generation3d, options }
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
    let panicked = inference.generate(request(PANIC), Box::new(watcher().0)).await;
    assert!(matches!(panicked, Err(PipelineError::Panicked { stage: "shape", .. })), "{panicked:?}");
    let failed = inference.generate(request(FAILED_OPERATION), Box::new(watcher().0)).await;
    assert!(matches!(failed, Err(PipelineError::Tensor(_))), "{failed:?}");
    let generated = inference.generate(request(BALL), Box::new(watcher().0)).await.unwrap();
    assert!(generated.report.watertight && generated.report.genus == Some(0));
}

#[tokio::test]
async fn progress_never_falls_and_ends_at_one() {
    let (monitor, mut stages) = watcher();
    inference().generate(request(BALL), Box::new(monitor)).await.unwrap();
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
    let job = tokio::spawn(async move { inference.generate(request(ENDLESS), Box::new(monitor)).await });
    wait_for(&mut stages, Stage::Shape).await;
    cancel.store(true, Ordering::Relaxed);
    assert!(matches!(job.await.unwrap(), Err(PipelineError::Cancelled)));
}

#[tokio::test]
async fn a_dropped_call_is_a_cancelled_job() {
    let (monitor, mut stages) = watcher();
    let inference = inference();
    let handle = inference.clone();
    let job = tokio::spawn(async move { handle.generate(request(ENDLESS), Box::new(monitor)).await });
    wait_for(&mut stages, Stage::Shape).await;
    job.abort();
    assert!(job.await.is_err());
    // The endless job must have made room, or this one would never run.
    inference.generate(request(BALL), Box::new(watcher().0)).await.unwrap();
}

#[tokio::test]
async fn a_full_queue_is_busy() {
    let (monitor, mut stages) = watcher();
    let cancel = monitor.cancelled.clone();
    let inference = inference();
    let running = {
        let (inference, monitor) = (inference.clone(), monitor.clone());
        tokio::spawn(async move { inference.generate(request(ENDLESS), Box::new(monitor)).await })
    };
    wait_for(&mut stages, Stage::Shape).await;
    let waiting = inference.generate(request(BALL), Box::new(watcher().0));
    let mut waiting = Box::pin(waiting);
    // Polled once, the call has taken the only place.
    let polled = futures::poll!(waiting.as_mut());
    assert!(polled.is_pending());
    let third = inference.generate(request(BALL), Box::new(watcher().0)).await;
    assert!(matches!(third, Err(PipelineError::Busy)));
    cancel.store(true, Ordering::Relaxed);
    assert!(running.await.unwrap().is_err());
    waiting.await.unwrap();
}

#[tokio::test]
async fn what_this_node_does_not_do_is_not_supported() {
    let inference = inference();
    let video = GenerationRequest { job_type: JobType::VideoGeneration, ..request(BALL) };
    let mut other = request(BALL);
    other.options.model = Some("other".to_owned());
    for request in [video, other] {
        let outcome = inference.generate(request, Box::new(watcher().0)).await;
        assert!(matches!(outcome, Err(PipelineError::NotSupported(_))));
    }
    let unknown = InferenceConfig { default_family: "none".to_owned(), ..InferenceConfig::default() };
    assert!(matches!(Inference::start(unknown), Err(StartError::UnknownFamily(_))));
}
