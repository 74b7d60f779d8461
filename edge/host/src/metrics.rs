//! All metrics of the edge host, declared in one place. Label values are bounded: routes come
//! from the manifest; methods, channels and codes from fixed sets.

use crate::guest::Failure;
use http::Method;
use orfeas_protocol::{Channel, Code};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use std::time::Duration;

/// From a static file (1 ms) to the longest synchronous job (600 s).
const DURATION_BUCKETS_SECONDS: [f64; 16] =
    [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    endpoint: String,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Requested {
    endpoint: String,
    method: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Rejected {
    code: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Served {
    channel: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

pub(crate) struct Metrics {
    registry: Registry,
    request_duration: Family<Answered, Histogram>,
    requests: Family<Requested, Counter>,
    wasm_instances: Gauge,
    wasm_failures: Family<Reason, Counter>,
    uploads_rejected: Family<Rejected, Counter>,
    canary_requests: Family<Served, Counter>,
    nats_reconnects: Counter,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let request_duration: Family<Answered, Histogram> =
            Family::new_with_constructor(|| Histogram::new(DURATION_BUCKETS_SECONDS));
        let metrics = Self {
            registry: Registry::default(),
            request_duration,
            requests: Family::default(),
            wasm_instances: Gauge::default(),
            wasm_failures: Family::default(),
            uploads_rejected: Family::default(),
            canary_requests: Family::default(),
            nats_reconnects: Counter::default(),
        };
        metrics.registered()
    }

    fn registered(mut self) -> Self {
        let registry = &mut self.registry;
        registry.register(
            "request_duration_seconds",
            "From the request's head to the end of the answer",
            self.request_duration.clone(),
        );
        // The encoder appends `_total` to counters.
        registry.register("requests", "Requests that have ended", self.requests.clone());
        registry.register(
            "orfeas_wasm_instances",
            "Component instances that are alive",
            self.wasm_instances.clone(),
        );
        registry.register(
            "orfeas_wasm_failures",
            "Component instances that ended by a trap, a deadline or a busy loop",
            self.wasm_failures.clone(),
        );
        registry.register(
            "orfeas_uploads_rejected",
            "Uploads refused, by problem code",
            self.uploads_rejected.clone(),
        );
        registry.register(
            "orfeas_canary_requests",
            "Jobs submitted, by rollout channel",
            self.canary_requests.clone(),
        );
        registry.register(
            "orfeas_nats_reconnects",
            "Connections of components to NATS that took the place of lost ones",
            self.nats_reconnects.clone(),
        );
        self
    }

    pub(crate) fn request_ended(&self, endpoint: &str, method: &Method, status: u16, duration: Duration) {
        let answered = Answered { endpoint: endpoint.to_owned(), status };
        self.request_duration.get_or_create(&answered).observe(duration.as_secs_f64());
        let requested = Requested { endpoint: endpoint.to_owned(), method: method_label(method) };
        self.requests.get_or_create(&requested).inc();
    }

    pub(crate) fn instances_changed(&self, by: i64) {
        self.wasm_instances.inc_by(by);
    }

    pub(crate) fn instance_failed(&self, failure: Failure) {
        self.wasm_failures.get_or_create(&Reason { reason: failure.name() }).inc();
    }

    /// Counts an upload that was refused with a problem code.
    pub(crate) fn upload_rejected(&self, code: &str) {
        let known = Code::ALL.iter().find(|known| known.as_str() == code);
        let code = known.map_or("other", |known| known.as_str());
        self.uploads_rejected.get_or_create(&Rejected { code }).inc();
    }

    pub(crate) fn channel_served(&self, channel: &str) {
        let channel = channel.parse().map_or("other", Channel::as_str);
        self.canary_requests.get_or_create(&Served { channel }).inc();
    }

    pub(crate) fn nats_reconnected(&self, count: u32) {
        self.nats_reconnects.inc_by(u64::from(count));
    }

    /// The OpenMetrics text.
    pub(crate) fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "OTHER",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_contract() {
        let metrics = Metrics::new();
        metrics.request_ended("/api/job/:id", &Method::GET, 200, Duration::from_millis(3));
        metrics.instances_changed(2);
        metrics.upload_rejected("invalid_image");
        metrics.channel_served("canary");
        metrics.instance_failed(Failure::Busy);
        let text = metrics.encode().unwrap();
        for line in [
            "request_duration_seconds_count{endpoint=\"/api/job/:id\",status=\"200\"} 1",
            "requests_total{endpoint=\"/api/job/:id\",method=\"GET\"} 1",
            "orfeas_wasm_instances 2",
            "orfeas_wasm_failures_total{reason=\"busy\"} 1",
            "orfeas_uploads_rejected_total{code=\"invalid_image\"} 1",
            "orfeas_canary_requests_total{channel=\"canary\"} 1",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
    }

    #[test]
    fn label_values_are_bounded() {
        let metrics = Metrics::new();
        for number in 0..100 {
            metrics.upload_rejected(&format!("code_{number}"));
            metrics.channel_served(&format!("channel{number}"));
            metrics.request_ended("/", &format!("M{number}").parse().unwrap(), 200, Duration::ZERO);
        }
        let text = metrics.encode().unwrap();
        assert!(text.contains("orfeas_uploads_rejected_total{code=\"other\"} 100"), "{text}");
        assert!(text.contains("orfeas_canary_requests_total{channel=\"other\"} 100"), "{text}");
        assert!(text.contains("requests_total{endpoint=\"/\",method=\"OTHER\"} 100"), "{text}");
    }
}
