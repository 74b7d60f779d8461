//! End-to-end tests: the real component in the real host, a real `nats-server`, the real node; HTTP and NATS
//! clients that others wrote.

mod blocklist;
mod bus;
mod component;
mod corpus;
mod faults;
mod jobs;
mod models;
mod neural;
mod problems;
mod rollout;
mod uploads;
