//! What the service itself costs for each job: jobs of the no-op family, which do nothing on the device, through
//! a real `nats-server` that flushes to the disk before it acknowledges. One JSON line per figure.
//!
//! Latency: one job at a time on an idle node, from the request on `orfeas.<region>.submit` (naming a picture that
//! is stored) to the event that tells of its completion; and from the reply, when the job is accepted, to the same
//! event, which is the overhead of scheduling alone. Throughput: a backlog of jobs whose records and messages are
//! written in bulk before the node starts, from the first start to the last completion; the line gives the mean
//! time per job at that rate, in the two columns for percentiles, as there is one run.
//!
//! The floor: one publish at a time to a stream of the same server, which is one flush of the disk, and a flood of them,
//! which is what one stream takes at most. A no-op job makes five flushes on the server: two of the results' stream
//! (chunk and description) and one each of the records', the work queue's and the history's; of these, three follow
//! each other between its acceptance and its completion.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use async_nats::jetstream::{self, message::PublishMessage};
use async_nats::{Client, HeaderMap, Request, Subscriber};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use orfeas_protocol::job::{NewJob, WorkItem};
use orfeas_protocol::options::{JobOptions, JobType};
use orfeas_protocol::view::InputImage;
use orfeas_protocol::{Channel, JobId, JobRecord, Region, Sha256Digest, TenantId, Timestamp};
use orfeas_tests::pictures;
use orfeas_tests::stack::{Stack, StackOptions};
use serde_json::{Value, json};

/// Jobs before the counted ones.
const WARM_UP: usize = 50;
/// Counted jobs, one at a time.
const RUNS: usize = 500;
/// The backlog of the throughput run.
const BACKLOG: usize = 5_000;
/// Flushed publishes of the floor, one at a time.
const FLOOR_RUNS: usize = 300;
/// Flushed publishes of the floor, at one time.
const FLOOR_FLOOD: usize = 1_000;
/// About a job's record.
const FLOOR_BYTES: usize = 1_500;
/// Publishes in flight while the backlog is written.
const IN_FLIGHT: usize = 256;
/// A backlog that is not worked off by then never will be.
const LIMIT: Duration = Duration::from_secs(120);

/// More jobs at a time than by default: they wait for the server's disk together.
const NODE: [&str; 5] = ["--noop-family", "--threads", "1", "--concurrency", "32"];

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let options = StackOptions { node: &NODE, ..StackOptions::default() };
        let mut stack = Stack::start_with(options).await;
        let client = stack.bus.connect().await;
        let picture = pictures::png(32, 1);
        store(&stack, &picture).await;
        let digest = Sha256Digest::of(&picture);
        floor(&client, "before").await;
        one_at_a_time(&client, digest).await;
        backlog(&mut stack, &client, digest, picture.len()).await;
        floor(&client, "after").await;
    });
}

async fn store(stack: &Stack, picture: &[u8]) {
    let response = stack.client().post_raw("/api/uploads", "image/png", picture.to_vec()).await;
    response.error_for_status().unwrap();
}

/// What the server's disk gives: the time of one acknowledged publish, and how many one stream takes per second.
async fn floor(client: &Client, when: &str) {
    // A disk that others write to may take seconds for the flood.
    let jetstream = jetstream::ContextBuilder::new().ack_timeout(LIMIT).build(client.clone());
    let config = jetstream::stream::Config {
        name: "FLOOR".to_owned(),
        subjects: vec!["floor".to_owned()],
        ..jetstream::stream::Config::default()
    };
    jetstream.create_stream(config).await.unwrap();
    let payload = bytes::Bytes::from(vec![b'x'; FLOOR_BYTES]);
    let mut times = Vec::new();
    for _ in 0..FLOOR_RUNS {
        let began = Instant::now();
        jetstream.publish("floor", payload.clone()).await.unwrap().await.unwrap();
        times.push(began.elapsed());
    }
    report(&format!("flushed_publish_{when}"), &times);
    let began = Instant::now();
    let mut acks = Vec::new();
    for _ in 0..FLOOR_FLOOD {
        acks.push(jetstream.publish("floor", payload.clone()).await.unwrap());
    }
    for ack in acks {
        ack.await.unwrap();
    }
    let rate = FLOOR_FLOOD as f64 / began.elapsed().as_secs_f64();
    println!(
        "# {when}: one stream takes {rate:.0} flushed messages/s, so that results allow {:.0} jobs/s",
        rate / 2.0
    );
    jetstream.delete_stream("FLOOR").await.unwrap();
}

