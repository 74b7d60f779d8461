//! The node as a service: jobs off the queue and through the pipeline, requests of other systems, and the
//! care for what stands in NATS.
//!
//! ```text
//!   provision ─▶ bus (connection, buckets, stores)
//!                  │
//!   endpoints ─▶ submission ─▶ picture, records, queue          requests of other systems
//!   worker ────▶ job ────────▶ picture, records ─▶ scheduler    the queue's jobs
//!                  ├▶ generation ─▶ engine, recovery            their runs
//!                  └▶ verdict ─▶ outcome (result) | ending      how they end
//!   watcher ───▶ stop signals, open jobs ─▶ sweeper             what the records say
//!      ├───────▶ index ─▶ listing                               a tenant's jobs
//!      └───────▶ line ─▶ queue positions, estimates            who waits behind whom
//!   foresight ─▶ settings, progress weights, estimates          what past jobs tell about one job
//!   inventory ─▶ heartbeats (figures), `models`, `gpu`;   model_commands ─▶ load, unload, reload
//!                                                           node_commands ──▶ drain, pause, resume
//!   convert ───▶ results in other formats
//! ```
//! Decisions (`verdict`, `retry`, `progress`, the scheduler) are plain code; the rest are effects beside them.

mod active;
mod admission;
mod bus;
mod commands;
mod convert;
mod dead;
mod durability;
mod ending;
mod endpoints;
mod entropy;
mod figures;
mod foresight;
mod generation;
mod held;
mod index;
mod inventory;
mod job;
mod line;
mod listing;
mod model_commands;
mod node;
mod node_commands;
mod objects;
mod outcome;
mod picture;
mod progress;
mod provision;
mod queue;
mod records;
mod renewal;
mod retry;
mod spans;
mod start;
mod submission;
mod sweeper;
mod verdict;
mod watcher;
mod weights;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use orfeas_traces::Tracer;
use thiserror::Error;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

pub use bus::{BusError, CONNECT_LIMIT, Connection};
pub use dead::{DeadError, DeadLetter, DeadLetters};
pub use durability::check_durability;
pub(crate) use entropy::now;
pub use model_commands::{ModelCommand, ModelReply, ModelVerb};
pub use node_commands::{NodeCommand, NodeReply, NodeVerb};
pub use provision::{ProvisionError, Provisioned, provision};

use crate::admin::Readiness;
use crate::config::Config;
use crate::history::{self, History, Recorder};
use crate::metrics::Metrics;
use crate::models::ModelCache;
use crate::pipeline::Engine;
use crate::recovery::{Fault, Health, Mirror};
use crate::scheduler::EngineProbe;
use crate::scheduler::queue::{Gate, Policy};
use crate::scheduler::{Limits, Scheduler};
use crate::vram::{Memory, Plan};
use active::ActiveJobs;
use bus::{Bus, CALL_LIMIT};
use convert::Converter;
use endpoints::Endpoints;
use figures::BusyMeter;
use held::Yielded;
use index::JobIndex;
use line::Line;
use node::NodeContext;
use picture::Pictures;
use records::{Records, SeenRecords};
use watcher::OpenJobs;
use weights::Weights;
use worker::Worker;

/// How long a node that stops waits until the outcomes of its last jobs are written.
const FLUSH_LIMIT: Duration = Duration::from_secs(2);

