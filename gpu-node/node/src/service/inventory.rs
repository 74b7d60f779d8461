//! Which nodes are there and what they run: heartbeats into the nodes bucket, and what is made of them.
//!
//! ```text
//!  each node ─▶ heartbeat ─▶ nodes bucket ─┬▶ devices, models: the answers of `gpu` and `models`
//!                                          └▶ who serves a channel, and is large enough for a job
//! ```

mod devices;
#[cfg(test)]
mod fixture;
mod heartbeat;
mod models;

use orfeas_protocol::{Channel, NodeId};

use super::node::NodeContext;
pub(crate) use devices::gpu;
use heartbeat::Heartbeat;
pub(crate) use heartbeat::{heartbeats, leave};
pub(crate) use models::models;

/// A node, and the channels that it serves.
pub(crate) type Serving = (NodeId, Vec<Channel>);

/// The nodes that take jobs, with their channels.
///
/// # Errors
/// NATS does not answer.
pub(crate) async fn serving(node: &NodeContext) -> Result<Vec<Serving>, async_nats::Error> {
    let heartbeats = heartbeat::read(node).await?;
    let serving = heartbeats.into_iter().filter(Heartbeat::takes_jobs);
    Ok(serving.map(|heartbeat| (heartbeat.node, heartbeat.channels)).collect())
}

/// Whether another node of the region serves the channel and is large enough.
pub(crate) async fn fits_elsewhere(
    node: &NodeContext,
    channel: Channel,
    needed_bytes: u64,
) -> Result<bool, async_nats::Error> {
    Ok(is_large_enough(&heartbeat::read(node).await?, &node.id, channel, needed_bytes))
}

fn is_large_enough(heartbeats: &[Heartbeat], here: &NodeId, channel: Channel, needed_bytes: u64) -> bool {
    heartbeats.iter().any(|heartbeat| {
        heartbeat.node != *here
            && heartbeat.takes_jobs()
            && heartbeat.channels.contains(&channel)
            && heartbeat.memory_ceiling_bytes.is_none_or(|ceiling_bytes| needed_bytes <= ceiling_bytes)
    })
}

#[cfg(test)]
mod tests {
    use super::fixture::heartbeat;
    use super::*;

    #[test]
    fn a_job_that_is_too_large_here_fits_on_a_larger_node_of_its_channel_only() {
        let here: NodeId = "a".parse().unwrap();
        let node = |name, channel, ceiling| Heartbeat {
            memory_ceiling_bytes: Some(ceiling),
            ..heartbeat(name, "1", channel)
        };
        let nodes =
            [node("a", Channel::Stable, 9), node("b", Channel::Stable, 5), node("c", Channel::Canary, 9)];
        assert!(is_large_enough(&nodes, &here, Channel::Stable, 5));
        assert!(!is_large_enough(&nodes, &here, Channel::Stable, 6));
        assert!(is_large_enough(&nodes, &here, Channel::Canary, 6));
        let paused = Heartbeat { state: "paused".to_owned(), ..node("c", Channel::Canary, 9) };
        assert!(!is_large_enough(&[paused], &here, Channel::Canary, 6), "it takes no jobs");
    }
}
