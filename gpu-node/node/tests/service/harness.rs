//! A region of its own per test: server, node, script, client.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_nats::jetstream::{self, stream::Stream};
use async_nats::{Client, HeaderMap, Message, Request};
use futures::StreamExt;
use futures::future::BoxFuture;
use orfeas_node::admin::Readiness;
use orfeas_node::config::{Config, File, Flags};
use orfeas_node::metrics::Metrics;
use orfeas_node::pipeline::{
    DeviceMemory, Engine, Generated, GenerationRequest, LoadedModel, MeshReport, ModelKey, ModelSource,
    Monitor, PipelineError, Run, Settings,
};
use orfeas_node::recovery::Health;
use orfeas_node::service::{CONNECT_LIMIT, Connection, Service, check_durability, provision};
use orfeas_protocol::preset::Preset;
use orfeas_protocol::view::ModelChoice;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;

use crate::acts::Acts;

/// Long enough for two busy cores, short enough to notice.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// `nats-server` with JetStream in a folder that outlives it.
pub(crate) struct Server {
    child: Child,
    dir: TempDir,
    port: u16,
    monitor: Option<u16>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::start_with(None).await
    }

    /// With its monitoring port open.
    pub(crate) async fn start_monitored() -> Self {
        Self::start_with(Some(free_port())).await
    }

    async fn start_with(monitor: Option<u16>) -> Self {
        let dir = TempDir::new().unwrap();
        let port = free_port();
        let server = Self { child: spawn_server(dir.path(), port, monitor), dir, port, monitor };
        server.client().await;
        server
    }

    /// The URL of the monitoring port.
    pub(crate) fn monitor(&self) -> String {
        format!("http://127.0.0.1:{}", self.monitor.unwrap())
    }

    /// What the node would warn of at its start; `monitor` is empty or a URL.
    pub(crate) async fn durability_findings(&self, monitor: &str) -> Vec<String> {
        let mut config = config(self, "");
        config.nats.monitor = (!monitor.is_empty()).then(|| monitor.parse().unwrap());
        let metrics = Arc::new(Metrics::new());
        let connection = Connection::open(&config.nats, "test", CONNECT_LIMIT, metrics).await.unwrap();
        check_durability(&connection, &config).await.unwrap()
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    pub(crate) async fn client(&self) -> Client {
        until("nats-server answers", || async { async_nats::connect(self.url()).await.ok() }).await
    }

    /// `kill -9`, then the same server again.
    pub(crate) async fn crash_and_restart(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = spawn_server(self.dir.path(), self.port, self.monitor);
        self.client().await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn spawn_server(dir: &Path, port: u16, monitor: Option<u16>) -> Child {
    let program = std::env::var_os("ORFEAS_NATS_SERVER").map_or_else(|| "nats-server".into(), PathBuf::from);
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../infra/nats/nats-server.conf");
    let mut command = Command::new(program);
    command.arg("-c").arg(config).args(["-a", "127.0.0.1", "-p", &port.to_string(), "-sd"]).arg(dir);
    if let Some(monitor) = monitor {
        command.args(["-m", &monitor.to_string()]);
    }
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("nats-server: run `cargo xtask setup`")
}

/// The scripted families; runs end as their names say: `gated` when the gate opens.
const FAMILIES: [&str; 7] = ["ok", "gated", "no-subject", "panics", "acts", "huge", "tiered"];

/// A family that is always there and weighs nothing.
struct ScriptedSource {
    family: &'static str,
    version: &'static str,
}

impl ModelSource for ScriptedSource {
    fn family(&self) -> &'static str {
        self.family
    }

    fn fingerprint(&self) -> Result<String, PipelineError> {
        Ok(self.version.to_owned())
    }

    fn resident_bytes(&self) -> u64 {
        0
    }

    fn job_bytes(&self, settings: &Settings) -> u64 {
        let is_huge = match self.family {
            "huge" => true,
            "tiered" => settings.preset == Preset::Quality,
            _ => false,
        };
        // More than the nodes that are given a budget have; the others take everything.
        if is_huge { 2 << 30 } else { 0 }
    }

    fn load(&self, _version: &str) -> Result<LoadedModel, PipelineError> {
        Ok(LoadedModel::hollow())
    }
}

/// Runs end as the request's `model` says.
pub(crate) struct Script {
    /// Of all its models.
    version: &'static str,
    pub(crate) gate: watch::Sender<bool>,
    pub(crate) running: AtomicUsize,
    /// The seeds of the runs, in the order in which they began.
    pub(crate) began: Mutex<Vec<u64>>,
    installed: Mutex<Vec<ModelKey>>,
    mended: AtomicBool,
    /// What the family `acts` does.
    pub(crate) acts: Acts,
}

impl Script {
    fn of_version(version: &'static str) -> Self {
        Self {
            version,
            gate: watch::Sender::default(),
            running: AtomicUsize::default(),
            began: Mutex::default(),
            installed: Mutex::default(),
            mended: AtomicBool::default(),
            acts: Acts::default(),
        }
    }

    /// From now on, what panicked goes well.
    pub(crate) fn mend(&self) {
        self.mended.store(true, Ordering::SeqCst);
    }

    pub(crate) fn runs(&self) -> usize {
        self.began.lock().unwrap().len()
    }

    pub(crate) fn installed_families(&self) -> Vec<String> {
        self.installed().into_iter().map(|key| key.family).collect()
    }

    pub(crate) async fn wait_for_runs(&self, count: usize) {
        until("runs begin", || async { (self.runs() >= count).then_some(()) }).await;
    }
}

impl Engine for Script {
    fn default_family(&self) -> &str {
        "ok"
    }

    fn sources(&self) -> Vec<Arc<dyn ModelSource>> {
        let version = self.version;
        FAMILIES.map(|family| Arc::new(ScriptedSource { family, version }) as Arc<dyn ModelSource>).to_vec()
    }

    fn install(&self, key: ModelKey, _model: LoadedModel) -> Result<(), PipelineError> {
        self.installed.lock().unwrap().push(key);
        Ok(())
    }

    fn remove(&self, key: ModelKey) -> BoxFuture<'_, ()> {
        self.installed.lock().unwrap().retain(|installed| *installed != key);
        Box::pin(async {})
    }

    fn installed(&self) -> Vec<ModelKey> {
        self.installed.lock().unwrap().clone()
    }

    fn trim(&self) -> BoxFuture<'_, ()> {
        self.acts.trims.fetch_add(1, Ordering::SeqCst);
        Box::pin(async {})
    }

    fn run(
        &self,
        key: ModelKey,
        request: GenerationRequest,
        mut monitor: Box<dyn Monitor>,
    ) -> BoxFuture<'_, Run> {
        Box::pin(async move {
            assert!(self.installed().contains(&key), "{key} is not installed");
            let others = self.running.fetch_add(1, Ordering::SeqCst);
            assert_eq!(others, 0, "one job at a time on the device");
            self.began.lock().unwrap().push(request.settings.seed);
            let running = Running(&self.running);
            let outcome = self.play(&key, &request, monitor.as_mut()).await;
            drop(running);
            Run { outcome, peak_bytes: 0, leaked_bytes: 0 }
        })
    }

    fn memory(&self) -> DeviceMemory {
        self.acts.memory()
    }

    fn stopped(&self) -> BoxFuture<'_, ()> {
        let mut ended = self.acts.ended.subscribe();
        Box::pin(async move { drop(ended.wait_for(|ended| *ended).await) })
    }
}

