//! Every metric of the node, declared in one place; the names are those of the contract.

use std::time::Duration;

use orfeas_protocol::options::JobType;
use orfeas_protocol::problem::Code;
use orfeas_protocol::{Channel, JobStatus};
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::history::Verified;
use crate::recovery::Rung;
use crate::vram::Figures;

/// Seconds: the contract's 0.1 to 600, and below for what is answered at once.
const REQUEST_SECONDS: [f64; 16] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0];
/// Seconds: from a hand-over on an idle node to a backlog of an hour.
const QUEUE_WAIT_SECONDS: [f64; 14] =
    [0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 1_800.0, 3_600.0];
/// Estimated over actual time, less one. At 0 or below the job took longer: so should a tenth of the upper estimates.
const ETA_ERROR_RATIOS: [f64; 12] = [-0.75, -0.5, -0.25, -0.1, 0.0, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0];
/// Seconds: from a check between two small steps to a stage that cannot be interrupted.
const CANCEL_SECONDS: [f64; 10] = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];
/// Seconds: from an export of a small mesh to a denoising loop on a CPU.
const STAGE_SECONDS: [f64; 13] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0];

/// Seconds: from a family without weights to 5 GB off a network mount.
const MODEL_LOAD_SECONDS: [f64; 10] = [0.001, 0.01, 0.1, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0];
/// By how much an estimate was off, of the need: half of it, exact within 5 %, twice, five times.
const ESTIMATE_ERROR_RATIO: [f64; 12] = [-0.5, -0.2, -0.1, -0.05, 0.0, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 4.0];

/// The node's metrics. Values are kept in atomics; reading them out takes no lock of the work's.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Jobs that ended here.
    pub jobs: Family<JobLabels, Counter>,
    /// Wall time of a pipeline stage.
    pub stage_seconds: Family<StageLabels, Histogram>,
    /// By how much estimates of a job's end were off: 0 is exact, 1 twice the time, -0.5 half of it.
    pub eta_error_ratio: Family<EstimateLabels, Histogram>,
    /// From a caller's wish to stop a running job, as this node hears of it, to the end of its pipeline.
    pub cancel_latency_seconds: Family<StageLabels, Histogram>,
    /// Messages in the region's queue.
    pub queue_depth: Family<PriorityLabels, Gauge>,
    /// From submission to the first start.
    pub queue_wait_seconds: Histogram,
    /// Time to answer a request of the micro service.
    pub request_seconds: Family<RequestLabels, Histogram>,
    /// Requests of the micro service.
    pub requests: Family<EndpointLabels, Counter>,
    /// Pictures refused.
    pub uploads_rejected: Family<CodeLabels, Counter>,
    /// Jobs accepted, by channel.
    pub canary_requests: Family<ChannelLabels, Counter>,
    /// Reconnections to NATS.
    pub nats_reconnects: Counter,
    /// Models loaded.
    pub model_loads: Counter,
    /// Time to load a model, without the wait for room.
    pub model_load_seconds: Histogram,
    /// Leases of a model that was loaded already.
    pub model_cache_hits: Counter,
    /// Rungs of the recovery ladder that were taken.
    pub recoveries: Family<RecoveryLabels, Counter>,
    /// Memory of the device.
    pub vram_bytes: Family<KindLabels, Gauge>,
    /// Estimated over measured need of memory, minus one.
    pub vram_estimate_error: Histogram,
    /// Jobs that left memory behind.
    pub memory_leaks: Counter,
    /// Outcomes that nothing is learned from, as too many waited to be written.
    pub outcomes_dropped: Counter,
}

/// Of a job that ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct JobLabels {
    r#type: &'static str,
    status: &'static str,
}

/// Of a stage.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct StageLabels {
    stage: &'static str,
}

/// Of an estimate of a job's end that was given and can be compared with what came.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct EstimateLabels {
    /// `p50` or `p90`.
    estimate: &'static str,
    /// Where the job stood when it was given.
    phase: &'static str,
}

/// Of a queue.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PriorityLabels {
    /// 1 to 10.
    pub priority: u8,
}

/// Of an answered request.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    endpoint: &'static str,
    status: u16,
}

/// Of a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct EndpointLabels {
    endpoint: &'static str,
    method: &'static str,
}

/// Of a refusal.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CodeLabels {
    code: &'static str,
}

/// Of a part of the device's memory.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct KindLabels {
    kind: &'static str,
}

/// Of an accepted job.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ChannelLabels {
    channel: &'static str,
}

