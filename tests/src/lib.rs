//! End-to-end, contract and fault tests with real processes.