/// A run that is counted, also one that is dropped in its middle.
struct Running<'a>(&'a AtomicUsize);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Script {
    async fn play(
        &self,
        key: &ModelKey,
        request: &GenerationRequest,
        monitor: &mut dyn Monitor,
    ) -> Result<Generated, PipelineError> {
        monitor.progress("shape", 0.3);
        match key.family.as_str() {
            "no-subject" => return Err(PipelineError::NoSubject),
            "panics" if !self.mended.load(Ordering::SeqCst) => {
                return Err(PipelineError::Panicked { stage: "shape", message: "scripted".to_owned() });
            }
            "acts" => self.acts.play(request, monitor).await?,
            "gated" => {
                let mut gate = self.gate.subscribe();
                // The pipeline's steps: between two of them it looks at its monitor.
                while !*gate.borrow_and_update() {
                    if monitor.is_cancelled() {
                        return Err(PipelineError::Cancelled);
                    }
                    let _ = tokio::time::timeout(Duration::from_millis(5), gate.changed()).await;
                }
            }
            _ => {}
        }
        monitor.progress("export", 0.9);
        Ok(generated(key, request))
    }
}

/// What the script makes: of nothing but the version and the request, so that two runs give the same file.
fn generated(key: &ModelKey, request: &GenerationRequest) -> Generated {
    Generated {
        file: [b"glTF".as_slice(), key.version.as_bytes(), &request.image].concat(),
        media_type: "model/gltf-binary",
        model: ModelChoice {
            family: Some("script".to_owned()),
            version: Some(key.version.clone()),
            ..ModelChoice::default()
        },
        report: MeshReport {
            vertices: 4,
            faces: 4,
            watertight: true,
            manifold: true,
            components: 1,
            degenerate_faces: 0,
            euler_characteristic: 2,
            genus: Some(0),
            volume: 1.0,
            area: 1.0,
            bounds: None,
        },
        stage_seconds: vec![("shape", 0.1)],
    }
}

