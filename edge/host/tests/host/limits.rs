//! Bodies, heads, memory and places: what is over a limit is refused, and nothing leaks.

use crate::edge::{Edge, wait_until};
use std::io::Write;
use std::net::Shutdown;

fn post(length: &str, body: &str) -> String {
    format!("POST /length HTTP/1.1\r\nhost: test\r\nconnection: close\r\n{length}\r\n\r\n{body}")
}

#[test]
fn a_body_over_the_limit_is_refused_from_its_length() {
    let edge = Edge::start(&["--body-bytes=1000"]);
    edge.send(&post("content-length: 1000", &"x".repeat(1000))).is(200, "1000");
    // Nothing of the body is sent: only its length can be the reason.
    let refused = edge.send(&post("content-length: 1001", ""));
    refused.is_problem(413, "image_too_large");
    assert!(refused.body.contains("\"limit_bytes\":1000"), "{refused:?}");
    assert_eq!(edge.metric("orfeas_wasm_instances"), 1.0);
}

#[test]
fn a_body_without_a_length_is_refused_while_it_streams() {
    let edge = Edge::start(&["--body-bytes=1000"]);
    let chunk = format!("320\r\n{}\r\n", "x".repeat(0x320));
    edge.send(&post("transfer-encoding: chunked", &format!("{chunk}0\r\n\r\n"))).is(200, "800");
    let endless = post("transfer-encoding: chunked", &format!("{chunk}{chunk}"));
    edge.send(&endless).is_problem(413, "image_too_large");
}

#[test]
fn a_body_that_stalls_is_given_up() {
    let edge = Edge::start(&["--stall-seconds=0.3"]);
    edge.send(&post("content-length: 1000", "half")).is_problem(408, "request_timeout");
}

#[test]
fn a_client_that_does_not_finish_its_head_is_dropped() {
    let edge = Edge::start(&["--head-seconds=0.3"]);
    let answer = edge.send("GET /hello HTTP/1.1\r\nhost: te");
    assert!(answer.status == 0 || answer.status == 408, "{answer:?}");
    edge.get("/hello").is(200, "hello");
}

#[test]
fn heads_over_the_limits_are_refused() {
    let edge = Edge::start(&[]);
    let with = |headers: &str| {
        edge.send(&format!("GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n{headers}\r\n"))
    };
    with(&format!("x: {}\r\n", "y".repeat(70_000))).is_problem(431, "headers_too_large");
    with(&"x: y\r\n".repeat(150)).is_problem(431, "headers_too_large");
    with("host: another\r\n").is_problem(400, "invalid_request");
}

#[test]
fn memory_over_the_cap_costs_the_request_and_nothing_else() {
    let edge = Edge::start(&["--instance-memory-mib=64"]);
    edge.get("/allocate?mib=100").is_problem(502, "component_failed");
    edge.get("/hello").is(200, "hello");
    edge.counts("orfeas_wasm_failures_total{reason=\"out_of_memory\"}", 1.0);
}

#[test]
fn an_instance_that_grew_large_is_not_used_again() {
    let edge = Edge::start(&["--instance-memory-mib=64"]);
    edge.get("/allocate?mib=30").is(200, &(30 << 20).to_string());
    edge.counts("orfeas_wasm_instances", 0.0);
}

#[test]
fn a_trap_costs_the_request_and_nothing_else() {
    let edge = Edge::start(&[]);
    edge.get("/panic").is_problem(502, "component_failed");
    edge.get("/hello").is(200, "hello");
    edge.counts("orfeas_wasm_failures_total{reason=\"trap\"}", 1.0);
}

#[test]
fn a_full_class_answers_busy_and_leaves_the_others_alone() {
    let edge = Edge::start(&["--short-requests=2", "--queue-seconds=0.2"]);
    let running = [edge.open_get("/sleep?ms=3000"), edge.open_get("/sleep?ms=3000")];
    let mut refused = edge.get("/hello");
    wait_until("both places are taken", || {
        refused = edge.get("/hello");
        refused.status == 503
    });
    refused.is_problem(503, "overloaded");
    assert_eq!(refused.header("retry-after"), Some("1"));
    edge.send(&post("content-length: 3", "abc")).is(200, "3");
    for connection in running {
        connection.answer().is(200, "slept");
    }
    edge.get("/hello").is(200, "hello");
}

#[test]
fn a_client_that_goes_away_does_not_free_its_place_before_its_request_has_ended() {
    let edge = Edge::start(&["--short-requests=1", "--queue-seconds=0.1"]);
    let abandoned = edge.open_get("/sleep?ms=3000");
    wait_until("the place is taken", || edge.get("/hello").status == 503);
    drop(abandoned);
    assert_eq!(edge.get("/hello").status, 503, "the guest still runs");
    wait_until("the place is free", || edge.get("/hello").status == 200);
}

#[test]
fn abandoned_requests_leak_neither_places_nor_instances() {
    let edge = Edge::start(&["--short-requests=8", "--answer-seconds=2", "--queue-seconds=10"]);
    for round in 0..5 {
        let abandoned: Vec<_> = (0..8).map(|_| edge.open_get("/sleep?ms=200")).collect();
        drop(abandoned);
        let half: Vec<_> = (0..8).map(|_| edge.open(&post("content-length: 1000", "half of it"))).collect();
        for connection in half {
            connection.0.shutdown(Shutdown::Both).unwrap();
        }
        edge.get("/hello").is(200, "hello");
        assert!(edge.metric("orfeas_wasm_instances") <= 24.0, "in round {round}");
    }
    edge.counts("orfeas_wasm_instances", 0.0);
    edge.get("/hello").is(200, "hello");
}

#[test]
fn instances_over_the_pool_are_refused_not_waited_for() {
    let edge = Edge::start(&["--instances=1", "--queue-seconds=0.2"]);
    let upload = edge.open(
        "POST /sleep?ms=4000 HTTP/1.1\r\nhost: test\r\nconnection: close\r\ncontent-length: 1\r\n\r\nx",
    );
    edge.counts("orfeas_wasm_instances", 1.0);
    edge.get("/hello").is_problem(503, "overloaded");
    upload.answer().is(200, "slept");
}

#[test]
fn a_stream_that_its_instance_cuts_does_not_look_complete() {
    let edge = Edge::start(&[]);
    let whole = edge.get("/stream?lines=2&ms=10");
    assert!(whole.body.ends_with("0\r\n\r\n"), "{whole:?}");
    let cut = edge.get("/stream?lines=2&ms=10&then=panic");
    assert_eq!(cut.status, 200);
    assert!(cut.body.contains("data: 1") && !cut.body.ends_with("0\r\n\r\n"), "{cut:?}");
}

#[test]
fn a_reader_that_stops_reading_is_dropped() {
    let edge = Edge::start(&["--stall-seconds=0.3"]);
    let mut connection = edge.open("");
    // Far more than the socket buffers hold.
    let request = "GET /blob?bytes=50000000 HTTP/1.1\r\nhost: test\r\n\r\n";
    connection.0.write_all(request.as_bytes()).unwrap();
    wait_until("the answer has been given up", || {
        edge.log().lines().any(|line| {
            let event: serde_json::Value = serde_json::from_str(line).unwrap();
            event["path"] == "/blob" && event["complete"] == false
        })
    });
}
