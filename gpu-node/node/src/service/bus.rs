//! The connection to NATS and the handles of what stands there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::jetstream::{self, kv, stream::Stream};
use async_nats::{Client, ConnectOptions, Event};
use orfeas_protocol::Region;
use orfeas_protocol::subjects::{BLOCKLIST_BUCKET, ROLLOUT_BUCKET};
use thiserror::Error;
use tokio::time::Instant;

use super::objects::Objects;
use super::retry::Backoff;
use crate::config::NatsConfig;
use crate::metrics::Metrics;

/// A node and its server start side by side; after this long the supervisor is told.
pub const CONNECT_LIMIT: Duration = Duration::from_secs(60);
/// One answer of NATS. A server that flushes to a slow disk under load needs a second or two.
pub(crate) const CALL_LIMIT: Duration = Duration::from_secs(5);

/// NATS cannot be used.
#[derive(Debug, Error)]
pub enum BusError {
    /// The credentials file cannot be used.
    #[error("cannot read nats credentials")]
    Credentials(#[source] std::io::Error),
    /// No server answered.
    #[error("cannot connect to nats at {urls}")]
    Connect {
        /// The servers.
        urls: String,
        /// The last try's failure.
        source: async_nats::ConnectError,
    },
    /// A stream or bucket is not there.
    #[error("cannot open {what}")]
    Open {
        /// Its name.
        what: String,
        /// Why.
        source: async_nats::Error,
    },
}

/// A connection to NATS.
#[derive(Debug, Clone)]
pub struct Connection {
    client: Client,
    jetstream: jetstream::Context,
    connected: Arc<AtomicBool>,
}

impl Connection {
    /// Connects, trying for up to `limit`. Afterwards the client reconnects by itself, for ever.
    ///
    /// # Errors
    /// The credentials cannot be read, or no server answered in time.
    pub async fn open(
        nats: &NatsConfig,
        name: &str,
        limit: Duration,
        metrics: Arc<Metrics>,
    ) -> Result<Self, BusError> {
        let give_up_at = Instant::now() + limit;
        let mut failures = 0;
        loop {
            let connected = Arc::new(AtomicBool::new(true));
            let options = options(nats, name, connected.clone(), metrics.clone()).await?;
            let source = match options.connect(nats.urls.as_slice()).await {
                Ok(client) => {
                    let jetstream = jetstream::ContextBuilder::new()
                        .timeout(CALL_LIMIT)
                        .ack_timeout(CALL_LIMIT)
                        .build(client.clone());
                    return Ok(Self { client, jetstream, connected });
                }
                Err(source) => source,
            };
            failures += 1;
            let wait = Backoff::BACKGROUND.jittered(failures);
            if Instant::now() + wait > give_up_at {
                return Err(BusError::Connect { urls: nats.urls.join(", "), source });
            }
            tracing::warn!(error = %source, "cannot connect to nats yet");
            tokio::time::sleep(wait).await;
        }
    }

    /// The client.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// JetStream, with a deadline on each call.
    pub fn jetstream(&self) -> &jetstream::Context {
        &self.jetstream
    }

    /// Whether the connection stands now.
    pub fn is_up(&self) -> bool {
        self.connected.load(Ordering::Relaxed)
    }

    /// Opens a KV bucket.
    ///
    /// # Errors
    /// It is not there, or NATS does not answer.
    pub async fn bucket(&self, name: &str) -> Result<kv::Store, BusError> {
        self.jetstream
            .get_key_value(name)
            .await
            .map_err(|source| BusError::Open { what: format!("bucket {name}"), source: Box::new(source) })
    }

    /// Opens a stream.
    pub(crate) async fn stream(&self, name: &str) -> Result<Stream, BusError> {
        self.jetstream
            .get_stream(name)
            .await
            .map_err(|source| BusError::Open { what: format!("stream {name}"), source: Box::new(source) })
    }

    async fn objects(&self, bucket: &str) -> Result<Objects, BusError> {
        let stream = self.stream(&format!("OBJ_{bucket}")).await?;
        Ok(Objects::new(bucket.to_owned(), stream, self.jetstream.clone()))
    }
}

async fn options(
    nats: &NatsConfig,
    name: &str,
    connected: Arc<AtomicBool>,
    metrics: Arc<Metrics>,
) -> Result<ConnectOptions, BusError> {
    let mut options = ConnectOptions::new()
        .name(name)
        .connection_timeout(CALL_LIMIT)
        .request_timeout(Some(CALL_LIMIT))
        .reconnect_delay_callback(|failures| {
            let failures = u32::try_from(failures).unwrap_or(u32::MAX);
            if failures == 0 { Duration::ZERO } else { Backoff::CALL.jittered(failures) }
        })
        .event_callback(move |event| {
            match &event {
                Event::Connected => {
                    if !connected.swap(true, Ordering::Relaxed) {
                        metrics.nats_reconnects.inc();
                    }
                    tracing::info!("nats connected");
                }
                Event::Disconnected => {
                    connected.store(false, Ordering::Relaxed);
                    tracing::warn!("nats disconnected");
                }
                // What we do ourselves.
                Event::Closed | Event::Draining => tracing::debug!(%event, "nats event"),
                other => tracing::warn!(event = %other, "nats event"),
            }
            std::future::ready(())
        });
    if let Some(path) = &nats.credentials {
        options = options.credentials_file(path).await.map_err(BusError::Credentials)?;
    }
    Ok(options)
}

/// The region's stores, opened once.
#[derive(Debug, Clone)]
pub(crate) struct Bus {
    pub(crate) region: Region,
    pub(crate) connection: Connection,
    pub(crate) work: Stream,
    pub(crate) jobs: kv::Store,
    pub(crate) nodes: kv::Store,
    pub(crate) history: kv::Store,
    pub(crate) blocklist: kv::Store,
    pub(crate) rollout: kv::Store,
    pub(crate) uploads: Objects,
    pub(crate) results: Objects,
}

impl Bus {
    /// Opens everything that [`provision`](super::provision()) has made.
    pub(crate) async fn open(connection: Connection, region: Region) -> Result<Self, BusError> {
        let names = region.names();
        Ok(Self {
            work: connection.stream(&names.jobs_stream()).await?,
            jobs: connection.bucket(&names.jobs_bucket()).await?,
            nodes: connection.bucket(&names.nodes_bucket()).await?,
            history: connection.bucket(&names.history_bucket()).await?,
            blocklist: connection.bucket(BLOCKLIST_BUCKET).await?,
            rollout: connection.bucket(ROLLOUT_BUCKET).await?,
            uploads: connection.objects(&names.uploads_bucket()).await?,
            results: connection.objects(&names.results_bucket()).await?,
            connection,
            region,
        })
    }

    pub(crate) fn client(&self) -> &Client {
        &self.connection.client
    }

    pub(crate) fn jetstream(&self) -> &jetstream::Context {
        &self.connection.jetstream
    }
}
