//! Latencies of the whole service, as a caller sees them: one JSON line per figure.
//!
//! Real processes on this machine, the load generator among them, so the figures hold for all of it on the
//! same cores. `cargo xtask bench` builds the programs in the release profile and runs this.

use std::time::{Duration, Instant};

use orfeas_tests::pictures;
use orfeas_tests::stack::Stack;
use serde_json::{Value, json};

/// Requests before the counted ones: they fill the instance and connection pools.
const WARM_UP: usize = 10;
/// Counted requests for each figure.
const RUNS: usize = 100;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stack = Stack::start().await;
        submit(&stack).await;
        queue_to_start(&stack).await;
        store_fifty_megabytes(&stack).await;
    });
}

/// A JPEG of about a megabyte, different each time, from the first byte sent to the 202.
async fn submit(stack: &Stack) {
    let client = stack.client();
    let photograph = pictures::jpeg(1400, 92, 24);
    println!("# photograph: {} bytes", photograph.len());
    let mut times = Vec::new();
    for run in 0..WARM_UP + RUNS {
        let body = marked(&photograph, run);
        // Only stores and queues: the job itself is cancelled, or it would share the cores with the next request.
        let start = Instant::now();
        let response = client.post_raw("/api/submit-job?priority=1", "image/jpeg", body).await;
        let job: Value = response.error_for_status().unwrap().json().await.unwrap();
        let elapsed = start.elapsed();
        let id = job["id"].as_str().unwrap();
        client.delete(&format!("/api/job/{id}")).await;
        client.job_ended(id).await;
        if run >= WARM_UP {
            times.push(elapsed);
        }
    }
    report("submit_1mb_jpeg_to_202", &times);
}

/// From the record's creation at the edge to its start on an idle node, by the record's own times.
async fn queue_to_start(stack: &Stack) {
    let client = stack.client();
    let mut times = Vec::new();
    for run in 0..WARM_UP + RUNS {
        let job =
            client.submit_png(pictures::png(32, run as u8), &[("quality", "1"), ("texture", "false")]).await;
        let job = client.job_ended(job["id"].as_str().unwrap()).await;
        if run >= WARM_UP {
            let wait = millis(&job["started_at"]).saturating_sub(millis(&job["created_at"]));
            times.push(Duration::from_millis(wait));
        }
    }
    report("queue_to_start_idle_node", &times);
}

/// The largest upload there is.
async fn store_fifty_megabytes(stack: &Stack) {
    let client = stack.client();
    let mut times = Vec::new();
    for run in 0..10 {
        let mut image = pictures::png_of_size(50 * 1024 * 1024 - run);
        let start = Instant::now();
        let response = client.post_raw("/api/uploads", "image/png", std::mem::take(&mut image)).await;
        response.error_for_status().unwrap().bytes().await.unwrap();
        times.push(start.elapsed());
    }
    report("store_50mb_png", &times);
}

/// The picture with its own digest: a comment segment (JPEG, ITU T.81 B.2.4.5) after the start marker.
fn marked(jpeg: &[u8], run: usize) -> Vec<u8> {
    let mut bytes = jpeg[..2].to_vec();
    bytes.extend_from_slice(&[0xff, 0xfe, 0, 10]);
    bytes.extend_from_slice(&(run as u64).to_be_bytes());
    bytes.extend_from_slice(&jpeg[2..]);
    bytes
}

/// Milliseconds within the hour of an RFC 3339 time; enough to subtract two that lie close together.
fn millis(time: &Value) -> u64 {
    let text = time.as_str().unwrap();
    let part = |from: usize, to: usize| text[from..to].parse::<u64>().unwrap();
    ((part(11, 13) * 60 + part(14, 16)) * 60 + part(17, 19)) * 1_000 + part(20, 23)
}

fn report(name: &str, times: &[Duration]) {
    let mut ms: Vec<f64> = times.iter().map(|time| time.as_secs_f64() * 1_000.0).collect();
    ms.sort_by(f64::total_cmp);
    let quantile = |q: f64| ms[((ms.len() - 1) as f64 * q).round() as usize];
    println!("{}", json!({"bench": name, "p50_ms": quantile(0.5), "p99_ms": quantile(0.99), "n": ms.len()}));
}
