//! Object stores (NATS ADR-20): whole objects in, whole objects out.
//!
//! async-nats has an object store too. Ours differs where the job's promise needs it: a name is replaced only
//! if it still has the version that the writer saw ([`Objects::put`]), chunks are in flight together instead
//! of one flush to disk after the other, and a reader needs no consumer on the server.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::header::{NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, NATS_ROLLUP};
use async_nats::jetstream::Context;
use async_nats::jetstream::context::PublishAckFuture;
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{DirectGetErrorKind, Stream};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;
use bytes::{Bytes, BytesMut};
use futures::stream::{FuturesUnordered, StreamExt};
use orfeas_protocol::{Sha256Digest, Timestamp};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::entropy;
use super::queue::{PublishRefusal, refusal_of};

/// NATS's own advice, and below any server's `max_payload`.
const CHUNK_BYTES: usize = 128 * 1024;
/// Chunks in flight: 1 MiB hides the disk's flush time.
const CHUNKS_IN_FLIGHT: usize = 8;
/// An object of this age or older is stored afresh when it is needed again, if its store keeps it for long.
const REFRESH_AFTER_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// An object cannot be read or written.
#[derive(Debug, Error)]
pub(crate) enum ObjectError {
    #[error("no object of that name")]
    NotFound,
    #[error("the object is larger than {limit_bytes} bytes")]
    TooLarge { limit_bytes: u64 },
    #[error("the object's chunks do not match its description")]
    Damaged,
    #[error("another writer has replaced the object")]
    Superseded,
    #[error("the store has no room")]
    Full,
    #[error("cannot {action}")]
    Unavailable {
        action: &'static str,
        #[source]
        source: async_nats::Error,
    },
}

impl ObjectError {
    fn unavailable(action: &'static str, source: impl Into<async_nats::Error>) -> Self {
        Self::Unavailable { action, source: source.into() }
    }
}

/// What ADR-20 stores beside the chunks.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ObjectInfo {
    name: String,
    bucket: String,
    nuid: String,
    #[serde(default)]
    pub(crate) size: u64,
    #[serde(default)]
    chunks: u64,
    /// When it was stored; `None` where its writer says nothing that can be read as a time.
    #[serde(default, deserialize_with = "lenient_time", skip_serializing_if = "Option::is_none")]
    pub(crate) mtime: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    options: Option<ObjectOptions>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    deleted: bool,
    /// What its writer wants to know of it; kept when the object is stored afresh.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) metadata: BTreeMap<String, String>,
}

impl ObjectInfo {
    /// The digest of the whole, if the description tells it.
    pub(crate) fn sha256(&self) -> Option<Sha256Digest> {
        let bytes = URL_SAFE.decode(self.digest.as_deref()?.strip_prefix("SHA-256=")?).ok()?;
        Some(Sha256Digest::from_bytes(bytes.try_into().ok()?))
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct ObjectOptions {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_chunk_size: Option<usize>,
}

/// Other clients write an empty time, or none: an object is not unreadable because its age is unknown.
fn lenient_time<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    Ok(text.and_then(|text| Timestamp::try_from(text).ok()))
}

/// An object's description and the version of it.
#[derive(Debug, Clone)]
pub(crate) struct Described {
    pub(crate) info: ObjectInfo,
    version: u64,
}

/// The version of a name: what [`Objects::put`] expects to replace.
#[derive(Debug, Clone)]
pub(crate) struct Version(Option<Described>);

impl Version {
    /// Of a name that nothing was ever stored under.
    pub(crate) const UNUSED: Self = Self(None);

    /// The object of this version; `None` if there is none or it was deleted.
    pub(crate) fn info(&self) -> Option<&ObjectInfo> {
        self.0.as_ref().map(|described| &described.info).filter(|info| !info.deleted)
    }

    fn sequence(&self) -> u64 {
        self.0.as_ref().map_or(0, |described| described.version)
    }
}

/// When an object's description goes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// When its chunks are on the disk.
    ChunksFirst,
    /// With the last of them.
    Together,
}

/// How an object is written.
struct Plan {
    nuid: String,
    digest: String,
    metadata: BTreeMap<String, String>,
    order: Order,
}

/// An object store.
#[derive(Debug, Clone)]
pub(crate) struct Objects {
    bucket: String,
    stream: Stream,
    jetstream: Context,
}

impl Objects {
    pub(crate) fn new(bucket: String, stream: Stream, jetstream: Context) -> Self {
        Self { bucket, stream, jetstream }
    }

    /// How long the store keeps an object; zero = for ever.
    pub(crate) fn kept_for(&self) -> Duration {
        self.stream.cached_info().config.max_age
    }

    /// The age from which on an object that is needed again is stored afresh: half of the time that the store keeps
    /// it at most, so that what was found is there for at least as long again.
    pub(crate) fn refresh_after(&self) -> Duration {
        match self.kept_for() {
            Duration::ZERO => REFRESH_AFTER_MAX,
            kept => REFRESH_AFTER_MAX.min(kept / 2),
        }
    }

