//! Spans, from the HTTP request to each stage of the pipeline.

use orfeas_tests::collector::{Collector, Span};
use orfeas_tests::stack::{Stack, StackOptions};
use orfeas_tests::{pictures, wait};
use reqwest::Method;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

#[tokio::test]
async fn one_trace_leads_from_the_http_request_to_each_stage() {
    let collector = Collector::start().await;
    // Batches are sent often, so that the test need not wait.
    let environment = collector.environment();
    let stack =
        Stack::start_with(StackOptions { environment: &environment, ..StackOptions::default() }).await;
    let client = stack.client();
    let request = client.request(Method::POST, "/api/generate-3d?quality=5");
    let request = request.header("traceparent", format!("00-{TRACE}-{CALLER}-01"));
    let request = request.header("content-type", "image/png").body(pictures::png(64, 1));
    request.send().await.unwrap().error_for_status().unwrap();

    let ours =
        || -> Vec<Span> { collector.spans().into_iter().filter(|span| span.trace_id == TRACE).collect() };
    let spans = wait::until("all spans have come", wait::PATIENCE, || async {
        let spans = ours();
        let has = |name: &str| spans.iter().any(|span| span.name == name);
        (has("POST /api/generate-3d") && has("job") && has("export")).then_some(spans)
    })
    .await;
    let one = |name: &str| -> Span {
        let named: Vec<_> = spans.iter().filter(|span| span.name == name).collect();
        assert_eq!(named.len(), 1, "{name} in {spans:#?}");
        named[0].clone()
    };
    let server = one("POST /api/generate-3d");
    assert_eq!((server.service.as_str(), server.parent_span_id.as_str()), ("orfeas-edge", CALLER));
    let job = one("job");
    assert_eq!((&*job.service, &job.parent_span_id), ("orfeas-gpu-node", &server.span_id));
    for stage in ["decode", "background", "shape", "surface", "cleanup", "simplify", "texture", "export"] {
        let span = one(stage);
        assert_eq!(span.parent_span_id, job.span_id, "{stage}");
        assert!(job.nanos.0 <= span.nanos.0 && span.nanos.1 <= job.nanos.1, "{stage} lies within its job");
    }
    assert!(server.nanos.0 <= job.nanos.0 && job.nanos.1 <= server.nanos.1, "the caller waited for the job");
}

#[tokio::test]
async fn a_trace_that_its_caller_does_not_record_is_not_recorded() {
    let collector = Collector::start().await;
    let environment = collector.environment();
    let stack =
        Stack::start_with(StackOptions { environment: &environment, ..StackOptions::default() }).await;
    let client = stack.client();
    let ask = async |flags: &str, trace: &str| {
        let request = client.request(Method::GET, "/livez");
        request.header("traceparent", format!("00-{trace}-{CALLER}-{flags}")).send().await.unwrap();
    };
    ask("00", TRACE).await;
    let recorded = TRACE.replace("0af", "1af");
    ask("01", &recorded).await;
    wait::until("the later request's span has come", wait::PATIENCE, || async {
        collector.spans().iter().any(|span| span.trace_id == recorded).then_some(())
    })
    .await;
    assert!(collector.spans().iter().all(|span| span.trace_id != TRACE));
}
