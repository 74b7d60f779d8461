//! A lease of a loaded model, taken and given back: what a job pays for its model on the warm path.
//! One JSON line, wall time in milliseconds.

use std::sync::Arc;
use std::time::{Duration, Instant};

use orfeas_node::config::ModelsConfig;
use orfeas_node::metrics::Metrics;
use orfeas_node::models::{ModelCache, Unlimited};
use orfeas_node::pipeline::{Engine, Inference, InferenceConfig};

const ROUNDS: usize = 100_000;
const LIMIT: Duration = Duration::from_secs(60);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let inference = Inference::start(InferenceConfig::default())?;
    let family = inference.default_family().to_owned();
    let cache = ModelCache::new(Arc::new(inference), ModelsConfig::default(), Arc::new(Metrics::new()));
    let driver = tokio::spawn(cache.clone().drive(Arc::new(Unlimited)));
    // The first lease loads.
    cache.load(&family, LIMIT).await?;
    let mut times_ms = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let start = Instant::now();
        drop(cache.lease(&family, None, LIMIT).await?);
        times_ms.push(1000.0 * start.elapsed().as_secs_f64());
    }
    driver.abort();
    times_ms.sort_by(f64::total_cmp);
    let at = |part: f64| times_ms[((times_ms.len() - 1) as f64 * part).round() as usize];
    let (p50, p99, max) = (at(0.5), at(0.99), at(1.0));
    println!(
        r#"{{"bench":"warm_lease","p50_ms":{p50:.5},"p99_ms":{p99:.5},"max_ms":{max:.3},"n":{ROUNDS}}}"#
    );
    Ok(())
}
