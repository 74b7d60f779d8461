//! Key-value buckets (NATS ADR-8): the last message on `$KV.<bucket>.<key>` of stream `KV_<bucket>`.

use std::time::Instant;

use bytes::Bytes;

use super::{Call, PublishAck, Request, decode_api, decode_direct};
use crate::connection::Connection;
use crate::error::Error;
use crate::protocol::{Headers, Message};
use crate::transport::Transport;

const EXPECTED_SEQUENCE: &str = "Nats-Expected-Last-Subject-Sequence";

/// A key's last entry, which may be the mark of a deletion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The revision, for compare-and-set.
    pub revision: u64,
    /// The value; `None` if the key was deleted.
    pub value: Option<Bytes>,
}

/// Reads a key's last entry.
#[derive(Debug, Clone, Copy)]
pub struct Get<'a> {
    /// The bucket.
    pub bucket: &'a str,
    /// The key.
    pub key: &'a str,
}

impl Request for Get<'_> {
    type Reply = Option<Entry>;

    fn call(&self) -> Call {
        let Self { bucket, key } = self;
        Call::new(format!("$JS.API.DIRECT.GET.KV_{bucket}.$KV.{bucket}.{key}"))
    }

    fn decode(message: Message) -> Result<Option<Entry>, Error> {
        let Some(stored) = decode_direct(message)? else { return Ok(None) };
        // Deletions by a client carry KV-Operation, those by a time-to-live Nats-Marker-Reason.
        let headers = &stored.message.headers;
        let is_mark = matches!(headers.get("KV-Operation"), Some("DEL" | "PURGE"))
            || headers.get("Nats-Marker-Reason").is_some();
        let value = (!is_mark).then_some(stored.message.payload);
        Ok(Some(Entry { revision: stored.sequence, value }))
    }
}

/// What a write expects to find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// Whatever is there is replaced.
    Anything,
    /// The key was never written.
    Nothing,
    /// The entry of this revision.
    Revision(u64),
}

/// Writes a key. Fails with [`Error::Conflict`] if the bucket does not hold what was expected.
#[derive(Debug, Clone)]
pub struct Put<'a> {
    /// The bucket.
    pub bucket: &'a str,
    /// The key.
    pub key: &'a str,
    /// What must be there now.
    pub expected: Expected,
    /// The value; `None` leaves the mark of a deletion.
    pub value: Option<Bytes>,
}

impl Request for Put<'_> {
    /// The new revision.
    type Reply = u64;

    fn call(&self) -> Call {
        let mut headers = match self.expected {
            Expected::Anything => Headers::new(),
            Expected::Nothing => Headers::new().with(EXPECTED_SEQUENCE, "0"),
            Expected::Revision(revision) => Headers::new().with(EXPECTED_SEQUENCE, revision.to_string()),
        };
        if self.value.is_none() {
            headers = headers.with("KV-Operation", "DEL");
        }
        let subject = format!("$KV.{}.{}", self.bucket, self.key);
        Call { subject, headers, payload: self.value.clone().unwrap_or_default() }
    }

    fn decode(message: Message) -> Result<u64, Error> {
        let ack: PublishAck = decode_api(&message)?;
        Ok(ack.sequence)
    }
}

impl<T: Transport> Connection<T> {
    /// Creates a key that is not there, or was deleted.
    ///
    /// # Errors
    /// [`Error::Conflict`] if the key has a value.
    pub async fn kv_create(
        &mut self,
        bucket: &str,
        key: &str,
        value: Bytes,
        deadline: Instant,
    ) -> Result<u64, Error> {
        let put = Put { bucket, key, expected: Expected::Nothing, value: Some(value) };
        match self.call(&put, deadline).await {
            Err(Error::Conflict) => {}
            outcome => return outcome,
        }
        match self.call(&Get { bucket, key }, deadline).await? {
            Some(Entry { value: Some(_), .. }) => Err(Error::Conflict),
            Some(Entry { revision, value: None }) => {
                self.call(&Put { expected: Expected::Revision(revision), ..put }, deadline).await
            }
            // It expired between the two calls.
            None => self.call(&put, deadline).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::message;
    use super::*;

    #[test]
    fn reads_go_to_the_direct_subject_of_the_key() {
        let call = Get { bucket: "b", key: "sha256.ff" }.call();
        assert_eq!(call.subject, "$JS.API.DIRECT.GET.KV_b.$KV.b.sha256.ff");
        assert!(call.payload.is_empty());
    }

    #[test]
    fn values_deletions_and_absence_are_three_things() {
        let stored = Headers::new().with("Nats-Sequence", "12");
        let entry = Get::decode(message(stored.clone(), "v")).unwrap().unwrap();
        assert_eq!(entry, Entry { revision: 12, value: Some(Bytes::from_static(b"v")) });
        for (name, value) in
            [("KV-Operation", "DEL"), ("KV-Operation", "PURGE"), ("Nats-Marker-Reason", "MaxAge")]
        {
            let entry = Get::decode(message(stored.clone().with(name, value), "")).unwrap().unwrap();
            assert_eq!(entry, Entry { revision: 12, value: None });
        }
        let call = |expected| Put { bucket: "b", key: "k", expected, value: None }.call();
        assert_eq!(call(Expected::Nothing).headers.get(EXPECTED_SEQUENCE), Some("0"));
        assert_eq!(call(Expected::Revision(9)).headers.get(EXPECTED_SEQUENCE), Some("9"));
        assert_eq!(call(Expected::Anything).headers.get(EXPECTED_SEQUENCE), None);
        assert_eq!(call(Expected::Anything).headers.get("KV-Operation"), Some("DEL"));
    }
}
