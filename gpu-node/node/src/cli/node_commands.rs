//! `drain|pause|resume`: a command to the nodes that serve, and their answers.

use std::time::Duration;

use clap::Args;

use super::fleet::Fleet;
use crate::service::{NodeCommand, NodeReply, NodeVerb};

/// A node answers at once, whatever it has to finish.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// Whom to tell.
#[derive(Debug, Args)]
pub(super) struct NodeTarget {
    #[command(flatten)]
    fleet: Fleet,
}

impl NodeTarget {
    /// Sends the command and prints each node's answer.
    pub(super) async fn tell(self, verb: NodeVerb) -> anyhow::Result<()> {
        let command = NodeCommand { node: self.fleet.node.clone() };
        let subject = self.fleet.region.names().node_command(verb.as_str());
        self.fleet.tell(subject, &command, ANSWER_LIMIT, line).await
    }
}

fn line(reply: &NodeReply) -> String {
    let NodeReply { node, state, changed, jobs_running, jobs_waiting, jobs_handed_back } = reply;
    let before = if *changed { "" } else { " as before" };
    format!(
        "{node}: {state}{before}; {jobs_running} run, {jobs_waiting} wait, {jobs_handed_back} handed back"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_answer_is_a_line_that_names_its_node_and_its_state() {
        let reply = NodeReply {
            node: "gpu-1".parse().unwrap(),
            state: "draining".to_owned(),
            changed: true,
            jobs_running: 1,
            jobs_waiting: 0,
            jobs_handed_back: 3,
        };
        assert_eq!(line(&reply), "gpu-1: draining; 1 run, 0 wait, 3 handed back");
        let again = NodeReply { changed: false, jobs_handed_back: 0, ..reply };
        assert_eq!(line(&again), "gpu-1: draining as before; 1 run, 0 wait, 0 handed back");
    }
}
