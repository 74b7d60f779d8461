//! Streaming objects in and out: a bounded window of unacknowledged chunks one way, batches of direct gets and
//! a running digest the other.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::object::{CHUNK_BYTES, ObjectInfo, ObjectOptions, chunk_subject, digest_text, purge_chunks};
use super::stream::PurgeSubject;
use super::{Call, PublishAck, Stored, decode_direct};
use crate::connection::{Connection, Pending};
use crate::error::Error;
use crate::protocol::Headers;
use crate::session::Token;
use crate::transport::Transport;

/// Chunks on their way to the server: enough to keep a local server's disk busy, and a bound on what a
/// request can have in flight.
const WINDOW_CHUNKS: usize = 4;

/// Chunks asked for at once.
const BATCH_CHUNKS: u32 = 8;

/// How long one chunk may take.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(10);

/// An object on its way into a store. It becomes visible with [`super::object::PutInfo`]; one that is not
/// wanted after all is removed with [`Self::discard`].
#[derive(Debug)]
pub struct ObjectWriter {
    bucket: String,
    nuid: String,
    partial: Vec<u8>,
    window: VecDeque<Pending<PublishAck>>,
    size: u64,
    chunks: u64,
}

impl ObjectWriter {
    /// Begins an object; nothing is sent yet.
    pub fn new(bucket: &str, nuid: String) -> Self {
        Self {
            bucket: bucket.to_owned(),
            nuid,
            partial: Vec::new(),
            window: VecDeque::with_capacity(WINDOW_CHUNKS),
            size: 0,
            chunks: 0,
        }
    }

    /// Adds bytes; whole chunks go out at once.
    ///
    /// # Errors
    /// The server does not take a chunk in time.
    pub async fn write<T: Transport>(
        &mut self,
        connection: &mut Connection<T>,
        mut bytes: &[u8],
    ) -> Result<(), Error> {
        self.size += bytes.len() as u64;
        while !bytes.is_empty() {
            if self.partial.capacity() == 0 {
                self.partial.reserve_exact(CHUNK_BYTES);
            }
            let taken = bytes.len().min(CHUNK_BYTES - self.partial.len());
            let (head, tail) = bytes.split_at(taken);
            self.partial.extend_from_slice(head);
            bytes = tail;
            if self.partial.len() == CHUNK_BYTES {
                self.send(connection).await?;
            }
        }
        Ok(())
    }

    async fn send<T: Transport>(&mut self, connection: &mut Connection<T>) -> Result<(), Error> {
        let deadline = Instant::now() + CHUNK_TIMEOUT;
        while self.window.len() >= WINDOW_CHUNKS {
            self.acknowledge(connection, deadline).await?;
        }
        let subject = chunk_subject(&self.bucket, &self.nuid);
        let pending = connection.start_publish(&subject, &Headers::new(), &self.partial)?;
        self.partial.clear();
        self.chunks += 1;
        self.window.push_back(pending);
        connection.flush(deadline).await
    }

    async fn acknowledge<T: Transport>(
        &mut self,
        connection: &mut Connection<T>,
        deadline: Instant,
    ) -> Result<(), Error> {
        match self.window.pop_front() {
            Some(oldest) => connection.finish(oldest, deadline).await.map(drop),
            None => Ok(()),
        }
    }

    /// Sends the rest. What is queued on the connection beside it goes out in the same write.
    ///
    /// # Errors
    /// The server does not take a chunk in time.
    pub async fn send_rest<T: Transport>(&mut self, connection: &mut Connection<T>) -> Result<(), Error> {
        if self.partial.is_empty() { Ok(()) } else { self.send(connection).await }
    }

    /// Waits until every chunk is stored, and gives the object's metadata.
    ///
    /// # Errors
    /// The server does not acknowledge a chunk in time.
    pub async fn finish<T: Transport>(
        &mut self,
        connection: &mut Connection<T>,
        name: String,
        sha256: &[u8; 32],
        modified: String,
    ) -> Result<ObjectInfo, Error> {
        self.send_rest(connection).await?;
        while !self.window.is_empty() {
            self.acknowledge(connection, Instant::now() + CHUNK_TIMEOUT).await?;
        }
        Ok(ObjectInfo {
            name,
            bucket: self.bucket.clone(),
            nuid: self.nuid.clone(),
            size: self.size,
            chunks: self.chunks,
            modified,
            digest: digest_text(sha256),
            deleted: false,
            options: ObjectOptions { max_chunk_size: CHUNK_BYTES as u64 },
            metadata: BTreeMap::new(),
        })
    }

    /// Whether the server may hold chunks of this object.
    pub const fn has_sent(&self) -> bool {
        self.chunks > 0
    }

