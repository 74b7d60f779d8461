//! Object stores (NATS ADR-20) as values: chunks on `$O.<bucket>.C.<nuid>`, and one metadata message per
//! object on `$O.<bucket>.M.<base64url name>`, in stream `OBJ_<bucket>`.
//! [`super::object_io`] streams them.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::stream::PurgeSubject;
use super::{Call, PublishAck, Request, decode_api, decode_direct};
use crate::error::Error;
use crate::protocol::{Headers, Message};

/// A chunk's payload. A server that syncs to disk before it acknowledges pays per chunk, so four times the
/// usual 128 KiB; the server's default payload bound is 1 MiB.
pub const CHUNK_BYTES: usize = 512 * 1024;

/// An object's metadata.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectInfo {
    /// The object's name.
    pub name: String,
    /// The bucket's name.
    pub bucket: String,
    /// Names the chunks.
    pub nuid: String,
    /// Size in bytes.
    pub size: u64,
    /// How many chunks.
    pub chunks: u64,
    /// When it was stored, RFC 3339.
    #[serde(rename = "mtime", default)]
    pub modified: String,
    /// `SHA-256=` and the digest in padded base64url.
    #[serde(default)]
    pub digest: String,
    /// Whether this is the mark of a deletion.
    #[serde(default)]
    pub deleted: bool,
    /// How it is stored.
    #[serde(default)]
    pub options: ObjectOptions,
    /// What else its owner wants to know of it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
}

impl ObjectInfo {
    /// The request that removes the object's chunks, once nothing points to them.
    pub fn purge_chunks(&self) -> PurgeSubject {
        purge_chunks(&self.bucket, &self.nuid)
    }
}

/// How an object is stored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectOptions {
    /// The size of every chunk but the last.
    #[serde(default)]
    pub max_chunk_size: u64,
}

/// The metadata's spelling of a digest.
pub fn digest_text(sha256: &[u8; 32]) -> String {
    format!("SHA-256={}", URL_SAFE.encode(sha256))
}

/// 22 digits of base 62: the form of NATS's unique ids.
pub fn nuid(mut random: u128) -> String {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut text = String::with_capacity(22);
    for _ in 0..22 {
        let digit = usize::try_from(random % 62).unwrap_or(0);
        text.push(char::from(DIGITS.get(digit).copied().unwrap_or(b'0')));
        random /= 62;
    }
    text
}

pub(super) fn chunk_subject(bucket: &str, nuid: &str) -> String {
    format!("$O.{bucket}.C.{nuid}")
}

pub(super) fn purge_chunks(bucket: &str, nuid: &str) -> PurgeSubject {
    PurgeSubject { stream: format!("OBJ_{bucket}"), subject: chunk_subject(bucket, nuid) }
}

fn meta_subject(bucket: &str, name: &str) -> String {
    format!("$O.{bucket}.M.{}", URL_SAFE.encode(name))
}

/// Reads an object's metadata.
#[derive(Debug, Clone, Copy)]
pub struct GetInfo<'a> {
    /// The bucket.
    pub bucket: &'a str,
    /// The object's name.
    pub name: &'a str,
}

/// Metadata with its place in the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredInfo {
    /// Its sequence, for compare-and-set.
    pub sequence: u64,
    /// The metadata.
    pub info: ObjectInfo,
}

impl Request for GetInfo<'_> {
    /// `None` if there never was such an object.
    type Reply = Option<StoredInfo>;

    fn call(&self) -> Call {
        let subject = meta_subject(self.bucket, self.name);
        Call::new(format!("$JS.API.DIRECT.GET.OBJ_{}.{subject}", self.bucket))
    }

    fn decode(message: Message) -> Result<Option<StoredInfo>, Error> {
        let Some(stored) = decode_direct(message)? else { return Ok(None) };
        let info = serde_json::from_slice(&stored.message.payload)
            .map_err(|_| Error::protocol("object metadata is not JSON"))?;
        Ok(Some(StoredInfo { sequence: stored.sequence, info }))
    }
}

/// Writes an object's metadata, which makes it visible. Fails with [`Error::Conflict`] if another writer was
/// faster.
#[derive(Debug, Clone, Copy)]
pub struct PutInfo<'a> {
    /// The metadata.
    pub info: &'a ObjectInfo,
    /// The sequence of the metadata that it replaces; 0 = there is none.
    pub replaces: u64,
}

impl Request for PutInfo<'_> {
    type Reply = PublishAck;

    fn call(&self) -> Call {
        let headers = Headers::new()
            .with("Nats-Rollup", "sub")
            .with("Nats-Expected-Last-Subject-Sequence", self.replaces.to_string());
        // A struct of strings and numbers always has a JSON form.
        let payload = serde_json::to_vec(self.info).unwrap_or_default();
        Call {
            subject: meta_subject(&self.info.bucket, &self.info.name),
            headers,
            payload: Bytes::from(payload),
        }
    }

    fn decode(message: Message) -> Result<PublishAck, Error> {
        decode_api(&message)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::message;
    use super::*;

    fn info() -> ObjectInfo {
        ObjectInfo {
            name: "a".to_owned(),
            bucket: "b".to_owned(),
            nuid: "n".to_owned(),
            size: 3,
            chunks: 1,
            modified: "2026-11-23T14:00:00Z".to_owned(),
            digest: digest_text(&[0xff; 32]),
            deleted: false,
            options: ObjectOptions { max_chunk_size: 131_072 },
            metadata: BTreeMap::new(),
        }
    }

    #[test]
    fn digests_are_padded_base64url() {
        assert_eq!(digest_text(&[0xff; 32]), "SHA-256=__________________________________________8=");
    }

    #[test]
    fn ids_are_22_letters_and_digits_and_differ() {
        assert_eq!(nuid(0), "0".repeat(22));
        assert_ne!(nuid(u128::MAX), nuid(u128::MAX - 1));
        assert!(nuid(u128::MAX).bytes().all(|c| c.is_ascii_alphanumeric()));
    }

    #[test]
    fn metadata_replaces_exactly_what_was_seen() {
        let call = PutInfo { info: &info(), replaces: 7 }.call();
        assert_eq!(call.subject, "$O.b.M.YQ==");
        assert_eq!(call.headers.get("Nats-Rollup"), Some("sub"));
        assert_eq!(call.headers.get("Nats-Expected-Last-Subject-Sequence"), Some("7"));
        let json: serde_json::Value = serde_json::from_slice(&call.payload).unwrap();
        assert_eq!(
            (json["mtime"].as_str(), json["options"]["max_chunk_size"].as_u64()),
            (Some("2026-11-23T14:00:00Z"), Some(131_072))
        );
    }

    #[test]
    fn metadata_of_other_clients_is_read() {
        let json = r#"{"name":"a","description":"x","headers":{},"options":{"max_chunk_size":64},"bucket":"b","nuid":"n","size":1,"mtime":"0001-01-01T00:00:00Z","chunks":1,"digest":"SHA-256=x"}"#;
        let stored =
            GetInfo::decode(message(Headers::new().with("Nats-Sequence", "4"), json)).unwrap().unwrap();
        assert_eq!((stored.sequence, stored.info.size, stored.info.deleted), (4, 1, false));
    }
}