/// A node in a runtime of its own, so that it can be killed like a process.
pub(crate) struct Node {
    runtime: Option<tokio::runtime::Runtime>,
    service: Option<Service>,
    pub(crate) script: Arc<Script>,
    pub(crate) metrics: Arc<Metrics>,
}

impl Node {
    pub(crate) async fn start(server: &Server, toml: &str) -> Self {
        Self::start_with_models(server, toml, "1").await
    }

    /// With models of a version of its own.
    pub(crate) async fn start_with_models(server: &Server, toml: &str, version: &'static str) -> Self {
        let script = Arc::new(Script::of_version(version));
        let metrics = Arc::new(Metrics::new());
        let config = config(server, toml);
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let starting = runtime.spawn({
            let (script, metrics) = (script.clone(), metrics.clone());
            async move {
                let connection = Connection::open(&config.nats, "test node", CONNECT_LIMIT, metrics.clone())
                    .await
                    .unwrap();
                provision(connection.jetstream(), &config).await.unwrap();
                let tracer = orfeas_traces::Tracer::off();
                Service::start(&config, connection, script, metrics, tracer).await.unwrap()
            }
        });
        let service = starting.await.unwrap();
        Self { runtime: Some(runtime), service: Some(service), script, metrics }
    }

    /// `kill -9`: nothing of it runs on.
    pub(crate) fn kill(mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }

    /// The running node's health.
    pub(crate) fn health(&self) -> Health {
        self.service.as_ref().unwrap().health()
    }

    /// Whether the running node can take work.
    pub(crate) fn readiness(&self) -> Arc<dyn Readiness> {
        self.service.as_ref().unwrap().readiness()
    }

