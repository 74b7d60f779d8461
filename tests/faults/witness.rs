//! Sees every job object that the service shows while things go wrong, and notes what must never be seen:
//! progress that falls, an end that is taken back, a state that its fields contradict.
//!
//! It reads JSON, not the protocol's types: what it knows of a job is written down here a second time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::Client;
use async_nats::jetstream::{self, kv::Operation};
use futures::StreamExt;
use serde_json::Value;
use tokio::task::JoinHandle;

/// What was last seen of a job in one of the streams of views.
#[derive(Debug, Clone, PartialEq)]
struct Seen {
    status: String,
    progress: u64,
    attempt: u64,
    result: Value,
}

/// The views of all jobs in one stream of them, in their order.
#[derive(Debug, Default)]
pub struct Trace {
    jobs: HashMap<String, Seen>,
    views: u64,
    violations: Vec<String>,
}

impl Trace {
    /// Notes the next view of a job.
    pub fn note(&mut self, job: &Value) {
        self.views += 1;
        let id = job["id"].as_str().unwrap_or_default().to_owned();
        let now = Seen {
            status: job["status"].as_str().unwrap_or_default().to_owned(),
            progress: job["progress"].as_u64().unwrap_or_default(),
            attempt: job["attempt"].as_u64().unwrap_or_default(),
            result: job["result"].clone(),
        };
        if let Some(what) = contradiction(job, &now) {
            self.violations.push(format!("{id}: {what}: {job}"));
        }
        if let Some(before) = self.jobs.get(&id)
            && let Some(what) = illegal(before, &now)
        {
            self.violations.push(format!("{id}: {what}: {before:?} then {now:?}"));
        }
        self.jobs.insert(id, now);
    }

    /// How many views there were.
    pub fn views(&self) -> u64 {
        self.views
    }

    /// What must not have been seen.
    pub fn violations(&self) -> &[String] {
        &self.violations
    }
}

/// Whether the service calls the job ended.
pub fn is_terminal(status: &str) -> bool {
    matches!(status, "completed" | "failed" | "cancelled")
}

/// Views may be missed, so states may be skipped; but none may come after one that it cannot follow.
fn illegal(before: &Seen, now: &Seen) -> Option<&'static str> {
    if is_terminal(&before.status) && (before.status != now.status || before.result != now.result) {
        Some("an end was taken back")
    } else if now.progress < before.progress {
        Some("progress fell")
    } else if now.attempt < before.attempt {
        Some("a start was taken back")
    } else {
        None
    }
}

/// What the fields of one view say against each other.
fn contradiction(job: &Value, seen: &Seen) -> Option<&'static str> {
    let completed = seen.status == "completed";
    match seen.status.as_str() {
        "queued" | "processing" | "completed" | "failed" | "cancelled" => {}
        _ => return Some("unknown status"),
    }
    if completed != (seen.progress == 100) {
        Some("100 percent and completed are not the same")
    } else if completed != seen.result.is_object() {
        Some("a result without completion, or completion without a result")
    } else if (seen.status == "failed") != job["error"].is_object() {
        Some("an error without failure, or failure without an error")
    } else if is_terminal(&seen.status) != job["completed_at"].is_string() {
        Some("an end without its time, or a time without an end")
    } else if seen.attempt == 0 && (completed || seen.status == "processing") {
        Some("worked on without a start")
    } else {
        None
    }
}

/// Follows both streams of views: the events that callers subscribe to, and the records themselves.
#[derive(Debug)]
pub struct Witness {
    events: Arc<Mutex<Trace>>,
    records: Arc<Mutex<Trace>>,
    tasks: [JoinHandle<()>; 2],
}

impl Witness {
    /// Begins to watch. The subscriptions stand when this returns.
    pub async fn start(client: Client) -> Self {
        let (events, records) = (Arc::new(Mutex::default()), Arc::new(Mutex::default()));
        let subscription = client.subscribe("orfeas.local.events.>").await.unwrap();
        client.flush().await.unwrap();
        let tasks = [
            tokio::spawn(follow_events(subscription, events.clone())),
            tokio::spawn(follow_records(client, records.clone())),
        ];
        Self { events, records, tasks }
    }

    /// Ends watching: how many views there were, and what must not have been among them.
    pub fn finish(self) -> (u64, Vec<String>) {
        for task in &self.tasks {
            task.abort();
        }
        let (events, records) = (self.events.lock().unwrap(), self.records.lock().unwrap());
        let named = |source: &str, trace: &Trace| -> Vec<String> {
            trace.violations().iter().map(|violation| format!("{source}: {violation}")).collect()
        };
        let violations = [named("event", &events), named("record", &records)].concat();
        (events.views() + records.views(), violations)
    }
}

async fn follow_events(mut subscription: async_nats::Subscriber, trace: Arc<Mutex<Trace>>) {
    while let Some(event) = subscription.next().await {
        if let Ok(job) = serde_json::from_slice(&event.payload) {
            trace.lock().unwrap().note(&job);
        }
    }
}

/// A watch that breaks is begun again; what it then shows once more is the present state, which any earlier
/// view may lead to.
async fn follow_records(client: Client, trace: Arc<Mutex<Trace>>) {
    let jetstream = jetstream::new(client);
    loop {
        if let Ok(bucket) = jetstream.get_key_value("orfeas_jobs_local").await
            && let Ok(mut entries) = bucket.watch_with_history(">").await
        {
            while let Some(Ok(entry)) = entries.next().await {
                if entry.operation == Operation::Put
                    && let Ok(job) = serde_json::from_slice(&entry.value)
                {
                    trace.lock().unwrap().note(&job);
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn violations(views: &[Value]) -> usize {
        let mut trace = Trace::default();
        views.iter().for_each(|view| trace.note(view));
        trace.violations().len()
    }

    fn view(status: &str, progress: u64, attempt: u64) -> Value {
        let ended = is_terminal(status).then_some("2026-01-01T00:00:00.000Z");
        let result = (status == "completed").then(|| json!({"sha256": "00"}));
        json!({"id": "a", "status": status, "progress": progress, "attempt": attempt,
               "completed_at": ended, "result": result, "error": null})
    }

    #[test]
    fn a_job_that_is_given_back_and_started_again_is_in_order() {
        let views = [
            view("queued", 0, 0),
            view("processing", 40, 1),
            view("queued", 40, 1),
            view("processing", 40, 2),
            view("completed", 100, 2),
            view("completed", 100, 2),
        ];
        assert_eq!(violations(&views), 0);
    }

    #[test]
    fn what_must_not_be_is_seen() {
        assert_eq!(violations(&[view("processing", 40, 1), view("processing", 39, 1)]), 1, "progress");
        assert_eq!(violations(&[view("cancelled", 0, 0), view("processing", 1, 1)]), 1, "an end");
        assert_eq!(violations(&[view("processing", 0, 2), view("processing", 0, 1)]), 1, "a start");
        assert_eq!(violations(&[view("processing", 0, 0)]), 1, "no start");
        assert_eq!(violations(&[view("completed", 99, 1)]), 1, "not at 100 percent");
        let mut other = view("completed", 100, 1);
        other["result"]["sha256"] = json!("11");
        assert_eq!(violations(&[view("completed", 100, 1), other]), 1, "another result");
    }
}
