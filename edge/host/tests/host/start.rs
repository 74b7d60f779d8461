//! What keeps the host from starting, and what it starts from.

use crate::edge::{Edge, Setup, fails_to_start};

#[track_caller]
fn check(setup: &Setup<'_>, expected: &str) {
    let said = fails_to_start(setup);
    assert!(said.contains(expected), "{expected:?} in {said}");
}

#[test]
fn a_missing_required_variable_stops_the_start() {
    let tables = "[variables.nats_address]\nrequired = true";
    check(&Setup { tables, ..Setup::default() }, "required variable(s) nats_address");
    let edge =
        Edge::with(&Setup { tables, flags: &["--variable=nats_address=127.0.0.1:1"], ..Setup::default() });
    edge.get("/hello").is(200, "hello");
}

#[test]
fn what_is_not_supported_stops_the_start() {
    check(&Setup { component: "key_value_stores = ['default']", ..Setup::default() }, "key_value_stores");
    check(&Setup { flags: &["--variable=typo=1"], ..Setup::default() }, "\"typo\" is not declared");
    check(
        &Setup { flags: &["--component=none.wasm"], ..Setup::default() },
        "cannot read component none.wasm",
    );
    check(&Setup { flags: &["--component=spin.toml"], ..Setup::default() }, "cannot compile component");
    check(&Setup { flags: &["--instances=0"], ..Setup::default() }, "--instances");
}

#[test]
fn without_keys_only_loopback_is_served() {
    check(&Setup { flags: &["--listen=0.0.0.0:0"], ..Setup::default() }, "refusing to listen on 0.0.0.0:0");
    let edge = Edge::start(&["--listen=0.0.0.0:0", "--variable=auth=required"]);
    assert!(edge.public.ip().is_unspecified());
    let edge = Edge::start(&[]);
    assert!(edge.log().contains("answering on loopback only"), "{}", edge.log());
}

#[test]
fn a_damaged_cache_is_compiled_again() {
    let cache = tempfile::tempdir().unwrap();
    let flag = format!("--cache-dir={}", cache.path().join("code").display());
    let compiled = |edge: &Edge| edge.log().contains("compiled component");
    let entry = || std::fs::read_dir(cache.path().join("code")).unwrap().next().unwrap().unwrap().path();

    assert!(compiled(&Edge::start(&[&flag])), "the first start compiles");
    let sound = std::fs::read(entry()).unwrap();
    assert!(!compiled(&Edge::start(&[&flag])), "the second does not");

    let mut damaged = sound.clone();
    damaged[sound.len() / 2] ^= 0xff;
    std::fs::write(entry(), damaged).unwrap();
    let edge = Edge::start(&[&flag]);
    assert!(edge.log().contains("recompiling"), "{}", edge.log());
    edge.get("/hello").is(200, "hello");
    assert_eq!(std::fs::read(entry()).unwrap(), sound);
}
