//! `models load|unload|reload`: a command to the nodes that serve, and their answers.

use std::time::Duration;

use clap::Args;

use super::fleet::Fleet;
use crate::service::{ModelCommand, ModelReply, ModelVerb};

/// A node waits a minute for room and as long for the load, and answers then at the latest.
const ANSWER_LIMIT: Duration = Duration::from_secs(130);

/// Whom to tell what.
#[derive(Debug, Args)]
pub(super) struct ModelTarget {
    /// The model family
    family: String,
    #[command(flatten)]
    fleet: Fleet,
}

impl ModelTarget {
    /// Sends the command and prints each node's answer.
    pub(super) async fn tell(self, verb: ModelVerb) -> anyhow::Result<()> {
        let command = ModelCommand { family: self.family, node: self.fleet.node.clone() };
        let subject = self.fleet.region.names().model_command(verb.as_str());
        self.fleet.tell(subject, &command, ANSWER_LIMIT, line).await
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
