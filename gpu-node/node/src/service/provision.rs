//! The streams and buckets of a region: what they have to look like, and bringing them there.
//!
//! KV buckets and object stores are streams with settings that NATS's ADR-8 and ADR-20 fix, so one table of
//! stream configurations holds them all. Bringing them there is idempotent: what is missing is created, what
//! differs is updated, and what the server does not let us update is reported with the settings by name.

use std::time::Duration;

use async_nats::jetstream::Context;
use async_nats::jetstream::context::GetStreamErrorKind;
use async_nats::jetstream::stream::{
    Config as StreamConfig, DiscardPolicy, Republish, RetentionPolicy, StorageType,
};
use orfeas_protocol::subjects::{BLOCKLIST_BUCKET, KEYS_BUCKET, Names, ROLLOUT_BUCKET};
use thiserror::Error;

use crate::config::Config;

/// A work message holds a job id.
const WORK_BYTES_MAX: i32 = 16 * 1024;
/// A job record is one to four KiB; options and model names are bounded.
const RECORD_BYTES_MAX: i32 = 64 * 1024;
/// Jobs that were given up, at most: enough to see what went wrong.
const DEAD_MESSAGES_MAX: i64 = 100_000;
/// Outcomes of all tenants, at most: about 100 MB on disk, and a second or two for a node that starts to read.
const OUTCOMES_MAX: i64 = 100_000;
/// Publishes with the same id within this time are one.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);
/// A node that has been silent for this long is gone; it reports three times as often.
pub(crate) const NODE_TTL: Duration = Duration::from_secs(15);
/// The contract's promise for idempotency keys.
const IDEMPOTENCY_TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// Values of the small buckets: a rollout state, a key, a heartbeat, an outcome.
const SMALL_VALUE_BYTES_MAX: i32 = 16 * 1024;

/// Why the streams are not as they have to be.
#[derive(Debug, Error)]
pub enum ProvisionError {
    /// NATS did not answer, or JetStream is off.
    #[error("cannot look up stream {stream}")]
    Lookup {
        /// The stream.
        stream: String,
        /// Why.
        source: async_nats::jetstream::context::GetStreamError,
    },
    /// The stream is missing and cannot be created.
    #[error("cannot create stream {stream}")]
    Create {
        /// The stream.
        stream: String,
        /// Why.
        source: async_nats::jetstream::context::CreateStreamError,
    },
    /// The stream has other settings, and the server refuses to change them.
    #[error("cannot bring stream {stream} to its settings ({differences})")]
    Update {
        /// The stream.
        stream: String,
        /// What differs: `setting: found → wanted`.
        differences: String,
        /// Why.
        source: async_nats::jetstream::context::UpdateStreamError,
    },
}

/// What was done to the streams.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Provisioned {
    /// Streams that were missing.
    pub created: Vec<String>,
    /// Streams whose settings differed, with the differences.
    pub updated: Vec<(String, String)>,
}

/// Brings all streams and buckets of the region to their settings.
///
/// # Errors
/// NATS does not answer, or refuses a setting.
pub async fn provision(jetstream: &Context, config: &Config) -> Result<Provisioned, ProvisionError> {
    let mut done = Provisioned::default();
    for wanted in plan(config) {
        reconcile(jetstream, wanted, &mut done).await?;
    }
    Ok(done)
}

async fn reconcile(
    jetstream: &Context,
    wanted: StreamConfig,
    done: &mut Provisioned,
) -> Result<(), ProvisionError> {
    let stream = wanted.name.clone();
    let found = match jetstream.get_stream(&stream).await {
        Ok(found) => found.cached_info().config.clone(),
        Err(error) if is_missing(&error) => {
            // Another node may be creating it with the same settings just now: the server takes that as success.
            if let Err(source) = jetstream.create_stream(wanted).await {
                return Err(ProvisionError::Create { stream, source });
            }
            done.created.push(stream);
            return Ok(());
        }
        Err(source) => return Err(ProvisionError::Lookup { stream, source }),
    };
    let differences = differences(&found, &wanted);
    if differences.is_empty() {
        return Ok(());
    }
    // What we have no opinion on, such as replicas and placement, stays as the operator set it.
    let merged = StreamConfig {
        num_replicas: found.num_replicas,
        placement: found.placement,
        compression: found.compression,
        // Fixed when the stream is made; `check_durability` speaks of it.
        persist_mode: found.persist_mode,
        metadata: found.metadata,
        description: found.description,
        ..wanted
    };
    if let Err(source) = jetstream.update_stream(merged).await {
        return Err(ProvisionError::Update { stream, differences, source });
    }
    done.updated.push((stream, differences));
    Ok(())
}

