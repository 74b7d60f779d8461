//! What a component cannot reach.

use crate::edge::{Edge, Setup, wait_until};
use std::net::TcpListener;

#[test]
fn only_allowed_addresses_can_be_connected_to() {
    // Both listen, so that only the host can refuse.
    let (allowed, other) =
        (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let port = allowed.local_addr().unwrap().port();
    let edge = Edge::with(&Setup {
        component: &format!("allowed_outbound_hosts = ['tcp://127.0.0.0/8:{port}']"),
        ..Setup::default()
    });
    let connect = |to: &TcpListener| edge.get(&format!("/connect?to={}", to.local_addr().unwrap())).body;
    assert_eq!(connect(&allowed), "connected");
    assert!(connect(&other).contains("AccessDenied"), "{}", connect(&other));
}

#[test]
fn files_outside_of_the_mounts_cannot_be_read() {
    let edge = Edge::with(&Setup {
        component: "files = [{ source = 'www', destination = '/www' }]",
        ..Setup::default()
    });
    let secret = edge.folder.path().join("secret.txt");
    std::os::unix::fs::symlink(&secret, edge.folder.path().join("www/link.txt")).unwrap();
    for path in ["/www/../secret.txt", "/www/link.txt", "/etc/passwd", secret.to_str().unwrap()] {
        let answer = edge.get(&format!("/file?path={path}"));
        assert!(answer.body.starts_with("error: "), "{path}: {answer:?}");
    }
}

#[test]
fn what_a_component_prints_goes_to_the_log() {
    let edge = Edge::start(&[]);
    edge.get("/print").is(200, "printed");
    wait_until("the line is logged", || edge.log().contains("a line from the guest"));
}
