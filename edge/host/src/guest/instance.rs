//! One instance: its store, what it may touch, and how [`ProxyHandler`] gets new ones.
//!
//! [`ProxyHandler`]: wasmtime_wasi_http::handler::ProxyHandler

use super::engine::TICK;
use super::log::GuestLog;
use super::supervision::{Expiration, Worker};
use super::vitals::{Failure, Vitals};
use crate::manifest::ComponentSpec;
use crate::outbound::AllowList;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use wasmtime::component::ResourceTable;
use wasmtime::{Engine, ResourceLimiter, Store, UpdateDeadline};
use wasmtime_wasi::sockets::SocketAddrUse;
use wasmtime_wasi::{FsPerms, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};
use wasmtime_wasi_http::handler::{HandlerState, Instance, ProxyPre};
use wasmtime_wasi_http::p3::bindings::http::types::ErrorCode;
use wasmtime_wasi_http::{
    RequestOptions, WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks, WasiHttpView,
};

/// More elements than any table of a component that `wasm32-wasip2` makes.
const TABLE_ELEMENTS_MAX: usize = 100_000;
/// The most random bytes in one call; a guest that asks for more gets a trap, not host memory.
const RANDOM_BYTES_MAX: u64 = 64 << 10;

/// The limits of the instances that serve one class of requests.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InstanceLimits {
    pub(crate) memory_bytes: usize,
    /// An instance whose memory grew above this takes no further request.
    pub(crate) retire_above_bytes: usize,
    /// Requests in the life of an instance.
    pub(crate) reuse: usize,
    /// Requests at the same time in an instance.
    pub(crate) concurrency: usize,
    /// How long an instance without requests is kept.
    pub(crate) idle: Duration,
    /// From accepting a request to the start of its answer.
    pub(crate) answer: Duration,
    /// From the start of the last answer to the end of its body.
    pub(crate) after_answer: Duration,
    /// How long a guest may compute without waiting once.
    pub(crate) busy: Duration,
}

/// A component, ready to be instantiated for one class of requests.
pub(crate) struct Guest {
    pub(crate) engine: Engine,
    pub(crate) pre: Arc<ProxyPre<Host>>,
    pub(crate) spec: Arc<ComponentSpec>,
    pub(crate) limits: InstanceLimits,
    /// Counts instances: called with +1 and, when the instance is gone, -1.
    pub(crate) count_instance: Arc<dyn Fn(i64) + Send + Sync>,
    pub(crate) on_failure: Arc<dyn Fn(Failure) + Send + Sync>,
}

/// What a store holds.
pub(crate) struct Host {
    hooks: NoOutgoingHttp,
    table: ResourceTable,
    wasi: WasiCtx,
    http: WasiHttpCtx,
    limiter: MemoryLimiter,
    spec: Arc<ComponentSpec>,
    _counted: Counted,
}

impl Host {
    pub(super) fn variable(&self, name: &str) -> Option<&str> {
        self.spec.variables.get(name).map(String::as_str)
    }
}

impl WasiView for Host {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for Host {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http, table: &mut self.table, hooks: &mut self.hooks }
    }
}

impl HandlerState for Guest {
    type StoreData = Host;
    type WorkerExpiration = Expiration;
    type WorkerState = Worker;

    async fn instantiate(&self) -> wasmtime::Result<Instance<Host, Expiration, Worker>> {
        let vitals = Vitals::new();
        let host = Host {
            hooks: NoOutgoingHttp,
            table: ResourceTable::new(),
            wasi: self.wasi()?,
            http: WasiHttpCtx::new(),
            limiter: MemoryLimiter { max_bytes: self.limits.memory_bytes, vitals: Arc::clone(&vitals) },
            spec: Arc::clone(&self.spec),
            _counted: Counted::new(&self.count_instance),
        };
        let mut store = Store::new(&self.engine, host);
        store.limiter(|host| &mut host.limiter);
        self.limit_busyness(&mut store, &vitals);
        let proxy = self.pre.instantiate_async(&mut store).await?;
        Ok(Instance {
            store,
            proxy,
            view: Host::http,
            expiration: Expiration::new(Arc::clone(&vitals), self.limits),
            state: Worker {
                spec: Arc::clone(&self.spec),
                vitals,
                limits: self.limits,
                on_failure: Arc::clone(&self.on_failure),
                stranded: Arc::default(),
            },
        })
    }
}

