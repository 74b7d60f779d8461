//! What an instance keeps between requests: its settings and its idle connections. And the way in: who calls,
//! and on which connection the request runs.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use orfeas_edge_nats::jetstream::{PurgeSubject, kv};
use orfeas_edge_nats::{Connection, Error as BusError, Lease, Pool, TcpTransport};
use orfeas_protocol::Scope;
use orfeas_protocol::subjects::KEYS_BUCKET;

use crate::auth::{Caller, key_digest};
use crate::failure::Failure;
use crate::head::Head;
use crate::settings::{AuthMode, Settings, Variables};

/// How long a call may take. A local server answers in a millisecond; one that syncs a busy disk may need a second.
pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection to the bus, owned by one request.
pub(super) type Bus = Connection<TcpTransport>;

/// The instance's state.
pub(super) struct Edge {
    pub(super) settings: Settings,
    pub(super) pool: Pool,
}

static EDGE: OnceLock<Edge> = OnceLock::new();

/// A request that may proceed.
pub(super) struct Access<R> {
    pub(super) lease: Lease<'static>,
    pub(super) caller: Caller,
    /// What the first calls gave.
    pub(super) first: R,
}

/// When a call that starts now must be answered.
pub(super) fn soon() -> Instant {
    Instant::now() + CALL_TIMEOUT
}

impl Edge {
    /// The instance's state, read from its variables by the first request.
    ///
    /// # Errors
    /// A variable is missing or bad.
    pub(super) async fn get() -> Result<&'static Self, Failure> {
        if let Some(edge) = EDGE.get() {
            return Ok(edge);
        }
        let settings = Settings::try_from(read_variables().await?)
            .map_err(|error| Failure::internal(error.to_string()))?;
        let pool = Pool::new(settings.nats_address, settings.nats_credentials.clone());
        // Another request of this instance may have been faster; then its state stays.
        Ok(EDGE.get_or_init(|| Self { settings, pool }))
    }

    /// How many lost connections were replaced since this was last asked.
    pub(super) fn take_reconnects() -> u32 {
        EDGE.get().map_or(0, |edge| edge.pool.take_reconnects())
    }

    /// Lets a request in: leases a connection, makes the request's first, idempotent calls on it, and reads the
    /// caller's key, all in one round trip.
    ///
    /// # Errors
    /// The caller is not known or lacks the scope; the calls fail; the bus is away.
    pub(super) async fn enter<R>(
        &'static self,
        head: &Head,
        scope: Scope,
        calls: impl AsyncFn(&mut Bus) -> Result<R, BusError>,
    ) -> Result<Access<R>, Failure> {
        let key = match self.settings.auth {
            AuthMode::None => None,
            AuthMode::Required => Some(key_digest(head)?.to_string()),
        };
        let (lease, (record, first)) = self
            .pool
            .lease_with(async |bus| {
                let lookup =
                    key.as_ref().map(|key| bus.start(&kv::Get { bucket: KEYS_BUCKET, key })).transpose()?;
                let first = calls(bus).await;
                if let Err(error) = &first
                    && error.is_connection_fault()
                {
                    return Err(error.clone());
                }
                let record = match lookup {
                    Some(pending) => Some(bus.finish(pending, soon()).await?.and_then(|entry| entry.value)),
                    None => None,
                };
                Ok((record, first))
            })
            .await?;
        let caller = match record {
            None => Ok(Caller::operator()),
            Some(record) => Caller::from_record(record.as_deref()),
        };
        match caller.and_then(|caller| caller.demand(scope).map(|()| caller)) {
            // A caller who may not know gets no hint of what the calls found.
            Err(failure) => {
                lease.give_back().await;
                Err(failure)
            }
            Ok(caller) => match first {
                Ok(first) => Ok(Access { lease, caller, first }),
                Err(error) => {
                    lease.give_back().await;
                    Err(error.into())
                }
            },
        }
    }

    /// Removes chunks that no object will own, best effort, over another connection than the one that broke.
    pub(super) async fn purge(&self, purge: PurgeSubject) {
        if let Err(error) = self.pool.run(async |bus| bus.call(&purge, soon()).await).await {
            eprintln!("chunks stay behind on {}: {error}", purge.subject);
        }
    }
}

async fn read_variables() -> Result<Variables, Failure> {
    let get = async |name: &str| {
        let value = spin_sdk::variables::get(name).await;
        value.map_err(|error| Failure::internal(format!("cannot read variable `{name}`: {error}")))
    };
    Ok(Variables {
        nats_address: get("nats_address").await?,
        nats_user: get("nats_user").await?,
        nats_password: get("nats_password").await?,
        region: get("region").await?,
        auth: get("auth").await?,
    })
}
