//! How long a running job takes to notice that it should stop.
//!
//! A cancel waits for the next look at its flag. So the times between looks tell the wait of a cancel that falls at any
//! moment of a stage: the longest bounds it, and of moments spread evenly over the stage half wait less than `p50`, and
//! all but a hundredth less than `p99`. Cancels at moments spread over whole jobs show that it is so.
//!
//! Families: `silhouette` with its default preset, and the miniature checkpoint of the networks' tests, whose random
//! weights make a tangle, the most that the stages after the shape can get from a grid of 192 cells.

#[path = "../tests/specimens/mod.rs"]
mod specimens;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use orfeas_node::pipeline::{
    GenerationRequest, Inference, InferenceConfig, Monitor, PipelineError, Settings, Stage, generate,
};
use orfeas_protocol::options::{JobOptions, JobType};

const ROUNDS: usize = 5;
const CANCELS: usize = 40;

/// The times between two looks, by the stage that ran meanwhile.
type Gaps = BTreeMap<&'static str, Vec<f64>>;

#[derive(Debug, Default)]
struct Looks {
    stage: &'static str,
    last: Option<Instant>,
    gaps_ms: Gaps,
}

impl Looks {
    fn look(&mut self) {
        let now = Instant::now();
        if let Some(last) = self.last.replace(now) {
            let gap_ms = 1_000.0 * (now - last).as_secs_f64();
            self.gaps_ms.entry(self.stage).or_default().push(gap_ms);
        }
    }
}

/// Takes the time between looks, and says no once the moment has come.
struct Watch {
    looks: Arc<Mutex<Looks>>,
    cancel_at: Option<Instant>,
}

impl Monitor for Watch {
    fn progress(&mut self, stage: &'static str, _fraction: f32) {
        self.looks.lock().unwrap_or_else(PoisonError::into_inner).stage = stage;
    }

    fn is_cancelled(&self) -> bool {
        self.looks.lock().unwrap_or_else(PoisonError::into_inner).look();
        self.cancel_at.is_some_and(|at| Instant::now() >= at)
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let image = Bytes::from(specimens::mug_file()?);
    let models = miniature()?;
    let config =
        InferenceConfig { models_folder: Some(models.path().to_owned()), ..InferenceConfig::default() };
    let inference = Inference::start(config)?;
    measure(&inference, "silhouette", &image, &JobOptions::default()).await?;
    let tangle = JobOptions { quality: Some(5), steps: Some(8), ..JobOptions::default() };
    measure(&inference, "hunyuan3d-2", &image, &tangle).await
}

/// A models folder with the networks' tests' miniature.
fn miniature() -> anyhow::Result<tempfile::TempDir> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../nets/tests/golden/mini_checkpoint");
    let folder: PathBuf = folder.canonicalize()?;
    let models = tempfile::tempdir()?;
    std::os::unix::fs::symlink(folder, models.path().join("hunyuan3d-2"))?;
    Ok(models)
}

async fn measure(
    inference: &Inference,
    family: &str,
    image: &Bytes,
    options: &JobOptions,
) -> anyhow::Result<()> {
    let run = async |cancel_at: Option<Instant>| {
        let looks: Arc<Mutex<Looks>> = Arc::default();
        let watch = Watch { looks: looks.clone(), cancel_at };
        let settings = Settings::decide(options);
        let request = GenerationRequest { image: image.clone(), job_type: JobType::default(), settings };
        let start = Instant::now();
        let outcome = generate(inference, Some(family), request, Box::new(watch)).await.outcome;
        let mut looks = looks.lock().unwrap_or_else(PoisonError::into_inner);
        // The end of the job ends the last wait.
        looks.look();
        (outcome.map(drop), start.elapsed(), std::mem::take(&mut looks.gaps_ms))
    };
    // The first job also pays for libtorch's own start, and for loading.
    run(None).await.0?;
    let mut whole = Duration::ZERO;
    let mut gaps_ms = Gaps::new();
    for _ in 0..ROUNDS {
        let (outcome, took, gaps) = run(None).await;
        outcome?;
        whole = whole.max(took);
        for (stage, gaps) in gaps {
            gaps_ms.entry(stage).or_default().extend(gaps);
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
    for stage in Stage::ALL.map(Stage::as_str) {
        if let Some(gaps_ms) = gaps_ms.get(stage) {
            let looks = gaps_ms.len() / ROUNDS;
            let [p50, p99] = [0.5, 0.99].map(|part| wait_ms(gaps_ms, part));
            let max = gaps_ms.iter().copied().fold(0.0, f64::max);
            print(&format!("cancel_wait_{family}_{stage}"), looks, [p50, p99, max]);
        }
    }
    waits_ms.sort_by(f64::total_cmp);
    let at = |part: f64| {
        let rank = (waits_ms.len() as f64 * part).ceil() as usize;
        waits_ms.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
    };
    print(&format!("cancel_measured_{family}"), waits_ms.len(), [at(0.5), at(0.99), at(1.0)]);
    Ok(())
}

/// The wait that `part` of all moments within these gaps do not exceed: of a gap `g`, the last `w` wait no longer
/// than `w`.
fn wait_ms(gaps_ms: &[f64], part: f64) -> f64 {
    let total: f64 = gaps_ms.iter().sum();
    let (mut low, mut high) = (0.0, gaps_ms.iter().copied().fold(0.0, f64::max));
    for _ in 0..50 {
        let middle = 0.5 * (low + high);
        let within: f64 = gaps_ms.iter().map(|gap| gap.min(middle)).sum();
        if within < part * total { low = middle } else { high = middle }
    }
    high
}

fn print(bench: &str, n: usize, [p50, p99, max]: [f64; 3]) {
    println!(r#"{{"bench":"{bench}","n":{n},"p50_ms":{p50:.2},"p99_ms":{p99:.2},"max_ms":{max:.2}}}"#);
}