    pub(crate) async fn drain(&mut self) {
        let service = self.service.take().unwrap();
        self.runtime.as_ref().unwrap().spawn(service.drain()).await.unwrap();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

pub(crate) fn config(server: &Server, toml: &str) -> Config {
    let name = if toml.starts_with("node_id") { "" } else { "node_id = \"test\"" };
    let toml = format!("{name}\n{toml}\n[nats]\nurls = [\"{}\"]\n", server.url());
    let file: File = toml::from_str(&toml).unwrap();
    Config::resolve(file, Flags::default()).unwrap()
}

/// A caller over NATS.
pub(crate) struct Caller {
    pub(crate) client: Client,
    pub(crate) jetstream: jetstream::Context,
}

impl Caller {
    pub(crate) async fn of(server: &Server) -> Self {
        let client = server.client().await;
        Self { jetstream: jetstream::new(client.clone()), client }
    }

    pub(crate) async fn ask(&self, endpoint: &str, options: Option<Value>, payload: Vec<u8>) -> Message {
        let mut headers = HeaderMap::new();
        if let Some(options) = options {
            headers.insert("Orfeas-Options", options.to_string());
        }
        let request = Request::new().headers(headers).payload(payload.into()).timeout(Some(PATIENCE));
        self.client.send_request(format!("orfeas.local.{endpoint}"), request).await.unwrap()
    }

    /// Waits until nodes hold this many messages of a priority in the stable channel.
    pub(crate) async fn held(&self, priority: u8, messages: usize) {
        until("the nodes hold the jobs", async || {
            let stream = self.jetstream.get_stream("ORFEAS_JOBS_LOCAL").await.ok()?;
            let lane = stream.consumer_info(format!("stable-{priority}")).await.ok()?;
            (lane.num_ack_pending == messages).then_some(())
        })
        .await;
    }

    /// Submits a picture and gives the job's id.
    pub(crate) async fn submit(&self, options: Value) -> String {
        let reply = body(&self.ask("submit", Some(options), picture(0)).await);
        reply["id"].as_str().unwrap_or_else(|| panic!("{reply}")).to_owned()
    }

    pub(crate) async fn job(&self, id: &str) -> Value {
        body(&self.ask("status", None, json!({ "id": id }).to_string().into_bytes()).await)
    }

    pub(crate) async fn cancel(&self, id: &str) -> Value {
        body(&self.ask("cancel", None, json!({ "id": id }).to_string().into_bytes()).await)
    }

    pub(crate) async fn job_when(&self, id: &str, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        until(what, || async {
            let job = self.job(id).await;
            is_so(&job).then_some(job)
        })
        .await
    }

    pub(crate) async fn job_ended(&self, id: &str) -> Value {
        self.job_when(id, "the job ends", |job| {
            matches!(job["status"].as_str(), Some("completed" | "failed" | "cancelled"))
        })
        .await
    }

    pub(crate) async fn stream(&self, name: &str) -> Stream {
        self.jetstream.get_stream(name).await.unwrap()
    }

    /// Waits until a node has told the queue so many times that it works on a job.
    pub(crate) async fn signs_of_life(&self, count: usize) {
        let mut acks = self.client.subscribe("$JS.ACK.>").await.unwrap();
        let mut seen = 0;
        while seen < count {
            let next = tokio::time::timeout(PATIENCE, acks.next()).await;
            let ack = next.expect("waited in vain for a sign of life").unwrap();
            seen += usize::from(ack.payload.as_ref() == b"+WPI");
        }
    }

    /// Waits until the work queue holds nothing: no message of a job that ended comes back.
    pub(crate) async fn queue_is_empty(&self) {
        let mut stream = self.stream("ORFEAS_JOBS_LOCAL").await;
        until("the queue is empty", async || (stream.info().await.ok()?.state.messages == 0).then_some(()))
            .await;
    }

    pub(crate) async fn result(&self, id: &str) -> Option<Vec<u8>> {
        use tokio::io::AsyncReadExt;
        let store = self.jetstream.get_object_store("orfeas_results_local").await.unwrap();
        let mut object = store.get(id).await.ok()?;
        let mut file = Vec::new();
        object.read_to_end(&mut file).await.unwrap();
        Some(file)
    }
}

pub(crate) fn body(message: &Message) -> Value {
    serde_json::from_slice(&message.payload).unwrap()
}

/// A small PNG; each marker gives another file.
pub(crate) fn picture(marker: u8) -> Vec<u8> {
    let mut file = std::io::Cursor::new(Vec::new());
    let pixels = image::RgbImage::from_fn(32, 32, |x, y| image::Rgb([x as u8, y as u8, marker]));
    pixels.write_to(&mut file, image::ImageFormat::Png).unwrap();
    file.into_inner()
}

/// Asks until there is an answer.
pub(crate) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let give_up_at = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < give_up_at, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