    /// The request that removes what was stored so far.
    fn purge(&self) -> PurgeSubject {
        purge_chunks(&self.bucket, &self.nuid)
    }

    /// Removes what was stored. A chunk that the server has not stored yet would come
    /// after the purge, so what is in flight on this connection is awaited first.
    ///
    /// # Errors
    /// The server does not answer in time: chunks stay behind that no object owns.
    pub async fn discard<T: Transport>(mut self, connection: &mut Connection<T>) -> Result<(), Error> {
        while !self.window.is_empty() {
            // A chunk that was refused needs no removal.
            match self.acknowledge(connection, Instant::now() + CHUNK_TIMEOUT).await {
                Err(error) if error.is_connection_fault() => return Err(error),
                _ => {}
            }
        }
        if self.has_sent() {
            connection.call(&self.purge(), Instant::now() + CHUNK_TIMEOUT).await?;
        }
        Ok(())
    }

    /// What removes the object's chunks when the connection that sent them is gone.
    pub fn into_purge(self) -> Option<PurgeSubject> {
        self.has_sent().then(|| self.purge())
    }
}

/// An object on its way out of a store.
#[derive(Debug)]
pub struct ObjectReader {
    info: ObjectInfo,
    next_sequence: u64,
    chunks_read: u64,
    bytes_read: u64,
    digest: Sha256,
    batch: Option<Token>,
}

impl ObjectReader {
    /// Begins to read; nothing is asked for yet.
    pub fn new(info: ObjectInfo) -> Self {
        Self { info, next_sequence: 1, chunks_read: 0, bytes_read: 0, digest: Sha256::new(), batch: None }
    }

    /// The next chunk, or `None` after the last. The last one is held back until the digest of the whole is
    /// known to be right, so that damage shows as an object that is too short.
    ///
    /// # Errors
    /// A chunk does not come in time ([`Error::Unavailable`]), is gone ([`Error::NotFound`]), or the object
    /// is damaged ([`Error::Protocol`]).
    pub async fn next<T: Transport>(
        &mut self,
        connection: &mut Connection<T>,
    ) -> Result<Option<Bytes>, Error> {
        if self.chunks_read == self.info.chunks {
            self.end(connection);
            return Ok(None);
        }
        let deadline = Instant::now() + CHUNK_TIMEOUT;
        let Stored { sequence, message } = self.receive(connection, deadline).await?;
        self.next_sequence = sequence + 1;
        self.chunks_read += 1;
        self.bytes_read += message.payload.len() as u64;
        self.digest.update(&message.payload);
        if self.chunks_read == self.info.chunks {
            self.end(connection);
            self.verify()?;
        }
        Ok(Some(message.payload))
    }

    async fn receive<T: Transport>(
        &mut self,
        connection: &mut Connection<T>,
        deadline: Instant,
    ) -> Result<Stored, Error> {
        loop {
            let batches = connection.server().is_some_and(|server| server.is_at_least(2, 11));
            let token = match self.batch {
                Some(token) => token,
                None => *self.batch.insert(connection.open_request(&self.batch_call(batches))?),
            };
            let message = connection.reply(token, deadline).await?;
            // A server that does not know batches sends one message and no end mark.
            let ends = !batches || message.headers.status().is_some();
            if ends {
                self.end(connection);
            }
            match message.status() {
                Some(204) => {}
                Some(503) => {
                    return Err(Error::NoResponders { subject: format!("OBJ_{}", self.info.bucket) });
                }
                _ => return decode_direct(message)?.ok_or(Error::NotFound),
            }
        }
    }

    fn batch_call(&self, batches: bool) -> Call {
        let bucket = &self.info.bucket;
        let subject = chunk_subject(bucket, &self.info.nuid);
        let mut query = serde_json::json!({ "seq": self.next_sequence, "next_by_subj": subject });
        if batches && let Some(members) = query.as_object_mut() {
            let left = self.info.chunks - self.chunks_read;
            members.insert("batch".to_owned(), left.min(BATCH_CHUNKS.into()).into());
        }
        Call {
            payload: Bytes::from(query.to_string()),
            ..Call::new(format!("$JS.API.DIRECT.GET.OBJ_{bucket}"))
        }
    }

    fn end<T: Transport>(&mut self, connection: &mut Connection<T>) {
        if let Some(token) = self.batch.take() {
            connection.close(token);
        }
    }

    fn verify(&mut self) -> Result<(), Error> {
        let digest: [u8; 32] = std::mem::take(&mut self.digest).finalize().into();
        if self.bytes_read != self.info.size || self.info.digest != digest_text(&digest) {
            return Err(Error::protocol("object differs from its digest"));
        }
        Ok(())
    }
}
