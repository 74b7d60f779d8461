//! Outcomes into the history bucket and out of it again.
//!
//! A tenant has [`SLOTS`] keys, and a job's id says which is its own: a newer outcome replaces an older one there.
//! So a tenant's past is bounded whatever it does, thins out with age instead of ending at an edge, needs no counter
//! that nodes would have to share, and a job that two nodes end is there once. Age, and the bucket's bound of all
//! tenants together, take the rest (`provision`).

use std::time::Duration;

use async_nats::jetstream::kv::{self, Operation};
use futures::StreamExt;
use futures::future::join_all;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

use super::{History, Models, Outcome};

/// Outcomes that a tenant is remembered by.
const SLOTS: u64 = 512;
/// Outcomes that wait to be written. More than these are dropped: learning is worth no one's wait.
const WAITING_MAX: usize = 1_024;
/// Outcomes that are written at one time.
const WRITES_MAX: usize = 32;
/// One write. One that takes longer is given up.
const WRITE_LIMIT: Duration = Duration::from_secs(5);
/// Waits between two watches.
const WATCH_AGAIN: Duration = Duration::from_secs(1);

/// The key of an outcome.
fn key(outcome: &Outcome) -> String {
    let id = outcome.job.to_string();
    // The last digits of a UUIDv7 are random.
    let digits = id.get(id.len().saturating_sub(8)..).unwrap_or_default();
    let slot = u64::from_str_radix(digits, 16).unwrap_or_default() % SLOTS;
    format!("{}.{slot}", outcome.tenant)
}

enum Command {
    Write(Box<Outcome>),
    Flush(oneshot::Sender<()>),
}

/// Writes outcomes behind the back of whoever has them.
#[derive(Debug, Clone)]
pub(crate) struct Recorder {
    commands: mpsc::Sender<Command>,
}

impl Recorder {
    /// A recorder, and the task that writes; the task ends when all clones of the recorder are gone.
    pub(crate) fn new(bucket: kv::Store) -> (Self, impl Future<Output = ()>) {
        let (commands, inbox) = mpsc::channel(WAITING_MAX);
        (Self { commands }, write(inbox, bucket))
    }

    /// Takes an outcome. Never waits; `false` = too many wait to be written, and this one is dropped.
    pub(crate) fn note(&self, outcome: Outcome) -> bool {
        self.commands.try_send(Command::Write(Box::new(outcome))).is_ok()
    }

    /// Waits until what was noted before is written, for at most `limit`.
    pub(crate) async fn flush(&self, limit: Duration) {
        let (done, written) = oneshot::channel();
        let flushed = timeout(limit, async {
            if self.commands.send(Command::Flush(done)).await.is_ok() {
                let _ = written.await;
            }
        });
        if flushed.await.is_err() {
            tracing::debug!("outcomes not written in time");
        }
    }
}

async fn write(mut inbox: mpsc::Receiver<Command>, bucket: kv::Store) {
    let mut commands = Vec::new();
    while inbox.recv_many(&mut commands, WRITES_MAX).await > 0 {
        let (mut writes, mut flushes) = (Vec::new(), Vec::new());
        for command in commands.drain(..) {
            match command {
                Command::Write(outcome) => writes.push(write_one(&bucket, *outcome)),
                Command::Flush(done) => flushes.push(done),
            }
        }
        join_all(writes).await;
        for done in flushes {
            let _ = done.send(());
        }
    }
}

async fn write_one(bucket: &kv::Store, outcome: Outcome) {
    let Ok(value) = serde_json::to_vec(&outcome) else { return };
    match timeout(WRITE_LIMIT, bucket.put(key(&outcome), value.into())).await {
        Ok(Ok(_revision)) => {}
        Ok(Err(error)) => tracing::debug!(job = %outcome.job, %error, "outcome not written"),
        Err(_elapsed) => tracing::debug!(job = %outcome.job, "outcome not written in time"),
    }
}

/// Learns from all outcomes of the region until the future is dropped. A watch that breaks begins again with an
/// empty mind, so that nothing is learned twice; until it has caught up, the old models answer.
pub(crate) async fn follow(history: History, bucket: kv::Store) {
    loop {
        match bucket.watch_with_history(">").await {
            Ok(entries) => learn(&history, entries).await,
            Err(error) => tracing::warn!(%error, "history cannot be followed"),
        }
        sleep(WATCH_AGAIN).await;
    }
}

async fn learn(history: &History, mut entries: kv::Watch) {
    let mut past = Some(Models::default());
    while let Some(entry) = entries.next().await {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                tracing::warn!(%error, "history not followed");
                return;
            }
        };
        let outcome = (entry.operation == Operation::Put)
            .then(|| serde_json::from_slice::<Outcome>(&entry.value))
            .and_then(|outcome| {
                outcome.inspect_err(|error| tracing::debug!(%error, "outcome not read")).ok()
            });
        match (&mut past, outcome) {
            (Some(models), Some(outcome)) => models.learn(&outcome),
            (None, Some(outcome)) => history.learn(&outcome),
            (_, None) => {}
        }
        if entry.delta == 0
            && let Some(models) = past.take()
        {
            history.replace(models);
        }
    }
}

#[cfg(test)]
mod tests {
    use orfeas_protocol::{JobId, Timestamp};

    use super::super::tests::outcome;
    use super::*;

    #[test]
    fn a_jobs_key_is_one_of_its_tenants_and_always_the_same() {
        let mut keys = std::collections::HashSet::new();
        for n in 0..20_000_u64 {
            let mut random = [3; 10];
            random[2..].copy_from_slice(&(n.wrapping_mul(0x9E37_79B9_7F4A_7C15)).to_be_bytes());
            let outcome = Outcome { job: JobId::new(Timestamp::from_unix_ms(n), random), ..outcome() };
            assert_eq!(key(&outcome), key(&outcome.clone()));
            keys.insert(key(&outcome));
        }
        assert_eq!(keys.len() as u64, SLOTS);
        assert!(keys.iter().all(|key| key.starts_with("a.")));
    }
}
