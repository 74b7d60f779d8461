//! The driver with a scripted engine: the real queue, memory and model cache.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use bytes::Bytes;
use orfeas_protocol::options::JobType;
use orfeas_protocol::preset::Preset;
use orfeas_protocol::{JobId, JobOptions, Timestamp};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::queue::{Gate, Policy, SubmitError};
use super::{Admission, AdmitError, Candidate, EngineProbe, Limits, Scheduler};
use crate::config::ModelsConfig;
use crate::metrics::Metrics;
use crate::models::{LeaseError, ModelCache, ModelLease, ModelState};
use crate::pipeline::{
    Engine, GenerationRequest, LoadedModel, ModelKey, ModelSource, PipelineError, ScriptedEngine, Settings,
    Unwatched,
};
use crate::vram::ledger::Ledger;
use crate::vram::{Memory, Plan};

const PATIENCE: Duration = Duration::from_secs(20);
const MIB: u64 = 1 << 20;
/// Of which 800 may be promised.
const DEVICE_BYTES: u64 = 1_000 * MIB;

/// Families by name: what their model and their jobs weigh, in MiB.
const FAMILIES: [(&str, u64, u64); 7] = [
    ("light", 0, 64),
    ("heavy", 320, 64),
    ("large", 320, 384),
    ("giant", 320, 640),
    ("bulky", 0, 512),
    ("slow", 320, 64),
    ("broken", 320, 64),
];

struct Source {
    weights: (&'static str, u64, u64),
    /// Loads of the family `slow` end when the sender of this is gone.
    slow: Arc<Mutex<mpsc::Receiver<()>>>,
}

impl ModelSource for Source {
    fn family(&self) -> &'static str {
        self.weights.0
    }

    fn fingerprint(&self) -> Result<String, PipelineError> {
        Ok("1".to_owned())
    }

    fn resident_bytes(&self) -> u64 {
        self.weights.1 * MIB
    }

    fn job_bytes(&self, settings: &Settings) -> u64 {
        let share = if settings.preset == Preset::Fast { 2 } else { 1 };
        self.weights.2 * MIB / share
    }

    fn load(&self, _version: &str) -> Result<LoadedModel, PipelineError> {
        if self.family() == "broken" {
            return Err(PipelineError::WeightsMissing("broken".to_owned()));
        }
        if self.family() == "slow" {
            assert!(self.slow.lock().unwrap().recv().is_err(), "nothing is ever sent");
        }
        Ok(LoadedModel::hollow())
    }
}

