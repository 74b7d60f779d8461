//! Project commands: setup, up, demo, test, bench, lint.
fn main() {}