/// Of a rung of the recovery ladder.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RecoveryLabels {
    strategy: &'static str,
    /// How the try after it ended: `recovered` or `failed`.
    outcome: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All metrics, at zero.
    pub fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::default(),
            jobs: Family::default(),
            stage_seconds: Family::new_with_constructor(|| Histogram::new(STAGE_SECONDS)),
            eta_error_ratio: Family::new_with_constructor(|| Histogram::new(ETA_ERROR_RATIOS)),
            cancel_latency_seconds: Family::new_with_constructor(|| Histogram::new(CANCEL_SECONDS)),
            queue_depth: Family::default(),
            queue_wait_seconds: Histogram::new(QUEUE_WAIT_SECONDS),
            request_seconds: Family::new_with_constructor(|| Histogram::new(REQUEST_SECONDS)),
            requests: Family::default(),
            uploads_rejected: Family::default(),
            canary_requests: Family::default(),
            nats_reconnects: Counter::default(),
            model_loads: Counter::default(),
            model_load_seconds: Histogram::new(MODEL_LOAD_SECONDS),
            model_cache_hits: Counter::default(),
            recoveries: Family::default(),
            vram_bytes: Family::default(),
            vram_estimate_error: Histogram::new(ESTIMATE_ERROR_RATIO),
            memory_leaks: Counter::default(),
            outcomes_dropped: Counter::default(),
        };
        metrics.register();
        metrics
    }

    /// The encoder adds `_total` to counters.
    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "request_duration_seconds",
            "Time to answer a request",
            self.request_seconds.clone(),
        );
        registry.register("requests", "Requests", self.requests.clone());
        let orfeas = registry.sub_registry_with_prefix("orfeas");
        orfeas.register("jobs", "Jobs that ended on this node", self.jobs.clone());
        let stages = self.stage_seconds.clone();
        orfeas.register("job_stage_duration_seconds", "Wall time of a pipeline stage", stages);
        let errors = self.eta_error_ratio.clone();
        orfeas.register("eta_error_ratio", "Estimated over actual time until a job's end, less one", errors);
        let latencies = self.cancel_latency_seconds.clone();
        orfeas.register("cancel_latency_seconds", "From a cancel of a running job to its stop", latencies);
        orfeas.register("queue_depth", "Messages in the region's queue", self.queue_depth.clone());
        let waits = self.queue_wait_seconds.clone();
        orfeas.register("queue_wait_seconds", "From submission to the first start", waits);
        orfeas.register("uploads_rejected", "Pictures that were refused", self.uploads_rejected.clone());
        orfeas.register("canary_requests", "Jobs accepted, by channel", self.canary_requests.clone());
        orfeas.register("nats_reconnects", "Reconnections to NATS", self.nats_reconnects.clone());
        orfeas.register("model_loads", "Models loaded", self.model_loads.clone());
        orfeas.register("model_load_seconds", "Time to load a model", self.model_load_seconds.clone());
        let hits = self.model_cache_hits.clone();
        orfeas.register("model_cache_hits", "Leases of a model that was loaded already", hits);
        orfeas.register(
            "recoveries",
            "Rungs of the recovery ladder that were taken",
            self.recoveries.clone(),
        );
        orfeas.register("vram_bytes", "Memory of the device", self.vram_bytes.clone());
        let errors = self.vram_estimate_error.clone();
        orfeas.register("vram_estimate_error_ratio", "Estimated over measured memory, minus one", errors);
        orfeas.register("memory_leaks", "Jobs that left memory behind", self.memory_leaks.clone());
        let dropped = self.outcomes_dropped.clone();
        orfeas.register("outcomes_dropped", "Outcomes of jobs that were not written", dropped);
    }

    /// A job ended on this node.
    pub fn job_ended(&self, job_type: JobType, status: JobStatus) {
        self.jobs.get_or_create(&JobLabels { r#type: job_type.as_str(), status: status.as_str() }).inc();
    }

    /// A stage ran.
    pub fn stage_ran(&self, stage: &'static str, seconds: f64) {
        self.stage_seconds.get_or_create(&StageLabels { stage }).observe(seconds);
    }

    /// A running job was stopped, `seconds` after it should.
    pub fn cancelled(&self, stage: &'static str, seconds: f64) {
        self.cancel_latency_seconds.get_or_create(&StageLabels { stage }).observe(seconds);
    }

    /// An estimate of a job's end can be compared with what came.
    pub fn eta_verified(&self, verified: &Verified) {
        let phase = verified.phase.as_str();
        for (estimate, told) in [("p50", verified.p50), ("p90", verified.p90)] {
            if verified.actual > 0.0 {
                let labels = EstimateLabels { estimate, phase };
                self.eta_error_ratio.get_or_create(&labels).observe(told / verified.actual - 1.0);
            }
        }
    }

    /// A try ended that rungs of the recovery ladder were taken for.
    pub fn recovered(&self, rungs: &[Rung], is_ok: bool) {
        let outcome = if is_ok { "recovered" } else { "failed" };
        for rung in rungs {
            self.recoveries.get_or_create(&RecoveryLabels { strategy: rung.as_str(), outcome }).inc();
        }
    }

    /// The device's memory stands like this.
    pub fn vram(&self, figures: &Figures) {
        for (kind, bytes) in [
            ("total", figures.total_bytes),
            ("budget", figures.budget_bytes),
            ("reserved", figures.reserved_bytes),
            ("allocated", figures.allocated_bytes),
            ("free", figures.free_bytes),
            ("peak", figures.peak_bytes),
        ] {
            let gauge = self.vram_bytes.get_or_create(&KindLabels { kind });
            gauge.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        }
    }

    /// A request of the micro service was answered.
    pub fn request_answered(&self, endpoint: &'static str, status: u16, took: Duration) {
        self.requests.get_or_create(&EndpointLabels { endpoint, method: "nats" }).inc();
        self.request_seconds.get_or_create(&RequestLabels { endpoint, status }).observe(took.as_secs_f64());
    }

    /// A picture was refused.
    pub fn upload_rejected(&self, code: Code) {
        self.uploads_rejected.get_or_create(&CodeLabels { code: code.as_str() }).inc();
    }

    /// A job was accepted.
    pub fn job_accepted(&self, channel: Channel) {
        self.canary_requests.get_or_create(&ChannelLabels { channel: channel.as_str() }).inc();
    }

    /// The exposition in OpenMetrics text, which Prometheus reads.
    ///
    /// # Errors
    /// A value cannot be formatted.
    pub fn exposition(&self) -> Result<String, std::fmt::Error> {
        let mut out = String::new();
        text::encode(&mut out, &self.registry)?;
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Phase;

    #[test]
    fn names_and_labels_are_those_of_the_contract() {
        let metrics = Metrics::new();
        metrics.job_ended(JobType::Generation3d, JobStatus::Completed);
        metrics.stage_ran("shape", 0.2);
        metrics.queue_depth.get_or_create(&PriorityLabels { priority: 5 }).set(3);
        metrics.queue_wait_seconds.observe(0.004);
        metrics.request_answered("submit", 200, Duration::from_millis(12));
        metrics.upload_rejected(Code::FileFlagged);
        metrics.job_accepted(Channel::Canary);
        metrics.recovered(&[Rung::EmptyCache, Rung::EvictIdle], true);
        metrics.cancelled("shape", 0.02);
        metrics.eta_verified(&Verified {
            phase: Phase::Early,
            raw_p50: 1.0,
            raw_p90: 1.0,
            p50: 1.0,
            p90: 3.0,
            actual: 2.0,
        });
        metrics.vram(&Figures { total_bytes: 8, reserved_bytes: 2, ..Figures::default() });
        metrics.vram_estimate_error.observe(0.04);
        let text = metrics.exposition().unwrap();
        for sample in [
            "orfeas_jobs_total{type=\"3d_generation\",status=\"completed\"} 1",
            "orfeas_job_stage_duration_seconds_count{stage=\"shape\"} 1",
            "orfeas_eta_error_ratio_bucket{le=\"0.0\",estimate=\"p50\",phase=\"early\"} 1",
            "orfeas_eta_error_ratio_bucket{le=\"0.0\",estimate=\"p90\",phase=\"early\"} 0",
            "orfeas_cancel_latency_seconds_count{stage=\"shape\"} 1",
            "orfeas_queue_depth{priority=\"5\"} 3",
            "orfeas_queue_wait_seconds_bucket{le=\"0.005\"} 1",
            "request_duration_seconds_count{endpoint=\"submit\",status=\"200\"} 1",
            "requests_total{endpoint=\"submit\",method=\"nats\"} 1",
            "orfeas_uploads_rejected_total{code=\"file_flagged\"} 1",
            "orfeas_canary_requests_total{channel=\"canary\"} 1",
            "orfeas_nats_reconnects_total 0",
            "orfeas_model_loads_total 0",
            "orfeas_model_load_seconds_count 0",
            "orfeas_model_cache_hits_total 0",
            "orfeas_recoveries_total{strategy=\"evict_idle\",outcome=\"recovered\"} 1",
            "orfeas_vram_bytes{kind=\"total\"} 8",
            "orfeas_vram_bytes{kind=\"reserved\"} 2",
            "orfeas_vram_estimate_error_ratio_bucket{le=\"0.05\"} 1",
            "orfeas_memory_leaks_total 0",
            "orfeas_outcomes_dropped_total 0",
        ] {
            assert!(text.lines().any(|line| line == sample), "{sample} is missing in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }
}