async fn one_at_a_time(client: &Client, digest: Sha256Digest) {
    let mut events = client.subscribe("orfeas.local.events.>").await.unwrap();
    let options = json!({"model": "noop", "steps": 1, "image_sha256": digest.to_string()}).to_string();
    let (mut from_request, mut from_reply) = (Vec::new(), Vec::new());
    for run in 0..WARM_UP + RUNS {
        let mut headers = HeaderMap::new();
        headers.insert("Orfeas-Options", options.as_str());
        let asked = Instant::now();
        let request = Request::new().headers(headers).payload("".into());
        let reply = client.send_request("orfeas.local.submit", request).await.unwrap();
        let accepted = Instant::now();
        let job: Value = serde_json::from_slice(&reply.payload).unwrap();
        let id = job["id"].as_str().unwrap_or_else(|| panic!("{job}"));
        completed(&mut events, id).await;
        if run >= WARM_UP {
            from_request.push(asked.elapsed());
            from_reply.push(accepted.elapsed());
        }
    }
    report("noop_job_submit_to_completed", &from_request);
    report("noop_job_accepted_to_completed", &from_reply);
}

/// Waits for the event that a job has completed.
async fn completed(events: &mut Subscriber, id: &str) {
    loop {
        let event = tokio::time::timeout(LIMIT, events.next()).await.unwrap().unwrap();
        if event.subject.ends_with(id) && status(&event.payload) == "completed" {
            return;
        }
    }
}

fn status(job: &[u8]) -> String {
    let job: Value = serde_json::from_slice(job).unwrap();
    job["status"].as_str().unwrap().to_owned()
}

async fn backlog(stack: &mut Stack, client: &Client, digest: Sha256Digest, bytes: usize) {
    assert!(stack.node.as_mut().unwrap().process.stop(), "the node ends with success");
    let jetstream = jetstream::new(client.clone());
    let mut open: HashSet<String> = fill(&jetstream, digest, bytes).await;
    let mut events = client.subscribe("orfeas.local.events.>").await.unwrap();
    client.flush().await.unwrap();
    stack.start_node();
    let mut first_start = None;
    while !open.is_empty() {
        let event = tokio::time::timeout(LIMIT, events.next()).await.unwrap().unwrap();
        first_start.get_or_insert_with(Instant::now);
        if status(&event.payload) == "completed" {
            open.remove(event.subject.rsplit('.').next().unwrap());
        }
    }
    let elapsed = first_start.unwrap().elapsed();
    println!("# {BACKLOG} jobs in {elapsed:?}: {:.0} jobs/s", BACKLOG as f64 / elapsed.as_secs_f64());
    let mean_ms = elapsed.as_secs_f64() * 1_000.0 / BACKLOG as f64;
    println!(
        "{}",
        json!({"bench": "noop_job_mean_in_backlog", "p50_ms": mean_ms, "p99_ms": mean_ms, "n": BACKLOG})
    );
}

/// Writes records and messages of queued jobs, as the edge does.
async fn fill(jetstream: &jetstream::Context, digest: Sha256Digest, bytes: usize) -> HashSet<String> {
    let names = Region::default();
    let names = names.names();
    let mut written = FuturesUnordered::new();
    let mut ids = HashSet::new();
    for number in 0..BACKLOG as u64 {
        let record = queued(number, digest, bytes as u64);
        let id = record.job.id;
        ids.insert(id.to_string());
        if written.len() >= IN_FLIGHT {
            written.next().await;
        }
        let subject = format!("$KV.{}.{id}", names.jobs_bucket());
        let payload = serde_json::to_vec(&record).unwrap();
        let kept = jetstream.publish(subject, payload.into()).await.unwrap();
        let item = serde_json::to_vec(&WorkItem { id }).unwrap();
        let message = PublishMessage::build().message_id(id.to_string()).payload(item.into());
        let subject = names.work(Channel::Stable, record.job.priority);
        let queued = jetstream.send_publish(subject, message).await.unwrap();
        written.push(async move {
            kept.await.unwrap();
            queued.await.unwrap();
        });
    }
    while written.next().await.is_some() {}
    ids
}

fn queued(number: u64, digest: Sha256Digest, bytes: u64) -> JobRecord {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let now = Timestamp::from_unix_ms(now.as_millis() as u64);
    let mut random = [0; 10];
    random[2..].copy_from_slice(&number.to_be_bytes());
    let options = JobOptions { model: Some("noop".to_owned()), steps: Some(1), ..JobOptions::default() };
    let new = NewJob {
        id: JobId::new(now, random),
        job_type: JobType::Generation3d,
        tenant: TenantId::anonymous(),
        region: Region::default(),
        channel: Channel::Stable,
        options,
        input: InputImage { sha256: digest, format: "png".to_owned(), width: 32, height: 32, bytes },
        request_id: None,
        traceparent: None,
    };
    JobRecord::new(new, now)
}

fn report(name: &str, times: &[Duration]) {
    let mut ms: Vec<f64> = times.iter().map(|time| time.as_secs_f64() * 1_000.0).collect();
    ms.sort_by(f64::total_cmp);
    let quantile = |q: f64| ms[((ms.len() - 1) as f64 * q).round() as usize];
    println!("{}", json!({"bench": name, "p50_ms": quantile(0.5), "p99_ms": quantile(0.99), "n": ms.len()}));
}
