//! Names on the message bus: subjects, streams, buckets and keys of a region.

use crate::ids::{JobId, Region, Sha256Digest};
use crate::options::{ModelFormat, Priority};
use crate::rollout::Channel;

/// The micro service's name (NATS ADR-32).
pub const SERVICE: &str = "orfeas";
/// Header of `generate` and `submit` requests: the options as a JSON object.
pub const HEADER_OPTIONS: &str = "Orfeas-Options";
/// Header that carries the W3C trace context.
pub const HEADER_TRACEPARENT: &str = "traceparent";
/// Header that carries the request's correlation id.
pub const HEADER_REQUEST_ID: &str = "X-Request-Id";
/// KV bucket of blocked files, for all regions.
pub const BLOCKLIST_BUCKET: &str = "orfeas_blocklist";
/// KV bucket of the rollout's state, for all regions.
pub const ROLLOUT_BUCKET: &str = "orfeas_rollout";
/// KV bucket of API keys, for all regions.
pub const KEYS_BUCKET: &str = "orfeas_keys";

/// A key in the block list.
pub fn blocklist_key(digest: &Sha256Digest) -> String {
    format!("sha256.{digest}")
}

/// The object in the results store that holds a job's result in another format than it was made in.
pub fn results_object(id: JobId, format: ModelFormat) -> String {
    format!("{id}.{format}")
}

/// The names of one region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names<'a> {
    region: &'a Region,
}

impl Region {
    /// The region's names on the message bus.
    pub fn names(&self) -> Names<'_> {
        Names { region: self }
    }
}

impl Names<'_> {
    /// A micro service endpoint: `generate`, `submit`, `status`, `cancel`, `gpu`, `models`, and what the edge
    /// asks of a node: `list` and `convert`.
    pub fn endpoint(&self, name: &str) -> String {
        format!("orfeas.{}.{name}", self.region)
    }

    /// A command to the models of the region's nodes: `load`, `unload` or `reload`.
    pub fn model_command(&self, verb: &str) -> String {
        format!("orfeas.{}.models.{verb}", self.region)
    }

    /// All commands to the models of the region's nodes.
    pub fn all_model_commands(&self) -> String {
        format!("orfeas.{}.models.*", self.region)
    }

    /// A command to the region's nodes: `drain`, `pause` or `resume`.
    pub fn node_command(&self, verb: &str) -> String {
        format!("orfeas.{}.nodes.{verb}", self.region)
    }

    /// All commands to the region's nodes.
    pub fn all_node_commands(&self) -> String {
        format!("orfeas.{}.nodes.*", self.region)
    }

    /// Where a job's changes are published.
    pub fn events(&self, id: JobId) -> String {
        format!("orfeas.{}.events.{id}", self.region)
    }

    /// Where a job waits: one subject per channel and priority, because a work queue is first in, first out.
    pub fn work(&self, channel: Channel, priority: Priority) -> String {
        format!("orfeas.{}.jobs.{channel}.{priority}", self.region)
    }

    /// All work of the region.
    pub fn all_work(&self) -> String {
        format!("orfeas.{}.jobs.>", self.region)
    }

    /// Where the server repeats a work message's headers once the message is stored: the nodes' wake-up call.
    /// The subject of the work itself is no good for that, as it is heard before the message can be fetched.
    pub fn wake(&self, channel: Channel, priority: Priority) -> String {
        format!("orfeas.{}.wake.{channel}.{priority}", self.region)
    }

    /// All wake-up calls of the region.
    pub fn all_wake(&self) -> String {
        format!("orfeas.{}.wake.>", self.region)
    }

    /// Where a node that has nothing to do says so, and nodes that hold waiting jobs listen.
    pub fn hungry(&self) -> String {
        format!("orfeas.{}.hungry", self.region)
    }

    /// Where jobs that were given up are kept.
    pub fn dead(&self, id: JobId) -> String {
        format!("orfeas.{}.dead.{id}", self.region)
    }

    /// All given-up jobs of the region.
    pub fn all_dead(&self) -> String {
        format!("orfeas.{}.dead.>", self.region)
    }

    /// The work-queue stream.
    pub fn jobs_stream(&self) -> String {
        format!("ORFEAS_JOBS_{}", self.region.bucket_suffix().to_uppercase())
    }

    /// The stream of given-up jobs.
    pub fn dead_stream(&self) -> String {
        format!("ORFEAS_DEAD_{}", self.region.bucket_suffix().to_uppercase())
    }

    /// KV bucket of job records, by job id.
    pub fn jobs_bucket(&self) -> String {
        format!("orfeas_jobs_{}", self.region.bucket_suffix())
    }

    /// KV bucket of node heartbeats, by node id.
    pub fn nodes_bucket(&self) -> String {
        format!("orfeas_nodes_{}", self.region.bucket_suffix())
    }

    /// KV bucket of past outcomes.
    pub fn history_bucket(&self) -> String {
        format!("orfeas_history_{}", self.region.bucket_suffix())
    }

    /// KV bucket of idempotency keys.
    pub fn idempotency_bucket(&self) -> String {
        format!("orfeas_idempotency_{}", self.region.bucket_suffix())
    }

    /// KV bucket of what each tenant uses, by tenant.
    pub fn tenants_bucket(&self) -> String {
        format!("orfeas_tenants_{}", self.region.bucket_suffix())
    }

    /// Object store of pictures, by digest.
    pub fn uploads_bucket(&self) -> String {
        format!("orfeas_uploads_{}", self.region.bucket_suffix())
    }

    /// Object store of results, by job id.
    pub fn results_bucket(&self) -> String {
        format!("orfeas_results_{}", self.region.bucket_suffix())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_contract() {
        let region: Region = "eu-1".parse().unwrap();
        let names = region.names();
        assert_eq!(names.work(Channel::Canary, Priority::default()), "orfeas.eu-1.jobs.canary.5");
        assert_eq!(names.jobs_stream(), "ORFEAS_JOBS_EU_1");
        assert_eq!(names.uploads_bucket(), "orfeas_uploads_eu_1");
        assert_eq!(names.endpoint("generate"), "orfeas.eu-1.generate");
    }
}
