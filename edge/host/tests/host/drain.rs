//! The end: what runs is finished, nothing new is taken, and it does not last forever.

use crate::edge::{Edge, wait_until};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Starts a request and waits until the component has it.
fn running(edge: &Edge, target: &str) -> crate::edge::Connection {
    let connection = edge.open_get(target);
    wait_until("the request runs", || edge.metric("orfeas_wasm_instances") == 1.0);
    connection
}

#[test]
fn a_drain_finishes_what_runs_and_takes_nothing_new() {
    let mut edge = Edge::start(&[]);
    let request = running(&edge, "/sleep?ms=3000");
    assert_eq!(edge.admin("/readyz").status, 200);
    edge.terminate();
    wait_until("nothing new is taken", || TcpStream::connect(edge.public).is_err());
    assert_eq!(edge.admin("/readyz").status, 503);
    assert_eq!(edge.admin("/livez").status, 200);
    request.answer().is(200, "slept");
    assert!(edge.ended());
    assert!(!edge.log().contains("WARN"), "a clean end is no cause for warnings: {}", edge.log());
}

#[test]
fn a_drain_also_waits_for_requests_whose_clients_went_away() {
    let mut edge = Edge::start(&[]);
    let started = Instant::now();
    drop(running(&edge, "/sleep?ms=1500"));
    edge.terminate();
    assert!(edge.ended());
    assert!(started.elapsed() >= Duration::from_millis(1500), "{:?}", started.elapsed());
}

#[test]
fn a_drain_has_a_limit() {
    let mut edge = Edge::start(&["--drain-seconds=0.3"]);
    let _request = running(&edge, "/sleep?ms=20000");
    let started = Instant::now();
    edge.terminate();
    assert!(edge.ended());
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_second_signal_stops_at_once() {
    let mut edge = Edge::start(&[]);
    let _request = running(&edge, "/sleep?ms=20000");
    edge.terminate();
    wait_until("the drain has begun", || TcpStream::connect(edge.public).is_err());
    let started = Instant::now();
    edge.terminate();
    assert!(edge.ended());
    assert!(started.elapsed() < Duration::from_secs(10));
}
