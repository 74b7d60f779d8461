//! Requests that succeed, and what the host adds to them.

use std::io::Write;

use crate::edge::{Edge, Setup, wait_until};

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[test]
fn a_component_answers_with_its_variables_and_files() {
    let edge = Edge::with(&Setup {
        flags: &["--variable=greeting=hello"],
        component: "files = [{ source = 'www', destination = '/www' }]\nenvironment = { COLOUR = 'blue' }",
        ..Setup::default()
    });
    edge.get("/hello").is(200, "hello");
    edge.get("/variable?name=greeting").is(200, "hello!");
    edge.get("/environment?name=COLOUR").is(200, "blue");
    edge.get("/file?path=/www/page.txt").is(200, "a page");
    assert_eq!(edge.get("/nothing").status, 404);
}

#[test]
fn the_request_id_goes_through_and_is_made_where_it_is_missing() {
    let edge = Edge::start(&[]);
    let with_id = |id: &str| {
        edge.send(&format!(
            "GET /headers HTTP/1.1\r\nhost: test\r\nx-request-id: {id}\r\nconnection: close\r\n\r\n"
        ))
    };
    let kept = with_id("mine-1");
    assert_eq!(kept.header("x-request-id"), Some("mine-1"));
    assert!(kept.body.contains("x-request-id: mine-1\n"), "{kept:?}");
    let replaced = with_id("has spaces in it");
    let id = replaced.header("x-request-id").unwrap();
    assert_eq!(id.len(), 36, "{id}");
    assert!(replaced.body.contains(&format!("x-request-id: {id}\n")), "{replaced:?}");
}

#[test]
fn a_trace_goes_on_into_component_and_log() {
    let edge = Edge::start(&[]);
    let answer = edge.send(&format!(
        "GET /headers HTTP/1.1\r\nhost: test\r\ntraceparent: {PARENT}\r\nconnection: close\r\n\r\n"
    ));
    assert!(answer.body.contains("traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-"), "{answer:?}");
    assert!(!answer.body.contains(PARENT), "the hop has a span of its own: {answer:?}");
    wait_until("the request is logged with its trace", || {
        edge.log().lines().any(|line| {
            let event: serde_json::Value = serde_json::from_str(line).unwrap();
            event["target"] == "access" && event["trace_id"] == "4bf92f3577b34da6a3ce929d0e0e4736"
        })
    });
}

const KEPT: &str = "GET /hello HTTP/1.1\r\nhost: test\r\n\r\n";
const LAST: &str = "GET /hello HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";

#[test]
fn a_connection_serves_one_request_after_another() {
    let edge = Edge::start(&[]);
    let mut connection = edge.open(KEPT);
    connection.read_until("hello");
    connection.0.write_all(KEPT.as_bytes()).unwrap();
    connection.read_until("hello");
    connection.0.write_all(LAST.as_bytes()).unwrap();
    connection.answer().is(200, "hello");
}

#[test]
fn requests_that_come_at_once_are_answered_in_turn() {
    let edge = Edge::start(&[]);
    let answers = edge.send(&[KEPT, KEPT, LAST].concat());
    // The first answer's body and, as this reader does not part them, all that follows it.
    assert_eq!(answers.body.matches("hello").count(), 3, "{answers:?}");
    edge.counts("requests_total{endpoint=\"/...\",method=\"GET\"}", 3.0);
}

#[test]
fn one_instance_serves_many_requests() {
    let edge = Edge::start(&[]);
    for _ in 0..20 {
        edge.get("/hello").is(200, "hello");
    }
    assert_eq!(edge.metric("orfeas_wasm_instances"), 1.0);
}

#[test]
fn what_a_component_tells_the_host_is_counted_and_not_sent_on() {
    let edge = Edge::start(&[]);
    let refused =
        edge.send("POST /refuse HTTP/1.1\r\nhost: test\r\ncontent-length: 1\r\nconnection: close\r\n\r\nx");
    assert_eq!(refused.status, 422);
    assert_eq!(refused.header("x-orfeas-code"), None);
    assert_eq!(refused.header("x-orfeas-channel"), Some("canary"));
    edge.counts("orfeas_uploads_rejected_total{code=\"invalid_image\"}", 1.0);
    edge.counts("orfeas_canary_requests_total{channel=\"canary\"}", 1.0);
}

#[test]
fn endpoints_are_labelled_by_their_table() {
    let edge = Edge::with(&Setup {
        tables: "[component.guest.tool.orfeas-edge]\nendpoints = [{ route = '/job/:id', class = 'short' }]",
        ..Setup::default()
    });
    for path in ["/job/1", "/job/2", "/elsewhere/1", "/elsewhere/2"] {
        assert_eq!(edge.get(path).status, 404);
    }
    let count = |endpoint| {
        edge.metric(&format!("request_duration_seconds_count{{endpoint=\"{endpoint}\",status=\"404\"}}"))
    };
    wait_until("all are counted", || count("/job/:id") == 2.0 && count("/...") == 2.0);
}
