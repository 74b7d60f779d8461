//! What every part of the running service shares.

use std::sync::Arc;

use async_nats::jetstream::Message;
use orfeas_protocol::job::WorkItem;
use orfeas_protocol::{Channel, JobId, NodeId};
use orfeas_traces::Tracer;
use tokio::sync::watch;

use super::active::ActiveJobs;
use super::bus::Bus;
use super::convert::Converter;
use super::figures::BusyMeter;
use super::held::Yielded;
use super::index::JobIndex;
use super::line::Line;
use super::picture::Pictures;
use super::records::{Records, SeenRecords};
use super::weights::Weights;
use crate::config::WorkConfig;
use crate::history::{History, Recorder};
use crate::metrics::Metrics;
use crate::models::ModelCache;
use crate::pipeline::Engine;
use crate::recovery::Health;
use crate::scheduler::Scheduler;

/// The node, as its tasks see it.
pub(crate) struct NodeContext {
    pub(crate) id: NodeId,
    pub(crate) channels: Vec<Channel>,
    pub(crate) work: WorkConfig,
    pub(crate) bus: Bus,
    pub(crate) records: Records,
    /// Of jobs that wait.
    pub(crate) seen: SeenRecords,
    pub(crate) pictures: Pictures,
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) models: ModelCache,
    pub(crate) scheduler: Scheduler,
    pub(crate) active: ActiveJobs,
    /// Lanes that are left to others for a moment.
    pub(crate) yielded: Yielded,
    /// What only a new process heals.
    pub(crate) health: Health,
    pub(crate) weights: Weights,
    pub(crate) index: JobIndex,
    pub(crate) busy: BusyMeter,
    pub(crate) converter: Converter,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) tracer: Tracer,
    /// What has been learned from past jobs.
    pub(crate) history: History,
    /// Where outcomes go.
    pub(crate) recorder: Recorder,
    /// The region's open jobs in their order.
    pub(crate) line: Line,
    /// Tells when an operator has opened or shut the node's gate.
    pub(crate) gate_changed: watch::Sender<()>,
    /// Turns true once, when the node is asked to stop.
    pub(crate) draining: watch::Receiver<bool>,
}

/// The job that a work message is about.
pub(crate) fn job_of(message: &Message) -> Result<JobId, serde_json::Error> {
    serde_json::from_slice::<WorkItem>(&message.payload).map(|item| item.id)
}

/// Waits until the node is asked to stop. A node without anybody who could ask stops too.
pub(crate) async fn drained(draining: &mut watch::Receiver<bool>) {
    drop(draining.wait_for(|draining| *draining).await);
}