impl Guest {
    /// Makes a running guest yield at each tick and traps one that never waits.
    fn limit_busyness(&self, store: &mut Store<Host>, vitals: &Arc<Vitals>) {
        let ticks_max = u32::try_from(self.limits.busy.as_millis() / TICK.as_millis()).unwrap_or(u32::MAX);
        let vitals = Arc::clone(vitals);
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(move |_| {
            if vitals.tick() > ticks_max {
                vitals.fail(Failure::Busy);
                return Ok(UpdateDeadline::Interrupt);
            }
            Ok(UpdateDeadline::Yield(1))
        });
    }

    fn wasi(&self) -> wasmtime::Result<WasiCtx> {
        let mut builder = WasiCtxBuilder::new();
        let log = GuestLog::new(&self.spec);
        builder.stdout(log.clone()).stderr(log).max_random_size(RANDOM_BYTES_MAX);
        for (name, value) in &self.spec.environment {
            builder.env(name, value);
        }
        for mount in &self.spec.mounts {
            builder.preopened_dir(&mount.source, &mount.destination, FsPerms::ReadOnly)?;
        }
        let spec = Arc::clone(&self.spec);
        builder.allow_tcp(true).allow_udp(false).allow_ip_name_lookup(false).socket_addr_check(
            move |address, usage| {
                let permitted = permits(&spec.outbound, address, usage);
                if !permitted {
                    tracing::warn!(component = spec.id, %address, ?usage, "refused a socket: not in allowed_outbound_hosts");
                }
                Box::pin(async move { permitted })
            },
        );
        Ok(builder.build())
    }
}

fn permits(allowed: &AllowList, address: SocketAddr, usage: SocketAddrUse) -> bool {
    match usage {
        SocketAddrUse::TcpConnect => allowed.allows(address),
        // A connect binds to the wildcard address first.
        SocketAddrUse::TcpBind => address.ip().is_unspecified() && address.port() == 0,
        _ => false,
    }
}

/// Caps linear memory. Growth above the cap fails in the guest, which usually traps on it.
struct MemoryLimiter {
    max_bytes: usize,
    vitals: Arc<Vitals>,
}

impl ResourceLimiter for MemoryLimiter {
    fn memory_growing(
        &mut self,
        _current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let granted = desired <= self.max_bytes && maximum.is_none_or(|maximum| desired <= maximum);
        self.vitals.memory(desired, granted);
        Ok(granted)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE_ELEMENTS_MAX)
    }
}

/// One in the count of live instances.
struct Counted(Arc<dyn Fn(i64) + Send + Sync>);

impl Counted {
    fn new(count: &Arc<dyn Fn(i64) + Send + Sync>) -> Self {
        count(1);
        Self(Arc::clone(count))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        (self.0)(-1);
    }
}

/// Components get sockets within the allow list, but no HTTP client.
struct NoOutgoingHttp;

type IoFuture = Box<dyn Future<Output = Result<(), wasmtime_wasi_http::Error>> + Send>;
type SentRequest = Result<(http::Response<WasiBody>, IoFuture), wasmtime_wasi_http::Error>;

impl WasiHttpHooks for NoOutgoingHttp {
    fn send_request(
        &mut self,
        _request: http::Request<WasiBody>,
        _options: Option<RequestOptions>,
        _io: IoFuture,
    ) -> Box<dyn Future<Output = SentRequest> + Send> {
        Box::new(async { Err(wasmtime_wasi_http::Error::HttpRequestDenied) })
    }

    fn p3_error_from_hyper(&mut self, error: &hyper::Error) -> ErrorCode {
        // A client that breaks off is an everyday event: the default would warn each time.
        tracing::debug!(%error, "body ended early");
        ErrorCode::HttpProtocolError
    }
}
