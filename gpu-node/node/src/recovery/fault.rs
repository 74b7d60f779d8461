//! Faults that only a new process heals, and the node's way of telling them.
//!
//! A node with a fault takes no more work, gives its jobs back, says so in its log, its readiness and its heartbeat,
//! and exits with the fault's code, so that its supervisor starts another.

use std::sync::Arc;

use tokio::sync::watch;

/// Why the process has to be replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The device's context refuses all work, such as after an illegal memory access.
    DeviceLost,
    /// The inference thread has ended.
    InferenceStopped,
    /// The inference thread shows no sign of life in the middle of a job.
    InferenceStuck,
}

impl Fault {
    /// Every fault.
    pub const ALL: [Fault; 3] = [Fault::DeviceLost, Fault::InferenceStopped, Fault::InferenceStuck];

    /// The process's exit code. Supervisors restart on any code but 0; these tell an operator why.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::DeviceLost => 81,
            Self::InferenceStopped => 82,
            Self::InferenceStuck => 83,
        }
    }

    /// The node's state in heartbeats.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DeviceLost => "device_lost",
            Self::InferenceStopped => "inference_stopped",
            Self::InferenceStuck => "inference_stuck",
        }
    }

    /// What keeps the node from taking work, for people.
    pub const fn obstacle(self) -> &'static str {
        match self {
            Self::DeviceLost => "the device's context is lost; the process is about to be replaced",
            Self::InferenceStopped => "the inference thread has ended; the process is about to be replaced",
            Self::InferenceStuck => "the inference thread is stuck; the process is about to be replaced",
        }
    }
}

/// The node's health. Clones stand for the same node.
#[derive(Debug, Clone)]
pub struct Health(Arc<watch::Sender<Option<Fault>>>);

impl Default for Health {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }
}

impl Health {
    /// Notes a fault. The first one stays: what comes after it is its consequence.
    pub fn fail(&self, fault: Fault) {
        let first = self.0.send_if_modified(|noted| {
            let first = noted.is_none();
            noted.get_or_insert(fault);
            first
        });
        if first {
            tracing::error!(
                fault = fault.as_str(),
                exit_code = fault.exit_code(),
                "{}: jobs go back into the queue",
                fault.obstacle()
            );
        }
    }

    /// The fault, if there is one.
    pub fn fault(&self) -> Option<Fault> {
        *self.0.borrow()
    }

    /// Waits for a fault.
    pub async fn failed(&self) -> Fault {
        let mut noted = self.0.subscribe();
        match noted.wait_for(Option::is_some).await.map(|fault| *fault) {
            Ok(Some(fault)) => fault,
            // `self` holds the sender, so the channel stays open.
            _ => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_distinct_and_no_other_programs() {
        let codes = Fault::ALL.map(Fault::exit_code);
        // 1 is an error at start, 2 a wrong command line, 64 to 78 are sysexits', 128 and above are signals'.
        assert!(codes.iter().all(|code| (79..126).contains(code)), "{codes:?}");
        assert!(codes.windows(2).all(|pair| pair[0] != pair[1]));
    }

    #[tokio::test]
    async fn the_first_fault_stays() {
        let health = Health::default();
        assert_eq!(health.fault(), None);
        health.fail(Fault::DeviceLost);
        health.fail(Fault::InferenceStopped);
        assert_eq!(health.failed().await, Fault::DeviceLost);
    }
}