struct Bed {
    scheduler: Scheduler,
    engine: Arc<ScriptedEngine>,
    slow_loads: Option<mpsc::Sender<()>>,
    metrics: Arc<Metrics>,
    driver: JoinHandle<()>,
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Bed {
    fn new(policy: Policy) -> Self {
        Self::with(policy, 0, 0)
    }

    fn with(policy: Policy, peak_bytes: u64, leaked_bytes: u64) -> Self {
        let (slow_loads, slow) = mpsc::channel();
        let slow = Arc::new(Mutex::new(slow));
        let source = |weights| Arc::new(Source { weights, slow: slow.clone() }) as Arc<dyn ModelSource>;
        let mut engine = ScriptedEngine::new(FAMILIES.map(source).to_vec(), DEVICE_BYTES);
        (engine.peak_bytes, engine.leaked_bytes) = (peak_bytes, leaked_bytes);
        let engine = Arc::new(engine);
        let metrics = Arc::new(Metrics::new());
        let models_config = ModelsConfig { keep_alive: Duration::ZERO, ..ModelsConfig::default() };
        let models = ModelCache::new(engine.clone(), models_config, metrics.clone());
        let plan =
            Plan { limit_bytes: None, safety_margin: 0.8, is_main_memory: false, estimates_file: None };
        let memory = Memory::open(plan, Arc::new(EngineProbe(engine.clone())));
        let limits = Limits { concurrency: 3, policy };
        let scheduler = Scheduler::new(engine.clone(), models, memory, limits, metrics.clone());
        let driver = tokio::spawn(scheduler.clone().drive());
        Self { scheduler, engine, slow_loads: Some(slow_loads), metrics, driver }
    }

    async fn admit(&self, candidate: Candidate) -> Admission {
        timeout(PATIENCE, self.scheduler.admit(candidate)).await.expect("admitted in time").unwrap()
    }

    async fn lease(&self, family: &str) -> ModelLease {
        self.scheduler.models().lease(family, None, PATIENCE).await.unwrap()
    }

    fn promised_mib(&self) -> u64 {
        self.scheduler.memory().vram().read(Ledger::promised_bytes) / MIB
    }
}

fn candidate(n: u8, family: &str) -> Candidate {
    Candidate {
        id: JobId::new(Timestamp::from_unix_ms(1_700_000_000_000), [n; 10]),
        tenant: "t".parse().unwrap(),
        priority: 5.try_into().unwrap(),
        family: Some(family.to_owned()),
        settings: Settings::decide(&JobOptions::default()),
        picture_side: 1_000,
        // In the future, which counts as now.
        created_at: Timestamp::from_unix_ms(4_000_000_000_000),
        deadline: None,
    }
}

fn settings(quality: u8) -> Settings {
    Settings::decide(&JobOptions { quality: Some(quality), ..JobOptions::default() })
}

fn request() -> GenerationRequest {
    request_of(settings(7))
}

fn request_of(settings: Settings) -> GenerationRequest {
    GenerationRequest { image: Bytes::new(), job_type: JobType::default(), settings }
}

#[tokio::test]
async fn the_device_goes_from_job_to_job_in_the_queues_order() {
    let bed = Bed::new(Policy::default());
    let first = bed.admit(candidate(1, "light")).await;
    let mut low = Box::pin(bed.scheduler.admit(candidate(2, "light")));
    let urgent = Candidate { priority: 9.try_into().unwrap(), ..candidate(3, "light") };
    let mut high = Box::pin(bed.scheduler.admit(urgent));
    assert!(futures::poll!(low.as_mut()).is_pending());
    assert!(futures::poll!(high.as_mut()).is_pending());
    let order = [3, 2].map(|n| candidate(n, "light").id);
    assert_eq!(bed.scheduler.order(9), order);
    drop(first.leave_device());
    let second = timeout(PATIENCE, high).await.unwrap().unwrap();
    assert!(futures::poll!(low.as_mut()).is_pending());
    drop(second);
    timeout(PATIENCE, low).await.unwrap().unwrap();
}

#[tokio::test]
async fn who_leaves_at_any_moment_leaves_nothing_behind() {
    let bed = Bed::new(Policy::default());
    let running = bed.admit(candidate(1, "light")).await;
    // In the queue.
    let mut waiting = Box::pin(bed.scheduler.admit(candidate(2, "light")));
    assert!(futures::poll!(waiting.as_mut()).is_pending());
    drop(waiting);
    assert_eq!(bed.scheduler.waiting(), 0);
    // Called, and not there any more.
    let called = bed.scheduler.queue(candidate(3, "light")).unwrap();
    drop(running);
    assert_eq!(bed.scheduler.waiting(), 0);
    drop(called);
    // Admitted, and gone without a run.
    drop(bed.admit(candidate(4, "light")).await);
    // In mid-run.
    let mut admission = bed.admit(candidate(5, "light")).await;
    let lease = bed.lease("light").await;
    let mut run = Box::pin(admission.run(&lease, request(), Box::new(Unwatched)));
    assert!(futures::poll!(run.as_mut()).is_pending());
    drop(run);
    bed.engine.running.store(0, Ordering::SeqCst);
    drop(admission);
    assert!(bed.scheduler.is_idle());
    assert_eq!(bed.promised_mib(), 0);
    bed.admit(candidate(6, "light")).await;
}

#[tokio::test]
async fn jobs_and_models_share_the_budget_and_an_idle_model_makes_way() {
    let bed = Bed::new(Policy::default());
    let heavy = bed.admit(candidate(1, "heavy")).await;
    drop(bed.lease("heavy").await);
    assert_eq!(bed.promised_mib(), 320 + 64);
    let mut large = Box::pin(bed.scheduler.admit(candidate(2, "large")));
    assert!(futures::poll!(large.as_mut()).is_pending());
    drop(heavy);
    // 320 for the idle model, 320 and 384 for this one: more than 800.
    let large = timeout(PATIENCE, large).await.unwrap().unwrap();
    let lease = bed.lease("large").await;
    assert_eq!(bed.promised_mib(), 320 + 384);
    assert_eq!(bed.engine.installed(), [ModelKey::new("large", "1")]);
    drop((lease, large));
    drop(bed.admit(candidate(3, "heavy")).await);
    drop(bed.lease("heavy").await);
    assert_eq!(bed.promised_mib(), 320 + 320, "two idle models fit beside each other");
}

#[tokio::test]
async fn what_the_empty_device_cannot_hold_is_refused_and_holds_up_nobody() {
    let bed = Bed::new(Policy::default());
    let running = bed.admit(candidate(1, "light")).await;
    let giant = Candidate { priority: 10.try_into().unwrap(), ..candidate(2, "giant") };
    let mut giant = Box::pin(bed.scheduler.admit(giant));
    assert!(futures::poll!(giant.as_mut()).is_pending());
    let mut light = Box::pin(bed.scheduler.admit(candidate(3, "light")));
    assert!(futures::poll!(light.as_mut()).is_pending());
    drop(running);
    match timeout(PATIENCE, giant).await.unwrap() {
        Err(AdmitError::NeverFits { needed_bytes, ceiling_bytes }) => {
            assert_eq!((needed_bytes / MIB, ceiling_bytes / MIB), (960, 800));
        }
        other => panic!("{:?}", other.err()),
    }
    timeout(PATIENCE, light).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_job_past_its_deadline_is_told_while_the_device_is_taken() {
    let bed = Bed::new(Policy::default());
    let running = bed.admit(candidate(1, "light")).await;
    let late = Candidate { deadline: Some(Timestamp::from_unix_ms(1)), ..candidate(2, "light") };
    let answer = timeout(PATIENCE, bed.scheduler.admit(late)).await.unwrap();
    assert!(matches!(answer, Err(AdmitError::Expired)));
    drop(running);
}

#[tokio::test]
async fn the_last_jobs_are_handed_back_and_a_paused_queue_starts_nothing() {
    let bed = Bed::new(Policy::default());
    let running = bed.admit(candidate(1, "light")).await;
    let tickets = [2, 3, 4, 5].map(|n| bed.scheduler.queue(candidate(n, "light")).unwrap());
    let keeps = candidate(5, "light").id;
    assert_eq!(bed.scheduler.hand_back(2, |id| id != keeps), 2);
    let [two, three, four, five] = tickets;
    for gone in [three, four] {
        assert!(matches!(gone.admitted().await, Err(AdmitError::HandedBack)));
    }
    bed.scheduler.set_gate(Gate::Paused);
    drop(running);
    let mut two = Box::pin(two.admitted());
    assert!(futures::poll!(two.as_mut()).is_pending(), "paused");
    bed.scheduler.set_gate(Gate::Open);
    drop(timeout(PATIENCE, two).await.unwrap().unwrap());
    drop(timeout(PATIENCE, five.admitted()).await.unwrap().unwrap());
    bed.scheduler.set_gate(Gate::Draining);
    let refused = bed.scheduler.admit(candidate(6, "light")).await;
    assert!(matches!(refused, Err(AdmitError::Refused(SubmitError::Draining))));
}

#[tokio::test]
async fn pictures_are_fetched_for_the_next_few_only() {
    let bed = Bed::new(Policy::default());
    let running = bed.admit(candidate(1, "light")).await;
    let tickets = [2, 3, 4, 5].map(|n| bed.scheduler.queue(candidate(n, "light")).unwrap());
    let near = || tickets.each_ref().map(|ticket| *ticket.near().borrow());
    assert_eq!(near(), [true, true, false, false], "three in the pipeline, one of them on the device");
    drop(running);
    assert_eq!(near(), [true, true, true, false]);
}

#[tokio::test]
async fn results_that_are_being_stored_hold_up_the_device_only_beyond_the_bound() {
    let bed = Bed::new(Policy::default());
    let mut places = Vec::new();
    for n in 1..=3 {
        places.push(bed.admit(candidate(n, "light")).await.leave_device());
    }
    let mut fourth = Box::pin(bed.scheduler.admit(candidate(4, "light")));
    assert!(futures::poll!(fourth.as_mut()).is_pending(), "three store their results");
    places.pop();
    timeout(PATIENCE, fourth).await.unwrap().unwrap();
}

#[tokio::test]
async fn what_a_run_took_is_learned_and_what_it_leaked_stays_promised() {
    let bed = Bed::with(Policy::default(), 100 * MIB, 7 * MIB);
    let mut admission = bed.admit(candidate(1, "light")).await;
    bed.engine.ends.add_permits(1);
    admission.run(&bed.lease("light").await, request(), Box::new(Unwatched)).await;
    drop(admission);
    assert_eq!(bed.promised_mib(), 7);
    let text = bed.metrics.exposition().unwrap();
    assert!(text.contains("orfeas_memory_leaks_total 1"), "{text}");
    // 64 MiB were too little by 36 %.
    assert!(text.contains("orfeas_vram_estimate_error_ratio_bucket{le=\"-0.2\"} 1"), "{text}");
    let again = bed.admit(candidate(2, "light")).await;
    assert_eq!(bed.promised_mib(), 7 + 105, "the measured peak and a little more");
    drop(again);
}

#[tokio::test]
async fn each_try_runs_under_a_reservation_of_what_it_takes() {
    let bed = Bed::new(Policy::default());
    let mut admission = bed.admit(candidate(1, "large")).await;
    let lease = bed.lease("large").await;
    assert_eq!(bed.promised_mib(), 320 + 384);
    bed.engine.ends.add_permits(2);
    // One preset lower takes half of it, and others may have the rest at once.
    admission.run(&lease, request_of(settings(5)), Box::new(Unwatched)).await;
    assert_eq!(bed.promised_mib(), 320 + 192);
    let other = bed.scheduler.memory().vram().try_reserve(200 * MIB).unwrap();
    // As much as before is not there any more: the try fails before it touches the device.
    let run = admission.run(&lease, request(), Box::new(Unwatched)).await;
    assert!(
        matches!(run.outcome, Err(PipelineError::OutOfMemory(ref why)) if why.contains("available")),
        "{run:?}"
    );
    assert_eq!((bed.promised_mib(), bed.engine.ends.available_permits()), (320 + 192 + 200, 1));
    drop(other);
    admission.run(&lease, request(), Box::new(Unwatched)).await;
    assert_eq!(bed.promised_mib(), 320 + 384);
    drop(admission);
    assert_eq!(bed.promised_mib(), 320);
}

#[tokio::test]
async fn an_idle_model_makes_way_for_a_try_that_takes_more_than_the_one_before() {
    let bed = Bed::new(Policy::default());
    drop(bed.lease("heavy").await);
    let mut admission = bed.admit(Candidate { settings: settings(5), ..candidate(1, "bulky") }).await;
    let lease = bed.lease("bulky").await;
    assert_eq!(bed.promised_mib(), 320 + 256);
    bed.engine.ends.add_permits(1);
    admission.run(&lease, request(), Box::new(Unwatched)).await;
    assert_eq!((bed.promised_mib(), bed.engine.ends.available_permits()), (512, 0));
    assert_eq!(bed.engine.installed(), [ModelKey::new("bulky", "1")]);
}

/// Waits until a model is on its way.
async fn on_its_way(bed: &Bed, family: &str) {
    let models = bed.scheduler.models();
    let mut changes = models.changes();
    let is_loading =
        || models.views().iter().any(|view| view.family == family && view.state == ModelState::Loading);
    while !is_loading() {
        // A load begins without a change that is told.
        let _ = timeout(Duration::from_millis(5), changes.changed()).await;
    }
}

#[tokio::test]
async fn while_a_model_loads_jobs_of_loaded_ones_have_the_device_within_the_bound() {
    let mut bed = Bed::new(Policy { bypass_max: 2, ..Policy::default() });
    drop(bed.lease("light").await);
    let mut first = Box::pin(bed.scheduler.admit(candidate(1, "slow")));
    assert!(futures::poll!(first.as_mut()).is_pending());
    timeout(PATIENCE, on_its_way(&bed, "slow")).await.unwrap();
    assert_eq!(bed.scheduler.on_device(), None, "nobody has the device while the model comes");
    for n in 2..=3 {
        drop(bed.admit(candidate(n, "light")).await);
    }
    // It has been passed over often enough: the device is kept for it.
    let mut fourth = Box::pin(bed.scheduler.admit(candidate(4, "light")));
    assert!(futures::poll!(fourth.as_mut()).is_pending());
    assert!(futures::poll!(first.as_mut()).is_pending());
    bed.slow_loads = None;
    let first = timeout(PATIENCE, first).await.unwrap().unwrap();
    assert!(bed.scheduler.models().is_warm("slow"), "its model is there when it gets the device");
    assert!(futures::poll!(fourth.as_mut()).is_pending());
    drop(first);
    timeout(PATIENCE, fourth).await.unwrap().unwrap();
}

#[tokio::test]
async fn the_model_of_a_job_whose_turn_is_near_loads_while_another_has_the_device() {
    let bed = Bed::new(Policy::default());
    let running = bed.admit(candidate(1, "light")).await;
    let ticket = bed.scheduler.queue(candidate(2, "heavy")).unwrap();
    let mut changes = bed.scheduler.models().changes();
    timeout(PATIENCE, async {
        while !bed.scheduler.models().is_warm("heavy") {
            changes.changed().await.unwrap();
        }
    })
    .await
    .expect("it is loaded while the device is another's");
    assert_eq!(bed.scheduler.on_device(), Some(candidate(1, "light").id));
    drop(running);
    timeout(PATIENCE, ticket.admitted()).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_job_whose_model_does_not_come_starts_so_that_its_lease_can_say_why() {
    let bed = Bed::new(Policy::default());
    for n in 1..=2 {
        let admission = bed.admit(candidate(n, "broken")).await;
        let lease = bed.scheduler.models().lease("broken", None, PATIENCE).await;
        assert!(matches!(lease, Err(LeaseError::Failed { .. })));
        drop(admission);
    }
}
