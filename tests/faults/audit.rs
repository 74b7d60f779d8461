//! What stands in the stores when all is over, looked at from outside: HTTP at the edge, and the streams
//! themselves through a NATS client of somebody else's making. None of the node's code is used.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use async_nats::Client;
use async_nats::jetstream::{self, consumer};
use futures::StreamExt;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::witness::is_terminal;
use crate::client::Client as HttpClient;

/// After the last fault, every acknowledged job has ended within this time.
pub const SETTLE_LIMIT: Duration = Duration::from_secs(90);
/// An answer of the edge or of the bus.
const CALL_LIMIT: Duration = Duration::from_secs(20);
/// How often an auditor looks.
const POLL: Duration = Duration::from_millis(100);

/// What the audit found.
#[derive(Debug, Clone, Default)]
pub struct Findings {
    /// Jobs by the status that their records have, acknowledged or not.
    pub by_status: BTreeMap<String, usize>,
    /// Acknowledged jobs without a record, or completed ones without the result that the record names.
    pub lost: Vec<String>,
    /// Names in the results store with more than one description, and results of jobs that did not complete.
    pub duplicated: Vec<String>,
    /// Jobs that have not ended in time, and messages that are left in the work queue.
    pub stuck: Vec<String>,
    /// Chunks that no description points to: what a node that was killed in mid-write leaves. They are no
    /// result, nobody can read them, and their age removes them.
    pub orphan_chunks: usize,
    /// The most starts that a job needed.
    pub attempts_max: u64,
    /// When the last acknowledged job ended, after the audit's begin.
    pub settled_after: Duration,
}

/// Waits for the ends, `limit` at the most, then checks everything.
pub async fn audit(acknowledged: &[String], http: &HttpClient, client: &Client, limit: Duration) -> Findings {
    let jetstream = jetstream::new(client.clone());
    let mut findings = Findings::default();
    let began = Instant::now();
    let records = settle(&jetstream, began, limit).await;
    findings.settled_after = began.elapsed();
    for (id, job) in &records {
        let status = job["status"].as_str().unwrap_or_default();
        *findings.by_status.entry(status.to_owned()).or_default() += 1;
        findings.attempts_max = findings.attempts_max.max(job["attempt"].as_u64().unwrap_or_default());
        if !is_terminal(status) {
            findings.stuck.push(format!("{id} is {status}: {job}"));
        }
    }
    findings.lost.extend(acknowledged.iter().filter(|id| !records.contains_key(*id)).cloned());
    check_queue(&jetstream, &mut findings, limit).await;
    check_store(&jetstream, &records, &mut findings).await;
    for id in acknowledged.iter().filter(|id| records.contains_key(*id)) {
        if let Err(problem) = check_http(http, id, &records[id]).await {
            findings.lost.push(format!("{id}: {problem}"));
        }
    }
    findings
}

/// Waits until every record is terminal or the limit has passed, and returns the records.
async fn settle(jetstream: &jetstream::Context, began: Instant, limit: Duration) -> HashMap<String, Value> {
    loop {
        let records =
            match tokio::time::timeout(CALL_LIMIT, messages(jetstream, "KV_orfeas_jobs_local")).await {
                Ok(Some(messages)) => records(&messages),
                _ => HashMap::new(),
            };
        let ended = |job: &Value| is_terminal(job["status"].as_str().unwrap_or_default());
        let all_ended = !records.is_empty() && records.values().all(ended);
        if all_ended || began.elapsed() > limit {
            return records;
        }
        tokio::time::sleep(POLL).await;
    }
}

/// A message of a stream: subject and payload.
type Raw = (String, Vec<u8>);

/// Every message of a stream, in order; `None` when the bus does not answer.
async fn messages(jetstream: &jetstream::Context, stream: &str) -> Option<Vec<Raw>> {
    let mut stream = jetstream.get_stream(stream).await.ok()?;
    let count = stream.info().await.ok()?.state.messages;
    let mut found = Vec::new();
    if count == 0 {
        return Some(found);
    }
    let config = consumer::pull::OrderedConfig::default();
    let consumer = stream.create_consumer(config).await.ok()?;
    let mut messages = consumer.messages().await.ok()?;
    loop {
        let message = messages.next().await?.ok()?;
        let pending = message.info().ok()?.pending;
        found.push((message.subject.to_string(), message.payload.to_vec()));
        if pending == 0 {
            return Some(found);
        }
    }
}

