//! What is left when programs are killed.

use std::collections::HashSet;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use orfeas_tests::faults::audit::{SETTLE_LIMIT, audit};
use orfeas_tests::faults::{Scenario, run_and_tell};
use orfeas_tests::pictures;
use orfeas_tests::stack::{Stack, StackOptions};
use orfeas_tests::wait;
use serde_json::Value;

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
    wait::until("the work queue is empty", wait::PATIENCE, || async {
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

/// Nobody works any more: what has not ended does not end.
const NOBODY_LIMIT: Duration = Duration::from_secs(1);

#[tokio::test]
async fn an_auditor_finds_what_is_lost_doubled_or_left_behind() {
    let options = StackOptions { node: &["--noop-family"], ..StackOptions::default() };
    let mut stack = Stack::start_with(options).await;
    let (http, bus) = (stack.client(), stack.bus.connect().await);
    let mut ids = Vec::new();
    for marker in 0..5 {
        let job = http.submit_png(pictures::png(64, marker), &[("model", "noop")]).await;
        ids.push(job["id"].as_str().unwrap().to_owned());
    }
    let found = audit(&ids, &http, &bus, SETTLE_LIMIT).await;
    assert_eq!(found.by_status.get("completed"), Some(&5), "{found:?}");
    assert_eq!([found.lost, found.duplicated, found.stuck], [const { Vec::<String>::new() }; 3]);

    stack.kill_node();
    let jetstream = async_nats::jetstream::new(bus.clone());
    let records = jetstream.get_key_value("orfeas_jobs_local").await.unwrap();
    let change = async |id: &str, field: &str, value: &str| {
        let mut record: Value = serde_json::from_slice(&records.get(id).await.unwrap().unwrap()).unwrap();
        *record.pointer_mut(field).unwrap() = value.into();
        records.put(id, record.to_string().into()).await.unwrap();
    };
    let [gone, altered, doubled, reopened, _sound] = &ids[..] else { unreachable!() };
    records.purge(gone).await.unwrap();
    change(altered, "/result/sha256", &"0".repeat(64)).await;
    change(reopened, "/status", "processing").await;
    // The same description of the result once more.
    let store = jetstream.get_stream("OBJ_orfeas_results_local").await.unwrap();
    let mut descriptions = store.info_with_subjects("$O.orfeas_results_local.M.>").await.unwrap();
    while let Some((subject, _)) = descriptions.try_next().await.unwrap() {
        let description = store.get_last_raw_message_by_subject(&subject).await.unwrap().payload;
        let name = serde_json::from_slice::<Value>(&description).unwrap()["name"].clone();
        if name == *doubled {
            jetstream.publish(subject, description).await.unwrap().await.unwrap();
        }
    }
    let message = jetstream.publish("orfeas.local.jobs.stable.5", gone.clone().into()).await.unwrap();
    message.await.unwrap();

    let found = audit(&ids, &http, &bus, NOBODY_LIMIT).await;
    let named = |defects: &[String]| -> Vec<String> {
        ids.iter().filter(|id| defects.iter().any(|defect| defect.starts_with(*id))).cloned().collect()
    };
    // A result whose job has no record, or does not say that it has completed, is one too many.
    assert_eq!(named(&found.lost), [gone, altered].map(String::clone), "{found:?}");
    assert_eq!(named(&found.duplicated), [gone, doubled, reopened].map(String::clone), "{found:?}");
    assert_eq!(named(&found.stuck), std::slice::from_ref(reopened), "{found:?}");
    assert!(found.stuck.iter().any(|defect| defect.contains("queue holds Some(1)")), "{found:?}");
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
