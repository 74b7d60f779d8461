//! What is left when programs are killed.

use std::collections::HashSet;
use std::time::Duration;

use futures::StreamExt;
use orfeas_tests::faults::{Scenario, run_and_tell};
use orfeas_tests::pictures;
use orfeas_tests::stack::{Stack, StackOptions};
use orfeas_tests::wait;

const IMPATIENT: StackOptions<'static> =
    StackOptions { node: &["--ack-wait", "2s"], edge: &[], store: None, environment: &[] };

/// Names in the results store.
async fn results(stack: &Stack) -> Vec<String> {
    let jetstream = async_nats::jetstream::new(stack.bus.connect().await);
    let store = jetstream.get_object_store("orfeas_results_local").await.unwrap();
    let mut list = store.list().await.unwrap();
    let mut names = Vec::new();
    while let Some(object) = list.next().await {
        names.push(object.unwrap().name);
    }
    names
}

#[tokio::test]
async fn a_job_whose_node_is_killed_completes_after_a_restart_with_one_result() {
    let mut stack = Stack::start_with(IMPATIENT).await;
    let client = stack.client();
    let job = client.submit_png(pictures::png(512, 1), &[("quality", "9")]).await;
    let id = job["id"].as_str().unwrap();
    client.job_when(id, "is under way", |job| job["status"] == "processing").await;
    stack.kill_node();
    assert_eq!(client.job(id).await["status"], "processing");
    stack.start_node();
    let job = client.job_ended(id).await;
    assert_eq!(job["status"], "completed", "{job}");
    assert!(job["attempt"].as_u64() >= Some(2), "{job}");
    assert_eq!(results(&stack).await, [id]);

    // The message is gone too: nothing would run it a third time.
    let jetstream = async_nats::jetstream::new(stack.bus.connect().await);
    wait::until("the work queue is empty", Duration::from_secs(10), || async {
        let mut stream = jetstream.get_stream("ORFEAS_JOBS_LOCAL").await.ok()?;
        (stream.info().await.ok()?.state.messages == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn acknowledged_jobs_survive_the_death_of_the_bus() {
    let mut stack = Stack::start_with(IMPATIENT).await;
    let client = stack.client();
    let mut ids = HashSet::new();
    for marker in 0..6 {
        let job = client.submit_png(pictures::png(96, marker), &[]).await;
        ids.insert(job["id"].as_str().unwrap().to_owned());
    }
    stack.bus.kill();
    stack.bus.restart().await;
    for id in &ids {
        assert_eq!(client.job_ended(id).await["status"], "completed");
    }
    let stored: Vec<_> = results(&stack).await;
    assert_eq!(stored.len(), ids.len());
    assert_eq!(stored.into_iter().collect::<HashSet<_>>(), ids);
}

#[tokio::test]
async fn programs_that_are_asked_to_stop_stop() {
    let mut stack = Stack::start().await;
    let client = stack.client();
    let job = client.submit_png(pictures::png(64, 1), &[]).await;
    client.job_ended(job["id"].as_str().unwrap()).await;
    assert!(stack.edge.process.stop(), "the edge ends with success");
    assert!(stack.node.as_mut().unwrap().process.stop(), "the node ends with success");
}

/// Jobs of a scenario's short form: some three seconds of submissions. `cargo xtask faults` is the long form.
const JOBS: usize = 16;

/// Nothing lost, doubled or stuck in a short run whose plan is drawn from a fixed seed.
async fn check(scenario: Scenario) {
    let row = run_and_tell(scenario, JOBS, 1).await;
    if let Some(reason) = &row.skipped {
        println!("skipped: {reason}");
        return;
    }
    assert_eq!(row.submitted.acknowledged.len(), JOBS);
    assert_eq!(row.defects(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn jobs_end_as_promised_when_the_node_is_killed_again_and_again() {
    check(Scenario::NodeKilled).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn jobs_end_as_promised_when_the_bus_is_killed_again_and_again() {
    check(Scenario::BusKilled).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn jobs_end_as_promised_when_node_and_bus_are_killed() {
    check(Scenario::BothKilled).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn jobs_end_as_promised_when_the_results_store_is_full_for_a_while() {
    check(Scenario::ResultsFull).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn jobs_end_as_promised_when_the_disk_is_full_for_a_while() {
    check(Scenario::DiskFull).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn jobs_end_as_promised_beside_clients_that_do_not_read() {
    check(Scenario::SlowConsumer).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn jobs_end_as_promised_when_the_wall_clocks_jump() {
    check(Scenario::ClockJump).await;
}