fn is_missing(error: &async_nats::jetstream::context::GetStreamError) -> bool {
    match error.kind() {
        GetStreamErrorKind::JetStream(error) => {
            error.error_code() == async_nats::jetstream::ErrorCode::STREAM_NOT_FOUND
        }
        _ => false,
    }
}

/// The settings that we have an opinion on and that differ, as `setting: found → wanted`.
fn differences(found: &StreamConfig, wanted: &StreamConfig) -> String {
    let mut named = Vec::new();
    macro_rules! compare {
        ($($field:ident),* $(,)?) => {$(
            if found.$field != wanted.$field {
                named.push(format!("{}: {:?} → {:?}", stringify!($field), found.$field, wanted.$field));
            }
        )*};
    }
    compare!(
        subjects,
        retention,
        storage,
        discard,
        max_messages,
        max_messages_per_subject,
        max_bytes,
        max_age,
        max_message_size,
        duplicate_window,
        allow_direct,
        allow_rollup,
        deny_delete,
        deny_purge,
        republish,
    );
    named.join(", ")
}

/// The names of all streams of the region.
pub(crate) fn stream_names(config: &Config) -> Vec<String> {
    plan(config).into_iter().map(|stream| stream.name).collect()
}

/// Every stream and bucket, as it has to be.
fn plan(config: &Config) -> Vec<StreamConfig> {
    let names = config.region.names();
    let keep = &config.retention;
    vec![
        work_queue(&names, config.work.queue_messages_max),
        dead_letters(&names, keep.dead),
        bucket(&names.jobs_bucket(), keep.records, RECORD_BYTES_MAX),
        bucket(&names.nodes_bucket(), NODE_TTL, SMALL_VALUE_BYTES_MAX),
        outcomes(&names.history_bucket(), keep.history),
        bucket(&names.idempotency_bucket(), IDEMPOTENCY_TTL, SMALL_VALUE_BYTES_MAX),
        bucket(&names.tenants_bucket(), Duration::ZERO, SMALL_VALUE_BYTES_MAX),
        // Lists of many thousand digests are imported in batches. Servers before 2.12 do not know the setting, so
        // it is not compared with what they have.
        StreamConfig {
            allow_atomic_publish: true,
            ..bucket(BLOCKLIST_BUCKET, Duration::ZERO, SMALL_VALUE_BYTES_MAX)
        },
        bucket(ROLLOUT_BUCKET, Duration::ZERO, SMALL_VALUE_BYTES_MAX),
        bucket(KEYS_BUCKET, Duration::ZERO, SMALL_VALUE_BYTES_MAX),
        object_store(&names.uploads_bucket(), keep.uploads, keep.uploads_bytes_max),
        object_store(&names.results_bucket(), keep.results, keep.results_bytes_max),
    ]
}

/// The work queue. A full one refuses (`queue_full`) instead of forgetting its oldest.
fn work_queue(names: &Names<'_>, messages_max: u32) -> StreamConfig {
    StreamConfig {
        name: names.jobs_stream(),
        subjects: vec![names.all_work()],
        retention: RetentionPolicy::WorkQueue,
        discard: DiscardPolicy::New,
        max_messages: i64::from(messages_max),
        max_message_size: WORK_BYTES_MAX,
        republish: Some(Republish {
            source: names.all_work(),
            destination: names.all_wake(),
            headers_only: true,
        }),
        ..on_disk()
    }
}