/// The service cannot start.
#[derive(Debug, Error)]
pub enum StartError {
    /// A stream or bucket cannot be opened.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// The micro service cannot be registered.
    #[error("cannot start the micro service")]
    Endpoints(#[source] async_nats::Error),
}

/// The running service.
pub struct Service {
    node: Arc<NodeContext>,
    drain: Arc<watch::Sender<bool>>,
    endpoints: Endpoints,
    worker: JoinHandle<()>,
    background: Vec<JoinHandle<()>>,
}

impl Service {
    /// Starts to take work and requests. The streams and buckets are expected as [`provision()`] leaves them.
    ///
    /// # Errors
    /// A stream or bucket is missing, or NATS does not answer.
    pub async fn start(
        config: &Config,
        connection: Connection,
        engine: Arc<dyn Engine>,
        metrics: Arc<Metrics>,
        tracer: Tracer,
    ) -> Result<Self, StartError> {
        let bus = Bus::open(connection, config.region.clone()).await?;
        let (drain, draining) = watch::channel(false);
        let models = ModelCache::new(engine.clone(), config.models.clone(), metrics.clone());
        let drain = Arc::new(drain);
        let history = History::default();
        let (recorder, recording) = Recorder::new(bus.history.clone());
        let past = bus.history.clone();
        let scheduler = scheduler(config, engine.clone(), models.clone(), metrics.clone());
        let node = Arc::new(NodeContext {
            id: config.node_id.clone(),
            channels: config.channels.clone(),
            work: config.work.clone(),
            records: Records::new(&bus),
            seen: SeenRecords::default(),
            pictures: Pictures::new(bus.blocklist.clone(), bus.uploads.clone()),
            bus,
            engine,
            models,
            scheduler,
            active: ActiveJobs::default(),
            yielded: Yielded::default(),
            health: Health::default(),
            weights: Weights::new(mirror(config)),
            index: JobIndex::default(),
            busy: BusyMeter::default(),
            converter: Converter::default(),
            metrics,
            tracer,
            history: history.clone(),
            recorder,
            line: Line::default(),
            gate_changed: watch::Sender::default(),
            draining,
        });
        let worker = Worker::new(node.clone()).await?;
        let endpoints = Endpoints::start(node.clone()).await.map_err(StartError::Endpoints)?;
        let commands = model_commands::listen(&node).await.map_err(StartError::Endpoints)?;
        let orders = node_commands::listen(&node).await.map_err(StartError::Endpoints)?;
        let open = OpenJobs::default();
        let background = vec![
            tokio::spawn(node.scheduler.clone().drive()),
            tokio::spawn(watcher::watch(node.clone(), open.clone())),
            tokio::spawn(sweeper::housekeeping(node.clone(), open)),
            tokio::spawn(inventory::heartbeats(node.clone())),
            tokio::spawn(model_commands::serve(node.clone(), commands)),
            tokio::spawn(node_commands::serve(node.clone(), orders)),
            tokio::spawn(care_for_health(node.clone(), drain.clone())),
            tokio::spawn(line::tell(node.clone())),
            tokio::spawn(history::follow(history, past)),
            tokio::spawn(recording),
        ];
        Ok(Self { node, drain, endpoints, worker: tokio::spawn(worker.run()), background })
    }

    /// Whether the node can take work.
    pub fn readiness(&self) -> Arc<dyn Readiness> {
        self.node.clone()
    }

    /// The node's health: a fault means that the process has to be replaced once it has drained.
    pub fn health(&self) -> Health {
        self.node.health.clone()
    }

    /// Stops: no new work, running jobs may end within the drain limit, the rest goes back into the queue.
    pub async fn drain(self) {
        let _ = self.drain.send(true);
        self.endpoints.stop().await;
        if let Err(error) = self.worker.await {
            tracing::error!(%error, "worker ended badly");
        }
        // What the last jobs taught is worth a moment, and no more.
        self.node.recorder.flush(FLUSH_LIMIT).await;
        for task in self.background {
            task.abort();
        }
        self.node.scheduler.save().await;
        inventory::leave(&self.node).await;
        // The last acknowledgements are sent without a wait for an answer.
        if timeout(CALL_LIMIT, self.node.bus.client().flush()).await.is_err() {
            tracing::debug!("last messages not sent in time");
        }
    }
}

/// A node with a fault stops taking work at once, whoever asks it to stop later.
async fn care_for_health(node: Arc<NodeContext>, drain: Arc<watch::Sender<bool>>) {
    tokio::select! {
        () = node.engine.stopped() => node.health.fail(Fault::InferenceStopped),
        _ = node.health.failed() => {}
    }
    drain.send_replace(true);
}

/// Where missing weights come from.
fn mirror(config: &Config) -> Option<Mirror> {
    let source = config.models_source.clone()?;
    let models = config.models_folder.clone().or_else(crate::pipeline::models::default_folder)?;
    Some(Mirror::new(source, models))
}

fn scheduler(
    config: &Config,
    engine: Arc<dyn Engine>,
    models: ModelCache,
    metrics: Arc<Metrics>,
) -> Scheduler {
    let plan = Plan {
        limit_bytes: config.memory.budget_bytes,
        safety_margin: config.memory.safety_margin,
        is_main_memory: engine.uses_main_memory(),
        estimates_file: config
            .state_folder
            .as_ref()
            .map(|folder| folder.join(config.node_id.as_str()).join("estimates.json")),
    };
    let memory = Memory::open(plan, Arc::new(EngineProbe(engine.clone())));
    let limits = Limits { concurrency: config.work.concurrency.get(), policy: Policy::default() };
    Scheduler::new(engine, models, memory, limits, metrics)
}

impl Readiness for NodeContext {
    fn obstacle(&self) -> Option<&'static str> {
        if let Some(fault) = self.health.fault() {
            Some(fault.obstacle())
        } else if *self.draining.borrow() {
            Some("the node is stopping")
        } else if self.scheduler.gate() != Gate::Open {
            Some("the node is paused or drained, until its operator resumes it")
        } else if !self.bus.connection.is_up() {
            Some("nats is not connected")
        } else {
            None
        }
    }
}
