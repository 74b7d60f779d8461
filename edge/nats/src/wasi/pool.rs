//! The idle connections of one instance. A request takes one out, owns it alone, and hands it back clean or
//! lets it close: no task ever waits for another, which the component model's tasks must not do here.

use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use wasip3::random::random::get_random_u64;

use super::TcpTransport;
use crate::connection::Connection;
use crate::error::Error;
use crate::protocol::Credentials;

/// An instance serves few requests at a time; more idle sockets would only burden the server.
const IDLE_MAX: usize = 4;

/// A connection that was silent for longer may be dead without our knowing: it is asked first.
const SILENCE_MAX: Duration = Duration::from_secs(1);

/// How long a silent connection may take to answer.
const PING_TIMEOUT: Duration = Duration::from_millis(500);

/// How long connecting and greeting may take. A refusal comes at once.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Connections to one server.
#[derive(Debug)]
pub struct Pool {
    address: SocketAddr,
    credentials: Credentials,
    idle: Mutex<Vec<Connection<TcpTransport>>>,
    /// Whether a connection broke, or could not be made, and none was made since.
    is_lost: AtomicBool,
    reconnects: AtomicU32,
}

/// A connection that its holder owns alone. Dropping it closes it.
#[derive(Debug)]
pub struct Lease<'p> {
    pool: &'p Pool,
    connection: Connection<TcpTransport>,
    is_reused: bool,
}

impl Pool {
    /// An empty pool.
    pub const fn new(address: SocketAddr, credentials: Credentials) -> Self {
        Self {
            address,
            credentials,
            idle: Mutex::new(Vec::new()),
            is_lost: AtomicBool::new(false),
            reconnects: AtomicU32::new(0),
        }
    }

    /// How many connections were made after one was lost, since this was last asked.
    pub fn take_reconnects(&self) -> u32 {
        self.reconnects.swap(0, Relaxed)
    }

    /// A connection: an idle one if there is one that lives, else a new one.
    ///
    /// # Errors
    /// The server cannot be reached.
    pub async fn lease(&self) -> Result<Lease<'_>, Error> {
        while let Some(mut connection) = self.take_idle() {
            let is_live = connection.idle() < SILENCE_MAX
                || connection.ping(Instant::now() + PING_TIMEOUT).await.is_ok();
            if is_live {
                return Ok(Lease { pool: self, connection, is_reused: true });
            }
            self.is_lost.store(true, Relaxed);
            // What is at least as silent is as dead.
            drop(self.take_silent());
        }
        self.open().await
    }

    /// Leases a connection and runs the first operation of a request on it. The operation must be idempotent:
    /// if a reused connection turns out dead under it, it runs once more on a new one.
    ///
    /// # Errors
    /// Those of the operation; the server cannot be reached.
    pub async fn lease_with<R>(
        &self,
        operation: impl AsyncFn(&mut Connection<TcpTransport>) -> Result<R, Error>,
    ) -> Result<(Lease<'_>, R), Error> {
        let mut lease = self.lease().await?;
        match operation(&mut lease).await {
            Err(error) if error.is_connection_fault() && lease.is_reused => {
                drop(lease);
                self.is_lost.store(true, Relaxed);
                let mut lease = self.open().await?;
                let output = operation(&mut lease).await?;
                Ok((lease, output))
            }
            Err(error) => {
                lease.give_back().await;
                Err(error)
            }
            Ok(output) => Ok((lease, output)),
        }
    }

    /// Runs an idempotent operation and gives its connection back.
    ///
    /// # Errors
    /// As [`Self::lease_with`].
    pub async fn run<R>(
        &self,
        operation: impl AsyncFn(&mut Connection<TcpTransport>) -> Result<R, Error>,
    ) -> Result<R, Error> {
        let (lease, output) = self.lease_with(operation).await?;
        lease.give_back().await;
        Ok(output)
    }

    async fn open(&self) -> Result<Lease<'_>, Error> {
        let lease = self.connect().await;
        let was_lost = self.is_lost.swap(lease.is_err(), Relaxed);
        if lease.is_ok() && was_lost {
            self.reconnects.fetch_add(1, Relaxed);
        }
        lease
    }

    async fn connect(&self) -> Result<Lease<'_>, Error> {
        let deadline = Instant::now() + CONNECT_TIMEOUT;
        let transport = TcpTransport::connect(self.address, deadline).await?;
        let credentials = self.credentials.clone();
        let connection = Connection::open(transport, get_random_u64(), credentials, deadline).await?;
        Ok(Lease { pool: self, connection, is_reused: false })
    }

    // The lock is never held over an await, and these critical sections cannot panic half-way.

    fn take_idle(&self) -> Option<Connection<TcpTransport>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn take_silent(&self) -> Vec<Connection<TcpTransport>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.extract_if(.., |connection| connection.idle() >= SILENCE_MAX).collect()
    }

    fn put_idle(&self, connection: Connection<TcpTransport>) -> Option<Connection<TcpTransport>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() == IDLE_MAX {
            return Some(connection);
        }
        idle.push(connection);
        None
    }
}

impl Lease<'_> {
    /// Hands the connection to whoever comes next, unless it is broken.
    pub async fn give_back(self) {
        let Self { pool, mut connection, .. } = self;
        if connection.reset(Instant::now() + PING_TIMEOUT).await {
            // Closed outside of the lock, if there is no room.
            drop(pool.put_idle(connection));
        } else if connection.is_broken() {
            pool.is_lost.store(true, Relaxed);
        }
    }
}

impl Deref for Lease<'_> {
    type Target = Connection<TcpTransport>;

    fn deref(&self) -> &Self::Target {
        &self.connection
    }
}

impl DerefMut for Lease<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.connection
    }
}