fn dead_letters(names: &Names<'_>, max_age: Duration) -> StreamConfig {
    StreamConfig {
        name: names.dead_stream(),
        subjects: vec![names.all_dead()],
        max_messages: DEAD_MESSAGES_MAX,
        // One letter per job, also if its last node died between the letter and the record and time went by.
        max_messages_per_subject: 1,
        max_message_size: RECORD_BYTES_MAX,
        max_age,
        ..on_disk()
    }
}

/// A KV bucket with one value per key (ADR-8). A `max_age` of zero keeps values for ever.
fn bucket(name: &str, max_age: Duration, value_bytes_max: i32) -> StreamConfig {
    StreamConfig {
        name: format!("KV_{name}"),
        subjects: vec![format!("$KV.{name}.>")],
        max_messages_per_subject: 1,
        max_message_size: value_bytes_max,
        discard: DiscardPolicy::New,
        allow_rollup: true,
        deny_delete: true,
        max_age,
        duplicate_window: if max_age.is_zero() { DUPLICATE_WINDOW } else { DUPLICATE_WINDOW.min(max_age) },
        ..on_disk()
    }
}

/// The bucket of outcomes. Unlike other buckets it forgets its oldest when it is full: what it holds is a sample.
fn outcomes(name: &str, max_age: Duration) -> StreamConfig {
    StreamConfig {
        discard: DiscardPolicy::Old,
        max_messages: OUTCOMES_MAX,
        ..bucket(name, max_age, SMALL_VALUE_BYTES_MAX)
    }
}

/// An object store (ADR-20).
fn object_store(name: &str, max_age: Duration, bytes_max: Option<u64>) -> StreamConfig {
    StreamConfig {
        name: format!("OBJ_{name}"),
        subjects: vec![format!("$O.{name}.C.>"), format!("$O.{name}.M.>")],
        discard: DiscardPolicy::New,
        allow_rollup: true,
        max_age,
        max_bytes: bytes_max.map_or(-1, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX)),
        ..on_disk()
    }
}

/// What all of them share.
fn on_disk() -> StreamConfig {
    StreamConfig {
        storage: StorageType::File,
        retention: RetentionPolicy::Limits,
        discard: DiscardPolicy::Old,
        num_replicas: 1,
        max_messages: -1,
        max_messages_per_subject: -1,
        max_bytes: -1,
        max_message_size: -1,
        max_consumers: -1,
        allow_direct: true,
        duplicate_window: DUPLICATE_WINDOW,
        ..StreamConfig::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{File, Flags};

    fn config() -> Config {
        let flags = Flags { node_id: Some("test".parse().unwrap()), ..Flags::default() };
        Config::resolve(File::default(), flags).unwrap()
    }

    #[test]
    fn the_work_queue_refuses_when_full_and_wakes_without_echoing_into_itself() {
        let plan = plan(&config());
        let queue = &plan[0];
        assert_eq!(queue.name, "ORFEAS_JOBS_LOCAL");
        assert_eq!((queue.retention, queue.discard), (RetentionPolicy::WorkQueue, DiscardPolicy::New));
        assert!(queue.max_messages > 0);
        let republish = queue.republish.as_ref().unwrap();
        assert_eq!(republish.destination, "orfeas.local.wake.>");
    }

    #[test]
    fn every_store_is_on_disk_and_answers_direct_gets() {
        for stream in plan(&config()) {
            assert_eq!(stream.storage, StorageType::File, "{}", stream.name);
            assert!(stream.allow_direct, "{}", stream.name);
            let window_fits = stream.max_age.is_zero() || stream.duplicate_window <= stream.max_age;
            assert!(window_fits, "{}", stream.name);
        }
    }

    #[test]
    fn differences_name_the_setting_and_both_values() {
        let wanted = bucket("b", Duration::ZERO, 1);
        let found = StreamConfig { max_messages_per_subject: 5, ..wanted.clone() };
        assert_eq!(differences(&found, &wanted), "max_messages_per_subject: 5 → 1");
        assert_eq!(differences(&wanted, &wanted), "");
    }
}
