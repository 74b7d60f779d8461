//! Provisioning, against a server.

use orfeas_node::service::{Provisioned, provision};

use crate::harness::{Caller, Server, config};

#[tokio::test]
async fn provisioning_twice_changes_nothing_the_second_time() {
    let server = Server::start().await;
    let caller = Caller::of(&server).await;
    let config = config(&server, "");
    let first = provision(&caller.jetstream, &config).await.unwrap();
    assert_eq!(first.created.len(), 12);
    assert_eq!(provision(&caller.jetstream, &config).await.unwrap(), Provisioned::default());
}

#[tokio::test]
async fn a_setting_that_differs_is_brought_back_and_named() {
    let server = Server::start().await;
    let caller = Caller::of(&server).await;
    let config = config(&server, "");
    provision(&caller.jetstream, &config).await.unwrap();
    let name = "KV_orfeas_jobs_local";
    let mut settings = caller.stream(name).await.cached_info().config.clone();
    settings.max_messages_per_subject = 7;
    caller.jetstream.update_stream(settings).await.unwrap();
    let again = provision(&caller.jetstream, &config).await.unwrap();
    assert_eq!(again.updated.len(), 1);
    assert!(again.updated[0].1.contains("max_messages_per_subject: 7 → 1"), "{:?}", again.updated);
    assert_eq!(caller.stream(name).await.cached_info().config.max_messages_per_subject, 1);
}

#[tokio::test]
async fn a_setting_that_cannot_be_changed_is_an_error_that_names_it() {
    let server = Server::start().await;
    let caller = Caller::of(&server).await;
    let wrong = async_nats::jetstream::stream::Config {
        name: "ORFEAS_JOBS_LOCAL".to_owned(),
        subjects: vec!["orfeas.local.jobs.>".to_owned()],
        storage: async_nats::jetstream::stream::StorageType::Memory,
        ..Default::default()
    };
    caller.jetstream.create_stream(wrong).await.unwrap();
    let error = provision(&caller.jetstream, &config(&server, "")).await.unwrap_err().to_string();
    assert!(error.contains("ORFEAS_JOBS_LOCAL") && error.contains("storage: Memory → File"), "{error}");
}
