//! What operators tell the models of a node.

use serde_json::{Value, json};

use crate::harness::{Caller, Node, Server, body, until};

async fn tell(caller: &Caller, verb: &str, command: Value) -> Value {
    body(&caller.ask(&format!("models.{verb}"), None, command.to_string().into_bytes()).await)
}

#[tokio::test]
async fn a_model_is_loaded_unloaded_and_loaded_again_by_command() {
    let server = Server::start().await;
    let node = Node::start(&server, "").await;
    let caller = Caller::of(&server).await;
    let done = |version: Value, changed: bool| json!({"node": "test", "family": "ok", "version": version, "changed": changed});
    let command = json!({"family": "ok"});
    assert_eq!(tell(&caller, "load", command.clone()).await, done(json!("1"), true));
    assert_eq!(tell(&caller, "load", json!({"family": "ok", "node": "test"})).await, done(json!("1"), false));
    assert_eq!(tell(&caller, "reload", command.clone()).await, done(json!("1"), false));
    assert_eq!(tell(&caller, "unload", command.clone()).await, done(Value::Null, true));
    until("the engine has let go", async || node.script.installed_families().is_empty().then_some(())).await;
    assert_eq!(tell(&caller, "unload", command).await, done(Value::Null, false));
    let id = caller.submit(json!({"model": "ok"})).await;
    assert_eq!(caller.job_ended(&id).await["status"], "completed", "a job loads it again");
    assert_eq!(node.script.installed_families(), ["ok"]);
}

#[tokio::test]
async fn a_command_that_makes_no_sense_is_a_problem_and_one_for_another_node_is_nothing() {
    let server = Server::start().await;
    let node = Node::start(&server, "").await;
    let caller = Caller::of(&server).await;
    let elsewhere = json!({"family": "ok", "node": "another"}).to_string();
    caller.client.publish("orfeas.local.models.load", elsewhere.into()).await.unwrap();
    let unknown = tell(&caller, "load", json!({"family": "none"})).await;
    assert_eq!((&unknown["code"], &unknown["node"]), (&json!("not_supported"), &json!("test")), "{unknown}");
    assert_eq!(tell(&caller, "load", json!([])).await["code"], "invalid_request");
    assert_eq!(node.script.installed_families(), Vec::<String>::new());
}
