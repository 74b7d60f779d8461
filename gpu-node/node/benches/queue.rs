//! The job queue at a steady depth: one submit and one start, with 100 tenants, 10 priorities and 6 kinds of jobs.
//! One JSON line per depth: wall time in milliseconds.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use orfeas_node::scheduler::queue::{Fit, Gate, JobQueue, Next, Policy, Queued};
use orfeas_protocol::{JobId, Timestamp};

const ROUNDS: u64 = 20_000;
/// Jobs that arrive in each second of the queue's time.
const JOBS_PER_SECOND: u64 = 50;

fn main() -> anyhow::Result<()> {
    for depth in [1_000, 10_000, 100_000] {
        let policy = Policy { depth_max: depth as usize + 1, ..Policy::default() };
        let mut queue = JobQueue::new(policy);
        for n in 0..depth {
            queue.submit(job(n)?, time(n))?;
        }
        // All of them have aged in the meantime; the first calls catch up with that, a bounded number each.
        queue.set_gate(Gate::Paused);
        for _ in 0..depth {
            queue.next(time(depth), fit);
        }
        queue.set_gate(Gate::Open);
        let mut times_ms = Vec::new();
        for n in depth..depth + ROUNDS {
            let job = job(n)?;
            let start = Instant::now();
            queue.submit(job, time(n))?;
            let next = queue.next(time(n), fit);
            times_ms.push(1000.0 * start.elapsed().as_secs_f64());
            let Next::Start(job) = next else { anyhow::bail!("nothing starts") };
            queue.settle(&job.tenant, job.expected, job.expected);
        }
        ensure!(queue.len() as u64 == depth, "the depth is not steady");
        times_ms.sort_by(f64::total_cmp);
        let at = |part: f64| times_ms[((times_ms.len() - 1) as f64 * part).round() as usize];
        let (p50, p99, n) = (at(0.5), at(0.99), times_ms.len());
        println!(
            r#"{{"bench":"queue_submit_and_start_{depth}","p50_ms":{p50:.4},"p99_ms":{p99:.4},"n":{n}}}"#
        );
    }
    Ok(())
}

/// Half of the kinds have their model loaded.
fn fit(kind: &u64) -> Fit {
    if kind.is_multiple_of(2) { Fit::Warm } else { Fit::Cold }
}

fn time(n: u64) -> Timestamp {
    Timestamp::from_unix_ms(1_700_000_000_000 + n * 1000 / JOBS_PER_SECOND)
}

fn job(n: u64) -> anyhow::Result<Queued<u64>> {
    // A linear congruential generator (Knuth, MMIX): the same jobs in each run.
    let random = n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407) >> 33;
    let mut bytes = [0; 10];
    bytes.iter_mut().zip(n.to_be_bytes()).for_each(|(to, from)| *to = from);
    Ok(Queued {
        id: JobId::new(time(n), bytes),
        tenant: format!("tenant-{}", random % 100).parse().context("name a tenant")?,
        priority: u8::try_from(random / 100 % 10 + 1)?.try_into()?,
        kind: random / 1_000 % 6,
        created_at: time(n),
        deadline: None,
        expected: Duration::from_millis(500 + random % 1_000),
    })
}
