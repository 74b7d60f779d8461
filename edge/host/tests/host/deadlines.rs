//! Requests that take too long, and the others beside them.

use crate::edge::Edge;
use std::time::{Duration, Instant};

#[test]
fn a_busy_loop_ends_while_other_requests_go_on() {
    let edge = Edge::start(&["--busy-seconds=1"]);
    edge.get("/hello").is(200, "hello");
    let busy = edge.open_get("/busy");
    let started = Instant::now();
    let mut served = 0;
    while started.elapsed() < Duration::from_millis(700) {
        edge.get("/hello").is(200, "hello");
        served += 1;
    }
    assert!(served > 5, "{served} requests beside a busy loop");
    busy.answer().is_problem(504, "deadline_exceeded");
    edge.counts("orfeas_wasm_failures_total{reason=\"busy\"}", 1.0);
    edge.get("/hello").is(200, "hello");
}

#[test]
fn work_below_the_busy_limit_is_left_alone() {
    let edge = Edge::start(&["--busy-seconds=2"]);
    edge.get("/compute?ms=300").is(200, "computed");
}

#[test]
fn a_busy_loop_also_ends_at_the_deadline() {
    let edge = Edge::start(&["--answer-seconds=0.5"]);
    edge.get("/busy").is_problem(504, "deadline_exceeded");
    edge.get("/hello").is(200, "hello");
}

#[test]
fn a_request_that_waits_too_long_ends_at_its_deadline() {
    let edge = Edge::start(&["--answer-seconds=0.5"]);
    let started = Instant::now();
    edge.get("/sleep?ms=20000").is_problem(504, "deadline_exceeded");
    assert!(started.elapsed() < Duration::from_secs(5));
    edge.get("/hello").is(200, "hello");
}

#[test]
fn a_stream_may_last_longer_than_the_time_for_its_start() {
    let edge = Edge::start(&["--answer-seconds=0.5"]);
    let answer = edge.send(
        "GET /stream?lines=8&ms=100 HTTP/1.1\r\nhost: test\r\naccept: text/event-stream\r\nconnection: close\r\n\r\n",
    );
    assert!(answer.body.contains("data: 7") && answer.body.ends_with("0\r\n\r\n"), "{answer:?}");
}
