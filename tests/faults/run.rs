//! One run: starts the service, lets the plan's jobs and faults loose on it, and has the outcome audited.

use std::time::Instant;

use async_nats::jetstream;
use tempfile::TempDir;
use tokio::task::block_in_place;
use tokio::time::sleep;

use super::audit::{SETTLE_LIMIT, audit};
use super::clock::Clock;
use super::disk::Disk;
use super::load::submit;
use super::plan::{Fault, Plan, Scenario};
use super::report::Row;
use super::slow::SlowClients;
use super::witness::Witness;
use crate::stack::{Stack, StackOptions};

/// A node whose work costs nothing, which gives up soon on a silent one, and on a job only after more starts
/// than a run has faults: here it is never the job's fault.
const NODE: [&str; 7] = ["--noop-family", "--ack-wait", "2s", "--attempts-max", "100", "--threads", "1"];

/// So many faults strike, however soon all jobs are submitted.
const FAULTS_MIN: usize = 2;

/// What a scenario needs beside the service.
#[derive(Default)]
struct Tools {
    disk: Option<Disk>,
    clock: Option<Clock>,
    slow: Vec<SlowClients>,
}

/// Carries a plan out. Needs a runtime with more than one thread: processes are waited for in place.
///
/// # Panics
/// When a program does not come up or a client cannot be opened.
pub async fn run(plan: Plan) -> Row {
    // Outlives the stack: what lies in it is in use until the stack's processes have ended.
    let dir = TempDir::with_prefix("orfeas-faults-").unwrap();
    let mut tools = match Tools::for_scenario(plan.scenario, dir.path()) {
        Ok(tools) => tools,
        Err(reason) => return Row::skipped(plan, reason),
    };
    let environment = tools.clock.as_ref().map(Clock::environment).unwrap_or_default();
    let options = StackOptions {
        node: &NODE,
        store: tools.disk.as_ref().map(Disk::path),
        environment: &environment,
        ..StackOptions::default()
    };
    let mut stack = Stack::start_with(options).await;
    let witness = Witness::start(stack.bus.connect().await).await;
    let began = Instant::now();
    let load = tokio::spawn({
        let (plan, http, client) = (plan.clone(), stack.client(), stack.bus.connect().await);
        async move { submit(&plan, http, client).await }
    });
    let mut faults = 0;
    for (pause, fault) in &plan.faults {
        if faults >= FAULTS_MIN && load.is_finished() {
            break;
        }
        sleep(*pause).await;
        strike(*fault, &mut stack, &mut tools).await;
        faults += 1;
    }
    let submitted = load.await.unwrap();
    let client = stack.bus.connect().await;
    let findings = audit(&submitted.acknowledged, &stack.client(), &client, SETTLE_LIMIT).await;
    let wall = began.elapsed();
    let (views, violations) = witness.finish();
    let row = Row { plan, skipped: None, submitted, faults, findings, views, violations, wall };
    if !row.defects().is_empty() {
        eprintln!(
            "--- the node's log\n{}",
            stack.node.as_ref().map(|node| node.process.log()).unwrap_or_default()
        );
    }
    row
}

impl Tools {
    fn for_scenario(scenario: Scenario, dir: &std::path::Path) -> Result<Tools, String> {
        let mut tools = Tools::default();
        match scenario {
            Scenario::DiskFull => tools.disk = Some(Disk::mount(&dir.join("disk"))?),
            Scenario::ClockJump => tools.clock = Some(Clock::build(dir)?),
            _ => {}
        }
        Ok(tools)
    }
}

async fn strike(fault: Fault, stack: &mut Stack, tools: &mut Tools) {
    match fault {
        Fault::KillNode { away } => {
            stack.kill_node();
            sleep(away).await;
            block_in_place(|| stack.start_node());
        }
        Fault::KillBus { away } => {
            stack.bus.kill();
            sleep(away).await;
            stack.bus.restart().await;
        }
        Fault::KillBoth { away } => {
            stack.bus.kill();
            stack.kill_node();
            sleep(away).await;
            stack.bus.restart().await;
            block_in_place(|| stack.start_node());
        }
        Fault::FillStore { full } => match &tools.disk {
            Some(disk) => {
                disk.fill();
                sleep(full).await;
                disk.free();
                // A stream that met a full disk takes nothing more, whatever room there is, until its server is
                // started again; that is what an operator would do.
                stack.bus.restart().await;
            }
            None => {
                bound_results(stack, true).await;
                sleep(full).await;
                bound_results(stack, false).await;
            }
        },
        Fault::StopReading => {
            let bus = stack.bus.address().parse().unwrap();
            let edge = stack.edge.url.trim_start_matches("http://").parse().unwrap();
            let client = stack.bus.connect().await;
            tools.slow.push(SlowClients::open(bus, edge, &client).await.unwrap());
        }
        Fault::SetClock { ahead_s } => {
            if let Some(clock) = &tools.clock {
                clock.set(ahead_s);
            }
        }
    }
}

/// Takes all room from the results' bucket, or gives it back: the bound is set to what it holds.
async fn bound_results(stack: &Stack, full: bool) {
    let jetstream = jetstream::new(stack.bus.connect().await);
    let mut stream = jetstream.get_stream("OBJ_orfeas_results_local").await.unwrap();
    let info = stream.info().await.unwrap();
    let bound = if full { i64::try_from(info.state.bytes).unwrap().max(1) } else { -1 };
    let config = jetstream::stream::Config { max_bytes: bound, ..info.config.clone() };
    jetstream.update_stream(config).await.unwrap();
}

/// Draws and carries out a plan, and prints what is wrong with the command that draws it again.
pub async fn run_and_tell(scenario: Scenario, jobs: usize, seed: u64) -> Row {
    let again = format!("cargo xtask faults --scenario {} --jobs {jobs} --seed {seed}", scenario.name());
    let row = run(Plan::draw(scenario, jobs, seed)).await;
    for defect in row.defects() {
        eprintln!("{}: {defect}", scenario.name());
    }
    if !row.defects().is_empty() {
        eprintln!("again by: {again}");
    }
    row
}
