//! A caller over NATS.

use async_nats::jetstream::{self, stream::Stream};
use async_nats::{Client, HeaderMap, Message, Request};
use futures::StreamExt;
use serde_json::{Value, json};

use super::{PATIENCE, Server, picture, until};

/// Asks the nodes of a region.
pub(crate) struct Caller {
    pub(crate) client: Client,
    pub(crate) jetstream: jetstream::Context,
}

impl Caller {
    pub(crate) async fn of(server: &Server) -> Self {
        let client = server.client().await;
        Self { jetstream: jetstream::new(client.clone()), client }
    }

    pub(crate) async fn ask(&self, endpoint: &str, options: Option<Value>, payload: Vec<u8>) -> Message {
        let mut headers = HeaderMap::new();
        if let Some(options) = options {
            headers.insert("Orfeas-Options", options.to_string());
        }
        let request = Request::new().headers(headers).payload(payload.into()).timeout(Some(PATIENCE));
        self.client.send_request(format!("orfeas.local.{endpoint}"), request).await.unwrap()
    }

    /// Waits until a node answers, which is when it takes jobs.
    pub(crate) async fn node_serves(&self) {
        until("a node serves", async || self.client.request("orfeas.local.gpu", "".into()).await.ok()).await;
    }

    /// Waits until nodes hold this many messages of a priority in the stable channel.
    pub(crate) async fn held(&self, priority: u8, messages: usize) {
        until("the nodes hold the jobs", async || {
            let stream = self.jetstream.get_stream("ORFEAS_JOBS_LOCAL").await.ok()?;
            let lane = stream.consumer_info(format!("stable-{priority}")).await.ok()?;
            (lane.num_ack_pending == messages).then_some(())
        })
        .await;
    }

    /// Waits until so many jobs wait on the one node, which serves. What a lane has given out is on its way at first.
    pub(crate) async fn waiting(&self, jobs: usize) {
        until("the jobs wait on the node", async || {
            // This changes nothing about a node that serves; its answer is how it stands.
            let stands = body(&self.ask("nodes.resume", None, Vec::new()).await);
            (stands["jobs_waiting"] == jobs).then_some(())
        })
        .await;
    }

    /// Submits a picture and gives the job's id.
    pub(crate) async fn submit(&self, options: Value) -> String {
        self.submit_picture(options, picture(0)).await
    }

    pub(crate) async fn submit_picture(&self, options: Value, picture: Vec<u8>) -> String {
        let reply = body(&self.ask("submit", Some(options), picture).await);
        reply["id"].as_str().unwrap_or_else(|| panic!("{reply}")).to_owned()
    }

    pub(crate) async fn job(&self, id: &str) -> Value {
        body(&self.ask("status", None, json!({ "id": id }).to_string().into_bytes()).await)
    }

    pub(crate) async fn cancel(&self, id: &str) -> Value {
        body(&self.ask("cancel", None, json!({ "id": id }).to_string().into_bytes()).await)
    }

    pub(crate) async fn job_when(&self, id: &str, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        until(what, || async {
            let job = self.job(id).await;
            is_so(&job).then_some(job)
        })
        .await
    }

    pub(crate) async fn job_ended(&self, id: &str) -> Value {
        self.job_when(id, "the job ends", |job| {
            matches!(job["status"].as_str(), Some("completed" | "failed" | "cancelled"))
        })
        .await
    }

    pub(crate) async fn stream(&self, name: &str) -> Stream {
        self.jetstream.get_stream(name).await.unwrap()
    }

    /// Waits until a node has told the queue so many times that it works on a job.
    pub(crate) async fn signs_of_life(&self, count: usize) {
        let mut acks = self.client.subscribe("$JS.ACK.>").await.unwrap();
        let mut seen = 0;
        while seen < count {
            let next = tokio::time::timeout(PATIENCE, acks.next()).await;
            let ack = next.expect("waited in vain for a sign of life").unwrap();
            seen += usize::from(ack.payload.as_ref() == b"+WPI");
        }
    }

    /// Waits until the work queue holds nothing: no message of a job that ended comes back.
    pub(crate) async fn queue_is_empty(&self) {
        let mut stream = self.stream("ORFEAS_JOBS_LOCAL").await;
        until("the queue is empty", async || (stream.info().await.ok()?.state.messages == 0).then_some(()))
            .await;
    }

    pub(crate) async fn result(&self, id: &str) -> Option<Vec<u8>> {
        use tokio::io::AsyncReadExt;
        let store = self.jetstream.get_object_store("orfeas_results_local").await.unwrap();
        let mut object = store.get(id).await.ok()?;
        let mut file = Vec::new();
        object.read_to_end(&mut file).await.unwrap();
        Some(file)
    }
}

pub(crate) fn body(message: &Message) -> Value {
    serde_json::from_slice(&message.payload).unwrap()
}
