//! Commands to the nodes of a region: sent once, answered by each.

use std::time::Duration;

use anyhow::{Context, bail};
use async_nats::service::NATS_SERVICE_ERROR_CODE;
use clap::Args;
use futures::{StreamExt, TryStreamExt};
use orfeas_protocol::problem::Problem;
use orfeas_protocol::{NodeId, Region};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout_at};

use super::connect;
use crate::config::NatsFlags;

/// Which nodes are meant.
#[derive(Debug, Args)]
pub(super) struct Fleet {
    /// The node [default: every node of the region]
    #[arg(long, value_name = "NAME")]
    pub(super) node: Option<NodeId>,
    /// Deployment region
    #[arg(long, env = "ORFEAS_REGION", value_name = "NAME", default_value = "local")]
    pub(super) region: Region,
    #[command(flatten)]
    nats: NatsFlags,
}

impl Fleet {
    /// Sends a command and prints a line for each node's answer; waits for them for at most `limit`.
    ///
    /// # Errors
    /// No node serves, one of them refuses, or does not answer.
    pub(super) async fn tell<R: DeserializeOwned>(
        self,
        subject: String,
        command: &impl Serialize,
        limit: Duration,
        line: impl Fn(&R) -> String,
    ) -> anyhow::Result<()> {
        let connection = connect(self.nats).await?;
        let names = self.region.names();
        let nodes = connection.bucket(&names.nodes_bucket()).await;
        let nodes = nodes.context("is there a node that serves? it creates the nodes' bucket")?;
        let nodes: Vec<String> = nodes.keys().await?.try_collect().await?;
        let mut missing = if self.node.is_some() { 1 } else { nodes.len() };
        if missing == 0 {
            bail!("no node serves region {}", self.region);
        }
        let client = connection.client();
        let inbox = client.new_inbox();
        let mut answers = client.subscribe(inbox.clone()).await?;
        client.publish_with_reply(subject, inbox, serde_json::to_vec(command)?.into()).await?;
        let deadline = Instant::now() + limit;
        let mut failed = 0;
        while missing > 0 {
            let Ok(Some(answer)) = timeout_at(deadline, answers.next()).await else { break };
            // The server's word that nobody listens.
            if answer.status.is_some() {
                break;
            }
            missing -= 1;
            let is_problem =
                answer.headers.as_ref().is_some_and(|headers| headers.get(NATS_SERVICE_ERROR_CODE).is_some());
            if is_problem {
                failed += 1;
                let problem: Problem = serde_json::from_slice(&answer.payload)?;
                let node = problem.extensions.get("node").and_then(|node| node.as_str()).unwrap_or("a node");
                eprintln!("{node}: {}", problem.detail);
            } else {
                println!("{}", line(&serde_json::from_slice(&answer.payload)?));
            }
        }
        if failed > 0 || missing > 0 {
            bail!("{failed} nodes failed, {missing} did not answer");
        }
        Ok(())
    }
}
