//! A NATS client for WASI 0.3 components.