    /// Looks an object up; `None` if there is none or it was deleted.
    pub(crate) async fn describe(&self, name: &str) -> Result<Option<ObjectInfo>, ObjectError> {
        let described = self.latest(name).await?;
        Ok(described.map(|described| described.info).filter(|info| !info.deleted))
    }

    /// The version of a name, whether there is an object or not.
    pub(crate) async fn version(&self, name: &str) -> Result<Version, ObjectError> {
        Ok(Version(self.latest(name).await?))
    }

    /// Reads an object and checks it against its description.
    pub(crate) async fn get(&self, name: &str, limit_bytes: u64) -> Result<Bytes, ObjectError> {
        Ok(self.get_described(name, limit_bytes).await?.0)
    }

    /// As [`Self::get`], with the description.
    pub(crate) async fn get_described(
        &self,
        name: &str,
        limit_bytes: u64,
    ) -> Result<(Bytes, ObjectInfo), ObjectError> {
        let info = self.describe(name).await?.ok_or(ObjectError::NotFound)?;
        if info.size > limit_bytes {
            return Err(ObjectError::TooLarge { limit_bytes });
        }
        let subject = self.chunk_subject(&info.nuid);
        let size = usize::try_from(info.size).map_err(|_| ObjectError::Damaged)?;
        let mut data = BytesMut::with_capacity(size);
        let mut after = 0;
        for _ in 0..info.chunks {
            let chunk = self.stream.direct_get_next_for_subject(subject.as_str(), Some(after + 1)).await;
            let chunk = chunk.map_err(|error| match error.kind() {
                DirectGetErrorKind::NotFound => ObjectError::Damaged,
                _ => ObjectError::unavailable("read a chunk", error),
            })?;
            if data.len() + chunk.payload.len() > size {
                return Err(ObjectError::Damaged);
            }
            data.extend_from_slice(&chunk.payload);
            after = chunk.sequence;
        }
        let digest = info.digest.as_deref();
        let digest_agrees = digest.is_none_or(|digest| digest == digest_text(&Sha256Digest::of(&data)));
        if data.len() == size && digest_agrees {
            Ok((data.freeze(), info))
        } else {
            Err(ObjectError::Damaged)
        }
    }

    /// Writes an object, if its name still has the version `expected`. Its description follows when its chunks are on
    /// the disk.
    pub(crate) async fn put(&self, name: &str, data: &Bytes, expected: &Version) -> Result<(), ObjectError> {
        self.put_in(name, data, BTreeMap::new(), expected, Order::ChunksFirst).await
    }

    /// As [`Self::put`], with what is to be known of the object beside what is known of it.
    pub(crate) async fn put_known(
        &self,
        name: &str,
        data: &Bytes,
        metadata: BTreeMap<String, String>,
        expected: &Version,
    ) -> Result<(), ObjectError> {
        self.put_in(name, data, metadata, expected, Order::ChunksFirst).await
    }

    /// As [`Self::put`], for an object that nobody looks for before this has returned: its description goes out with
    /// its last chunks, which saves a round trip. After a failure the description may stand there without them.
    pub(crate) async fn put_unseen(
        &self,
        name: &str,
        data: &Bytes,
        expected: &Version,
    ) -> Result<(), ObjectError> {
        self.put_in(name, data, BTreeMap::new(), expected, Order::Together).await
    }

    async fn put_in(
        &self,
        name: &str,
        data: &Bytes,
        known: BTreeMap<String, String>,
        expected: &Version,
        order: Order,
    ) -> Result<(), ObjectError> {
        let nuid = entropy::job_id()
            .map_err(|error| ObjectError::unavailable("name the chunks", Box::new(error)))?
            .to_string();
        let digest = digest_text(&Sha256Digest::of(data));
        let replaced = expected.0.as_ref();
        let same = replaced.filter(|old| old.info.digest.as_deref() == Some(digest.as_str()));
        let mut metadata = same.map(|old| old.info.metadata.clone()).unwrap_or_default();
        metadata.extend(known);
        let plan = Plan { nuid: nuid.clone(), digest, metadata, order };
        let written = self.write(name, data, expected, plan).await;
        // Chunks that no description points to would lie there until their age removes them.
        let orphan = match &written {
            Ok(()) => replaced.map(|old| old.info.nuid.clone()),
            Err(ObjectError::Superseded | ObjectError::Full) => Some(nuid),
            // The description may have arrived although its acknowledgement did not.
            Err(_) => None,
        };
        if let Some(nuid) = orphan
            && let Err(error) = self.stream.purge().filter(self.chunk_subject(&nuid)).await
        {
            tracing::debug!(bucket = self.bucket, %error, "cannot remove old chunks; their age will");
        }
        written
    }