fn records(messages: &[Raw]) -> HashMap<String, Value> {
    let jobs = messages.iter().filter_map(|(_, payload)| serde_json::from_slice::<Value>(payload).ok());
    jobs.filter_map(|job| Some((job["id"].as_str()?.to_owned(), job))).collect()
}

/// The work queue is empty: nothing would run a job once more.
async fn check_queue(jetstream: &jetstream::Context, findings: &mut Findings, limit: Duration) {
    let began = Instant::now();
    loop {
        let left = async { jetstream.get_stream("ORFEAS_JOBS_LOCAL").await.ok()?.info().await.ok().cloned() };
        let left = left.await.map(|info| info.state.messages);
        match left {
            Some(0) => return,
            _ if began.elapsed() > limit => {
                findings.stuck.push(format!("the work queue holds {left:?} messages"));
                return;
            }
            _ => tokio::time::sleep(POLL).await,
        }
    }
}

/// The results store has one object for each completed job, whose bytes are those that its record names, and
/// none for any other.
async fn check_store(
    jetstream: &jetstream::Context,
    records: &HashMap<String, Value>,
    findings: &mut Findings,
) {
    let Some(messages) = messages(jetstream, "OBJ_orfeas_results_local").await else {
        findings.stuck.push("the results store does not answer".to_owned());
        return;
    };
    let mut chunks: HashMap<&str, Vec<&[u8]>> = HashMap::new();
    let mut descriptions: HashMap<String, Vec<Value>> = HashMap::new();
    for (subject, payload) in &messages {
        if let Some(nuid) = subject.strip_prefix("$O.orfeas_results_local.C.") {
            chunks.entry(nuid).or_default().push(payload);
        } else if let Ok(info) = serde_json::from_slice::<Value>(payload)
            && info["deleted"] != true
        {
            descriptions.entry(info["name"].as_str().unwrap_or_default().to_owned()).or_default().push(info);
        }
    }
    let mut named = BTreeSet::new();
    for (name, infos) in &descriptions {
        let status = records.get(name).and_then(|job| job["status"].as_str());
        if infos.len() != 1 || status != Some("completed") {
            findings.duplicated.push(format!("{name} ({status:?}) has {} results", infos.len()));
        }
        named.extend(infos.iter().filter_map(|info| info["nuid"].as_str()));
    }
    for (id, job) in records.iter().filter(|(_, job)| job["status"] == "completed") {
        let stored = descriptions.get(id).and_then(|infos| infos.first());
        let bytes = stored.and_then(|info| chunks.get(info["nuid"].as_str()?)).map(|chunks| chunks.concat());
        if bytes.map(|bytes| hex(&bytes)).as_deref() != job["result"]["sha256"].as_str() {
            findings.lost.push(format!("{id} has completed and its result is not what its record says"));
        }
    }
    let orphans = chunks.iter().filter(|(nuid, _)| !named.contains(*nuid));
    findings.orphan_chunks = orphans.map(|(_, chunks)| chunks.len()).sum();
}

/// What a caller gets agrees with the record.
async fn check_http(http: &HttpClient, id: &str, record: &Value) -> Result<(), String> {
    let path = format!("/api/job/{id}");
    let job: Value = get(http, &path).await?.json().await.map_err(|error| error.to_string())?;
    if job["status"] != record["status"] || job["result"] != record["result"] {
        return Err(format!("the edge shows {job}, the record is {record}"));
    }
    if job["status"] == "completed" {
        let response = get(http, &format!("{path}/result")).await?;
        let bytes = response.bytes().await.map_err(|error| error.to_string())?;
        if Some(hex(&bytes).as_str()) != job["result"]["sha256"].as_str() {
            return Err("the edge serves other bytes than the record names".to_owned());
        }
    }
    Ok(())
}

/// An edge that lost its connections with the bus may answer 503 once.
async fn get(http: &HttpClient, path: &str) -> Result<reqwest::Response, String> {
    let began = Instant::now();
    loop {
        let request = http.request(reqwest::Method::GET, path).timeout(CALL_LIMIT);
        let problem = match request.send().await.and_then(reqwest::Response::error_for_status) {
            Ok(response) => return Ok(response),
            Err(error) => error.to_string(),
        };
        if began.elapsed() > CALL_LIMIT {
            return Err(problem);
        }
        tokio::time::sleep(POLL).await;
    }
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
