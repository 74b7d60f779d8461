//! What a setting is where nobody has set it, and why.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::time::Duration;

/// One minute.
const MINUTE: Duration = Duration::from_secs(60);
/// One day.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// NATS's registered port on this machine.
pub(super) const NATS_URL: &str = "nats://127.0.0.1:4222";
/// The port that OpenTelemetry's Prometheus exporters use. Loopback, as metrics and readiness need no password.
pub(super) const ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9464);
/// One job on the device, one that brings its picture, one that stores its result: more would only keep
/// jobs from other nodes.
pub(super) const CONCURRENCY: NonZeroUsize = NonZeroUsize::MIN.saturating_add(2);
/// How long a dead node's jobs wait for another. In-progress acknowledgements go out three times as often,
/// so one lost message starts nothing twice.
pub(super) const ACK_WAIT: Duration = Duration::from_secs(30);
/// A job that took down or failed on this many starts is the cause, not the victim.
pub(super) const ATTEMPTS_MAX: u32 = 5;
/// Kubernetes kills 30 s after it asked nicely.
pub(super) const DRAIN_LIMIT: Duration = Duration::from_secs(25);
/// An hour of work for a node that takes 360 ms each; beyond that a caller is better told to come back.
pub(super) const QUEUE_MESSAGES_MAX: u32 = 10_000;
/// Messages of one lane that wait on this node, so that its scheduler has something to choose from: a few minutes of
/// work, which another node that has none may ask for.
pub(super) const LOOK_AHEAD: NonZeroUsize = NonZeroUsize::MIN.saturating_add(31);
/// The fifth that is left covers fragmentation, the driver, and the largest job yet to come.
pub(super) const SAFETY_MARGIN: f64 = 0.8;
/// Long enough to submit the same picture again with other options next week.
pub(super) const UPLOADS_RETENTION: Duration = DAY.saturating_mul(7);
/// Results are the bulk of the disk.
pub(super) const RESULTS_RETENTION: Duration = DAY.saturating_mul(7);
/// Records outlive results, so that a late caller reads `result_expired`, not `not_found`.
pub(super) const RECORDS_RETENTION: Duration = DAY.saturating_mul(14);
/// Time for an operator to look at what was given up.
pub(super) const DEAD_RETENTION: Duration = DAY.saturating_mul(30);
/// What predictions learn from; older outcomes are of older models.
pub(super) const HISTORY_RETENTION: Duration = DAY.saturating_mul(90);
/// A neural family at its best preset takes a minute on a large card and several on a small one.
pub(super) const JOB_LIMIT: Duration = MINUTE.saturating_mul(10);
/// The longest silence of a thread that works: one denoising step, or one chunk, of a neural family on a CPU.
pub(super) const STALL_LIMIT: Duration = MINUTE.saturating_mul(5);

/// How long a model is safe from eviction after its last use: shorter than a lease waits, so that a job which needs
/// the room gets it.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// How long a job waits for its model: 5 GB come off a network mount in this time.
pub(super) const LOAD_LIMIT: Duration = MINUTE;
