//! End-to-end tests: the real component in the real host, a real `nats-server`, the real node; HTTP and NATS
//! clients that others wrote.

mod blocklist;
mod bus;
mod component;
mod convert;
mod corpus;
mod faults;
mod jobs;
mod keys;
mod labels;
mod metrics;
mod miniature;
mod models;
mod neural;
mod problems;
mod region;
mod rollout;
mod traces;
mod uploads;
mod views;
