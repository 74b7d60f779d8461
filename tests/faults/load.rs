//! Submits a plan's jobs as impatient callers would: whoever is refused, or hears nothing, asks again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::{Client, HeaderMap, Request};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::plan::{PICTURES, Plan, PlannedJob, Way};
use crate::client::Client as HttpClient;
use crate::pictures;

/// A caller hangs up after this.
const CALL_LIMIT: Duration = Duration::from_secs(10);
/// A caller that is refused comes back after this.
const AGAIN_AFTER: Duration = Duration::from_millis(250);
/// A caller that was never accepted gives up.
const PATIENCE: Duration = Duration::from_secs(120);

/// What became of the submissions.
#[derive(Debug, Clone, Default)]
pub struct Submitted {
    /// The jobs that were acknowledged: by a 202, or by a reply.
    pub acknowledged: Vec<String>,
    /// Answers that were no, or did not come; each was asked again.
    pub refusals: usize,
    /// Callers that gave up.
    pub gave_up: usize,
}

/// Submits all jobs at their times.
pub async fn submit(plan: &Plan, http: HttpClient, client: Client) -> Submitted {
    let pictures: Arc<Vec<Vec<u8>>> =
        Arc::new((0..PICTURES).map(|marker| pictures::png(32, marker)).collect());
    let began = Instant::now();
    let mut callers = JoinSet::new();
    for &job in &plan.jobs {
        sleep(job.at.saturating_sub(began.elapsed())).await;
        let (http, client, pictures) = (http.clone(), client.clone(), pictures.clone());
        callers.spawn(async move { call(job, &http, &client, &pictures[usize::from(job.picture)]).await });
    }
    let mut submitted = Submitted::default();
    while let Some(call) = callers.join_next().await {
        let (id, refusals) = call.unwrap();
        submitted.refusals += refusals;
        submitted.gave_up += usize::from(id.is_none());
        submitted.acknowledged.extend(id);
    }
    submitted
}

/// One caller: the id if the job was accepted, and how many times it was not.
async fn call(
    job: PlannedJob,
    http: &HttpClient,
    client: &Client,
    picture: &[u8],
) -> (Option<String>, usize) {
    let give_up_at = Instant::now() + PATIENCE;
    let mut refusals = 0;
    while Instant::now() < give_up_at {
        let accepted = match job.way {
            Way::Http => over_http(job, http, picture).await,
            Way::Nats => over_nats(job, client, picture).await,
        };
        let Some(id) = accepted else {
            refusals += 1;
            sleep(AGAIN_AFTER).await;
            continue;
        };
        if let Some(wait) = job.cancel_after {
            sleep(wait).await;
            // Whatever the answer is: the audit sees how the job ends.
            let request = http.request(Method::DELETE, &format!("/api/job/{id}"));
            let _ = request.timeout(CALL_LIMIT).send().await;
        }
        return (Some(id), refusals);
    }
    (None, refusals)
}

async fn over_http(job: PlannedJob, http: &HttpClient, picture: &[u8]) -> Option<String> {
    let path = format!("/api/submit-job?model=noop&steps={}&priority={}", job.steps, job.priority);
    let request = http.request(Method::POST, &path).timeout(CALL_LIMIT);
    let response = request.header("content-type", "image/png").body(picture.to_vec()).send().await.ok()?;
    match response.status() {
        StatusCode::ACCEPTED => id_of(&response.json().await.ok()?),
        status if status.is_server_error() => None,
        status => panic!("a good submission is answered {status}: {:?}", response.text().await),
    }
}

async fn over_nats(job: PlannedJob, client: &Client, picture: &[u8]) -> Option<String> {
    let options = json!({"model": "noop", "steps": job.steps, "priority": job.priority});
    let mut headers = HeaderMap::new();
    headers.insert("Orfeas-Options", options.to_string());
    let request = Request::new().headers(headers).payload(picture.to_vec().into());
    let request = client.send_request("orfeas.local.submit", request.timeout(Some(CALL_LIMIT)));
    let reply = tokio::time::timeout(CALL_LIMIT, request).await.ok()?.ok()?;
    let body: Value = serde_json::from_slice(&reply.payload).ok()?;
    let code = reply.headers.as_ref().and_then(|headers| headers.get("Nats-Service-Error-Code"));
    match code.map(ToString::to_string) {
        None => id_of(&body),
        Some(code) if code.starts_with('5') => None,
        Some(code) => panic!("a good submission is answered {code}: {body}"),
    }
}

fn id_of(job: &Value) -> Option<String> {
    job["id"].as_str().map(str::to_owned)
}
