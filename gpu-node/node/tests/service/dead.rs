//! Jobs that were given up, and what an operator does with them.

use orfeas_node::config::NatsConfig;
use orfeas_node::metrics::Metrics;
use orfeas_node::service::{CONNECT_LIMIT, Connection, DeadError, DeadLetters};
use orfeas_protocol::{JobId, Region};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::harness::{Caller, Node, Server};

const ONE_START: &str = "[work]\nattempts_max = 1";

async fn letters_of(server: &Server) -> DeadLetters {
    let nats = NatsConfig { urls: vec![server.url()], credentials: None, monitor: None };
    let connection = Connection::open(&nats, "test", CONNECT_LIMIT, Metrics::new().into()).await.unwrap();
    DeadLetters::open(connection, Region::default()).await.unwrap()
}

/// A job that was given up.
async fn given_up(caller: &Caller, seed: u64) -> JobId {
    let id = caller.submit(json!({"model": "panics", "seed": seed})).await;
    assert_eq!(caller.job_ended(&id).await["status"], "failed");
    caller.queue_is_empty().await;
    id.parse().unwrap()
}

/// `orfeas-gpu-node dead …`
async fn cli(server: &Server, args: &[&str]) -> (bool, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_orfeas-gpu-node"))
        .args(["dead", "--nats", &server.url()])
        .args(args)
        .output()
        .await
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

#[tokio::test]
async fn a_retried_job_is_a_new_one_with_all_its_starts_that_names_the_old() {
    let server = Server::start().await;
    let node = Node::start(&server, ONE_START).await;
    let caller = Caller::of(&server).await;
    let old = given_up(&caller, 3).await;
    node.script.mend();
    let new = letters_of(&server).await.retry(old).await.unwrap();
    let job = caller.job_ended(&new.to_string()).await;
    assert_eq!((&job["status"], &job["attempt"]), (&json!("completed"), &json!(1)), "{job}");
    assert_eq!(caller.job(&old.to_string()).await["status"], "failed", "a failed job stays failed");
    assert_eq!(*node.script.began.lock().unwrap(), [3, 3], "with the same options");
    let store = caller.jetstream.get_key_value("orfeas_jobs_local").await.unwrap();
    let record: Value = serde_json::from_slice(&store.get(new.to_string()).await.unwrap().unwrap()).unwrap();
    assert_eq!(record["retry_of"], old.to_string());
    let letters = letters_of(&server).await;
    assert!(matches!(letters.retry(old).await, Err(DeadError::NotFound(_))), "its letter is gone");
}

#[tokio::test]
async fn two_retries_at_once_make_one_job() {
    let server = Server::start().await;
    let node = Node::start(&server, ONE_START).await;
    let caller = Caller::of(&server).await;
    let old = given_up(&caller, 1).await;
    node.script.mend();
    let (one, other) = (letters_of(&server).await, letters_of(&server).await);
    let (one, other) = tokio::join!(one.retry(old), other.retry(old));
    let made: Vec<_> = [one, other].into_iter().flatten().collect();
    assert!(!made.is_empty() && made.iter().all(|id| *id == made[0]), "{made:?}");
    caller.job_ended(&made[0].to_string()).await;
    caller.queue_is_empty().await;
    assert_eq!(node.script.runs(), 2, "one failed run, one good one");
}

#[tokio::test]
async fn a_letter_of_a_job_that_did_not_fail_is_not_retried() {
    let server = Server::start().await;
    let _node = Node::start(&server, ONE_START).await;
    let caller = Caller::of(&server).await;
    let given_up = given_up(&caller, 1).await;
    let letter = letters_of(&server).await.get(given_up).await.unwrap();
    // As a node leaves it that sent the letter and lost the job to another node before it could fail it.
    let id = caller.submit(json!({})).await;
    caller.job_ended(&id).await;
    let mut forged = serde_json::to_value(&letter).unwrap();
    forged["job"]["id"] = json!(id);
    let subject = format!("orfeas.local.dead.{id}");
    caller.jetstream.publish(subject, forged.to_string().into()).await.unwrap().await.unwrap();
    let refused = letters_of(&server).await.retry(id.parse().unwrap()).await;
    assert!(matches!(refused, Err(DeadError::NotFailed { .. })), "{refused:?}");
}

#[tokio::test]
async fn the_command_lists_shows_retries_and_drops() {
    let server = Server::start().await;
    let node = Node::start(&server, ONE_START).await;
    let caller = Caller::of(&server).await;
    let (first, second) = (given_up(&caller, 1).await.to_string(), given_up(&caller, 2).await.to_string());

    let (ok, table, _) = cli(&server, &["list"]).await;
    assert!(ok && table.starts_with("JOB"), "{table}");
    assert!(table.lines().nth(1).unwrap().starts_with(&first) && table.contains("internal"), "{table}");
    let (_, listed, _) = cli(&server, &["list", "--json"]).await;
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed.as_array().unwrap().len(), 2);
    let (_, shown, _) = cli(&server, &["show", &second]).await;
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((&shown["job"]["id"], &shown["attempts"]), (&json!(second), &json!(1)));

    node.script.mend();
    let (ok, retried, _) = cli(&server, &["retry", &first]).await;
    assert!(ok, "{retried}");
    let new = retried.trim().rsplit(' ').next().unwrap().to_owned();
    assert_eq!(caller.job_ended(&new).await["status"], "completed");
    let (ok, dropped, _) = cli(&server, &["drop", "--all"]).await;
    assert!(ok && dropped.contains(&second) && !dropped.contains(&first), "{dropped}");
    let (ok, _, errors) = cli(&server, &["retry", &second]).await;
    assert!(!ok && errors.contains("no letter"), "{errors}");
}