    /// Removes an object; `false` if there is none.
    pub(crate) async fn remove(&self, name: &str) -> Result<bool, ObjectError> {
        let described = self.latest(name).await?.filter(|described| !described.info.deleted);
        let Some(Described { info, version }) = described else { return Ok(false) };
        let nuid = info.nuid.clone();
        let mtime = Some(entropy::now());
        let gone = ObjectInfo { size: 0, chunks: 0, digest: None, mtime, deleted: true, ..info };
        acknowledged(self.publish_description(name, &gone, version).await?).await?;
        if let Err(error) = self.stream.purge().filter(self.chunk_subject(&nuid)).await {
            tracing::debug!(bucket = self.bucket, %error, "cannot remove old chunks; their age will");
        }
        Ok(true)
    }

    async fn write(
        &self,
        name: &str,
        data: &Bytes,
        expected: &Version,
        Plan { nuid, digest, metadata, order }: Plan,
    ) -> Result<(), ObjectError> {
        let chunk_subject = self.chunk_subject(&nuid);
        let mut acks = FuturesUnordered::new();
        let mut chunks = 0;
        let mut at = 0;
        while at < data.len() {
            if acks.len() >= CHUNKS_IN_FLIGHT {
                acks.next().await.transpose()?;
            }
            let chunk = data.slice(at..data.len().min(at + CHUNK_BYTES));
            at += chunk.len();
            chunks += 1;
            let message = PublishMessage::build().payload(chunk);
            let sent = self.publish(chunk_subject.clone(), message).await?;
            acks.push(acknowledged(sent));
        }
        if order == Order::ChunksFirst {
            while acks.next().await.transpose()?.is_some() {}
        }
        let info = ObjectInfo {
            name: name.to_owned(),
            bucket: self.bucket.clone(),
            nuid,
            size: data.len() as u64,
            chunks,
            mtime: Some(entropy::now()),
            digest: Some(digest),
            options: Some(ObjectOptions { max_chunk_size: Some(CHUNK_BYTES) }),
            deleted: false,
            metadata,
        };
        let described = acknowledged(self.publish_description(name, &info, expected.sequence()).await?);
        while acks.next().await.transpose()?.is_some() {}
        described.await
    }

    /// Sends a description that is to replace the one of a sequence.
    async fn publish_description(
        &self,
        name: &str,
        info: &ObjectInfo,
        replaced: u64,
    ) -> Result<PublishAckFuture, ObjectError> {
        let description = serde_json::to_vec(info)
            .map_err(|error| ObjectError::unavailable("describe the object", Box::new(error)))?;
        let mut headers = HeaderMap::new();
        headers.insert(NATS_ROLLUP, "sub");
        headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, replaced.to_string());
        let message = PublishMessage::build().payload(description.into()).headers(headers);
        self.publish(self.description_subject(name), message).await
    }

    async fn publish(
        &self,
        subject: String,
        message: PublishMessage,
    ) -> Result<PublishAckFuture, ObjectError> {
        let sent = self.jetstream.send_publish(subject, message).await;
        sent.map_err(|error| ObjectError::unavailable("send to the object store", error))
    }

    async fn latest(&self, name: &str) -> Result<Option<Described>, ObjectError> {
        match self.stream.direct_get_last_for_subject(self.description_subject(name)).await {
            Ok(message) => {
                let info = serde_json::from_slice(&message.payload).map_err(|_| ObjectError::Damaged)?;
                Ok(Some(Described { info, version: message.sequence }))
            }
            Err(error) if error.kind() == DirectGetErrorKind::NotFound => Ok(None),
            Err(error) => Err(ObjectError::unavailable("look the object up", error)),
        }
    }

    fn chunk_subject(&self, nuid: &str) -> String {
        format!("$O.{}.C.{nuid}", self.bucket)
    }

    fn description_subject(&self, name: &str) -> String {
        format!("$O.{}.M.{}", self.bucket, URL_SAFE.encode(name))
    }
}

async fn acknowledged(ack: PublishAckFuture) -> Result<(), ObjectError> {
    match ack.await {
        Ok(_) => Ok(()),
        Err(error) => Err(match refusal_of(&error) {
            Some(PublishRefusal::WrongSequence) => ObjectError::Superseded,
            Some(PublishRefusal::Full) => ObjectError::Full,
            None => ObjectError::unavailable("store the object", error),
        }),
    }
}

fn digest_text(digest: &Sha256Digest) -> String {
    format!("SHA-256={}", URL_SAFE.encode(digest.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(mtime: &str) -> ObjectInfo {
        let json = format!(
            r#"{{"name":"a","bucket":"b","nuid":"n","size":1,"chunks":1,"digest":"x",{mtime}"x":0}}"#
        );
        serde_json::from_str(&json).unwrap()
    }

    #[test]
    fn an_object_whose_time_is_empty_or_unreadable_is_an_object_of_unknown_age() {
        for mtime in ["", "\"mtime\":\"\",", "\"mtime\":null,", "\"mtime\":\"yesterday\","] {
            assert_eq!(described(mtime).mtime, None, "{mtime}");
        }
    }

    #[test]
    fn times_of_the_servers_own_tools_are_read() {
        let info = described("\"mtime\":\"2026-11-23T14:00:00.123456789Z\",");
        assert_eq!(info.mtime.map(|time| time.to_string()).as_deref(), Some("2026-11-23T14:00:00.123Z"));
    }
}
