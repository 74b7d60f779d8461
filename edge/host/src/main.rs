//! The edge host: hyper and wasmtime.
fn main() {}
