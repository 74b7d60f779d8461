//! `models load|unload|reload`: a command to the nodes that serve, and their answers.

use std::time::Duration;

use anyhow::{Context, bail};
use async_nats::service::NATS_SERVICE_ERROR_CODE;
use clap::Args;
use futures::{StreamExt, TryStreamExt};
use orfeas_protocol::problem::Problem;
use orfeas_protocol::{NodeId, Region};
use tokio::time::{Instant, timeout_at};

use super::connect;
use crate::config::NatsFlags;
use crate::service::{ModelCommand, ModelReply, ModelVerb};

/// A node waits a minute for room and as long for the load, and answers then at the latest.
const ANSWER_LIMIT: Duration = Duration::from_secs(130);

/// Whom to tell what.
#[derive(Debug, Args)]
pub(super) struct ModelTarget {
    /// The model family
    family: String,
    /// The node [default: every node of the region]
    #[arg(long, value_name = "NAME")]
    node: Option<NodeId>,
    /// Deployment region
    #[arg(long, env = "ORFEAS_REGION", value_name = "NAME", default_value = "local")]
    region: Region,
    #[command(flatten)]
    nats: NatsFlags,
}

impl ModelTarget {
    /// Sends the command and prints each node's answer.
    pub(super) async fn tell(self, verb: ModelVerb) -> anyhow::Result<()> {
        let connection = connect(self.nats).await?;
        let names = self.region.names();
        let nodes = connection.bucket(&names.nodes_bucket()).await;
        let nodes = nodes.context("is there a node that serves? it creates the nodes' bucket")?;
        let nodes: Vec<String> = nodes.keys().await?.try_collect().await?;
        let expected: Vec<&str> = match &self.node {
            Some(node) => vec![node.as_str()],
            None => nodes.iter().map(String::as_str).collect(),
        };
        if expected.is_empty() {
            bail!("no node serves region {}", self.region);
        }

        let client = connection.client();
        let inbox = client.new_inbox();
        let mut answers = client.subscribe(inbox.clone()).await?;
        let command = ModelCommand { family: self.family, node: self.node.clone() };
        let payload = serde_json::to_vec(&command)?.into();
        client.publish_with_reply(names.model_command(verb.as_str()), inbox, payload).await?;
        let deadline = Instant::now() + ANSWER_LIMIT;
        let mut missing = expected.len();
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

fn line(reply: &ModelReply) -> String {
    let ModelReply { node, family, version, changed } = reply;
    match (version, changed) {
        (Some(version), true) => format!("{node}: {family} {version} serves"),
        (Some(version), false) => format!("{node}: {family} {version} serves as before"),
        (None, true) => format!("{node}: {family} unloaded"),
        (None, false) => format!("{node}: {family} was not loaded"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_answer_is_a_line_that_names_its_node() {
        let reply = |version: Option<&str>, changed| ModelReply {
            node: "gpu-1".parse().unwrap(),
            family: "silhouette".to_owned(),
            version: version.map(str::to_owned),
            changed,
        };
        assert_eq!(line(&reply(Some("2"), true)), "gpu-1: silhouette 2 serves");
        assert_eq!(line(&reply(Some("2"), false)), "gpu-1: silhouette 2 serves as before");
        assert_eq!(line(&reply(None, true)), "gpu-1: silhouette unloaded");
        assert_eq!(line(&reply(None, false)), "gpu-1: silhouette was not loaded");
    }
}
