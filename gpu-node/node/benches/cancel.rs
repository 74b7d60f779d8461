//! How long a running job takes to notice that it should stop: for each stage the longest time between two looks at
//! the cancel flag, which bounds the wait wherever a cancel falls, and the waits of cancels at moments spread over the
//! whole job.

#[path = "../tests/specimens/mod.rs"]
mod specimens;

use std::collections::BTreeMap;
use std::io::Cursor;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use image::{DynamicImage, ImageFormat};
use orfeas_node::pipeline::{
    GenerationRequest, Inference, InferenceConfig, Monitor, PipelineError, Settings, generate,
};
use orfeas_protocol::options::{JobOptions, JobType};

const ROUNDS: usize = 5;
const CANCELS: usize = 40;

/// Longest time between two looks, in the stage that was running when the second one came.
#[derive(Debug, Default)]
struct Looks {
    stage: &'static str,
    last: Option<Instant>,
    longest_ms: BTreeMap<&'static str, f64>,
}

/// Takes the time between looks, and says no once the moment has come.
struct Watch {
    looks: Arc<Mutex<Looks>>,
    cancel_at: Option<Instant>,
}

impl Watch {
    fn looked(&self) {
        let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if let Some(last) = looks.last.replace(now) {
            let stage = looks.stage;
            let gap_ms = 1_000.0 * (now - last).as_secs_f64();
            let longest = looks.longest_ms.entry(stage).or_default();
            *longest = longest.max(gap_ms);
        }
    }
}

impl Monitor for Watch {
    fn progress(&mut self, stage: &'static str, _fraction: f32) {
        self.looks.lock().unwrap_or_else(PoisonError::into_inner).stage = stage;
    }

    fn is_cancelled(&self) -> bool {
        self.looked();
        self.cancel_at.is_some_and(|at| Instant::now() >= at)
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let cut_out = specimens::draw("mug", 1024, 5);
    let picture = DynamicImage::from(specimens::compose(&cut_out, "gradient", 5));
    let mut file = Cursor::new(Vec::new());
    picture.write_to(&mut file, ImageFormat::Png)?;
    let image = Bytes::from(file.into_inner());
    let inference = Inference::start(InferenceConfig::default())?;
    let request = || GenerationRequest {
        image: image.clone(),
        job_type: JobType::default(),
        settings: Settings::decide(&JobOptions::default()),
    };
    let run = async |cancel_at: Option<Instant>| {
        let looks: Arc<Mutex<Looks>> = Arc::default();
        let watch = Watch { looks: looks.clone(), cancel_at };
        let start = Instant::now();
        let outcome = generate(&inference, None, request(), Box::new(watch)).await.outcome;
        let mut looks = looks.lock().unwrap_or_else(PoisonError::into_inner);
        // The end of the job ends the last wait.
        let (stage, last) = (looks.stage, looks.last.unwrap_or(start));
        let gap_ms = 1_000.0 * last.elapsed().as_secs_f64();
        let longest = looks.longest_ms.entry(stage).or_default();
        *longest = longest.max(gap_ms);
        (outcome.map(drop), start.elapsed(), std::mem::take(&mut looks.longest_ms))
    };

    // The first job also pays for libtorch's own start.
    run(None).await.0?;
    let mut whole = Duration::ZERO;
    let mut longest: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for _ in 0..ROUNDS {
        let (outcome, took, gaps) = run(None).await;
        outcome?;
        whole = whole.max(took);
        for (stage, gap_ms) in gaps {
            longest.entry(stage).or_default().push(gap_ms);
        }
    }
    let mut waits_ms = Vec::new();
    for n in 0..CANCELS {
        let at = Instant::now() + whole.mul_f64(n as f64 / CANCELS as f64);
        let (outcome, ..) = run(Some(at)).await;
        if matches!(outcome, Err(PipelineError::Cancelled)) {
            waits_ms.push(1_000.0 * at.elapsed().as_secs_f64());
        }
    }
    for (stage, gaps_ms) in longest {
        println!("{}", line(&format!("cancel_longest_gap_{stage}"), gaps_ms));
    }
    println!("{}", line("cancel_latency", waits_ms));
    Ok(())
}

fn line(bench: &str, mut times_ms: Vec<f64>) -> String {
    times_ms.sort_by(f64::total_cmp);
    let at = |part: f64| {
        let rank = (times_ms.len() as f64 * part).ceil() as usize;
        times_ms.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
    };
    let (p50, p99, max, n) = (at(0.5), at(0.99), at(1.0), times_ms.len());
    format!(r#"{{"bench":"{bench}","n":{n},"p50_ms":{p50:.2},"p99_ms":{p99:.2},"max_ms":{max:.2}}}"#)
}
