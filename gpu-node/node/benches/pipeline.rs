//! A 1024 × 1024 picture without alpha to a textured GLB with the default options: the whole job and each stage.
//! One JSON line each: wall time in milliseconds, and for the whole job the processor time of all threads as well.

#[path = "../tests/specimens/mod.rs"]
mod specimens;

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::Context;
use orfeas_node::pipeline::{self, GenerationRequest, Inference, InferenceConfig, Settings, Unwatched};
use orfeas_protocol::options::{JobOptions, JobType};

const ROUNDS: usize = 20;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let image = bytes::Bytes::from(specimens::mug_file()?);
    let inference = Inference::start(InferenceConfig::default())?;
    let request = || GenerationRequest {
        image: image.clone(),
        job_type: JobType::default(),
        settings: Settings::decide(&JobOptions::default()),
    };
    // The first job also pays for libtorch's own start.
    pipeline::generate(&inference, None, request(), Box::new(Unwatched)).await.outcome?;

    let mut wall_ms = Vec::new();
    let mut stage_ms: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    let cpu_start = cpu_seconds()?;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let generated = pipeline::generate(&inference, None, request(), Box::new(Unwatched)).await.outcome?;
        wall_ms.push(1000.0 * start.elapsed().as_secs_f64());
        for (stage, seconds) in generated.stage_seconds {
            stage_ms.entry(stage).or_default().push(1000.0 * seconds);
        }
    }
    let cpu_ms = 1000.0 * (cpu_seconds()? - cpu_start) / ROUNDS as f64;
    println!("{}", line("pipeline_default_1024", wall_ms, Some(cpu_ms)));
    for (stage, times) in stage_ms {
        println!("{}", line(&format!("pipeline_stage_{stage}"), times, None));
    }
    Ok(())
}

fn line(bench: &str, mut times_ms: Vec<f64>, cpu_ms: Option<f64>) -> String {
    times_ms.sort_by(f64::total_cmp);
    let at = |part: f64| times_ms[((times_ms.len() - 1) as f64 * part).round() as usize];
    let cpu = cpu_ms.map_or(String::new(), |cpu_ms| format!(r#","cpu_ms":{cpu_ms:.1}"#));
    let (p50, p99, n) = (at(0.5), at(0.99), times_ms.len());
    format!(r#"{{"bench":"{bench}","p50_ms":{p50:.2},"p99_ms":{p99:.2},"n":{n}{cpu}}}"#)
}

/// User and system time of this process, all threads, from the kernel's counters of hundredths of a second.
fn cpu_seconds() -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // Fields are counted after the command's closing bracket, as the command may hold anything.
    let (_, fields) = stat.rsplit_once(") ").context("no command in /proc/self/stat")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    let ticks =
        |index: usize| -> anyhow::Result<f64> { Ok(fields.get(index).context("short stat")?.parse()?) };
    Ok((ticks(11)? + ticks(12)?) / 100.0)
}
