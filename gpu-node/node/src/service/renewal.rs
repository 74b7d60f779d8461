//! Pictures and records of jobs that wait for long: stored afresh before their stores let them go by age.
//!
//! A store removes what is older than its retention, and does not know that a job still needs it. So each node looks
//! at the jobs that have waited for a while: a picture or a record that has spent half of its time is written once
//! more. Several nodes may do so at once; the compare-and-set of both stores makes that one write, or two equal ones.

use std::collections::HashMap;
use std::time::Duration;

use orfeas_protocol::picture::metadata;
use orfeas_protocol::{JobId, Sha256Digest, Timestamp};

use super::entropy::now;
use super::job::Refusal;
use super::node::NodeContext;
use super::objects::ObjectError;
use super::picture::PictureError;
use super::records::{ChangeError, Stored};
use super::watcher::OpenJobs;

/// Most jobs have ended by then, and cost nothing here.
const LOOK_AFTER: Duration = Duration::from_secs(10);
/// Jobs looked at in one round: a round is a few times this many round trips.
const LOOKS_MAX: usize = 200;
/// A round is not held up by one record for longer.
const CHANGE_LIMIT: Duration = Duration::from_secs(5);

/// When to look at which job again.
#[derive(Debug, Default)]
pub(crate) struct Renewals {
    next_look: HashMap<JobId, Timestamp>,
}

impl Renewals {
    /// The jobs to look at now, those that are longest due first. `waiting` are the jobs that have waited for
    /// [`LOOK_AFTER`] or longer; what is not among them any more is forgotten.
    fn due(&mut self, waiting: &[JobId], now: Timestamp) -> Vec<JobId> {
        let waiting: std::collections::HashSet<_> = waiting.iter().copied().collect();
        self.next_look.retain(|id, _| waiting.contains(id));
        let mut due: Vec<_> = waiting
            .into_iter()
            .map(|id| (self.next_look.get(&id).copied().unwrap_or(Timestamp::from_unix_ms(0)), id))
            .filter(|(at, _)| *at <= now)
            .collect();
        due.sort_unstable();
        due.truncate(LOOKS_MAX);
        due.into_iter().map(|(_, id)| id).collect()
    }

    fn look_again(&mut self, id: JobId, at: Timestamp) {
        self.next_look.insert(id, at);
    }
}

/// When something that was stored at `stored_at` has spent half of its time; `None` if it is kept for ever.
fn half_time(stored_at: Timestamp, kept: Duration) -> Option<Timestamp> {
    let half_ms = u64::try_from(kept.as_millis() / 2).unwrap_or(u64::MAX);
    (!kept.is_zero()).then(|| Timestamp::from_unix_ms(stored_at.unix_ms().saturating_add(half_ms)))
}

/// One round.
///
/// # Errors
/// NATS does not answer; what is left over is due in the next round.
pub(crate) async fn renew(
    node: &NodeContext,
    open: &OpenJobs,
    renewals: &mut Renewals,
) -> Result<(), async_nats::Error> {
    for id in renewals.due(&open.older_than(LOOK_AFTER, now()), now()) {
        match node.records.load(id).await? {
            None => open.forget(id),
            Some(stored) if stored.record.job.status.is_terminal() => open.forget(id),
            Some(stored) => {
                let pictures = renew_pictures(node, &stored).await?;
                let record = renew_record(node, id, stored).await?;
                let never = Timestamp::from_unix_ms(u64::MAX);
                renewals.look_again(id, pictures.into_iter().chain(record).min().unwrap_or(never));
            }
        }
    }
    Ok(())
}

/// Stores a job's pictures afresh if they have spent half of their time; gives the time to look again.
async fn renew_pictures(node: &NodeContext, stored: &Stored) -> Result<Option<Timestamp>, async_nats::Error> {
    let record = &stored.record;
    let front = renew_picture(node, record.job.id, record.job.input.sha256).await?;
    let mut earliest = front;
    for (_, digest) in record.options.views() {
        let due = renew_picture(node, record.job.id, digest).await?;
        earliest = earliest.into_iter().chain(due).min();
    }
    Ok(earliest)
}

async fn renew_picture(
    node: &NodeContext,
    id: JobId,
    digest: Sha256Digest,
) -> Result<Option<Timestamp>, async_nats::Error> {
    let uploads = &node.bus.uploads;
    let name = digest.to_string();
    // Gone, or retracted: the job finds that out itself.
    let Some(info) = uploads.describe(&name).await? else { return Ok(None) };
    let kept = uploads.kept_for();
    // A picture of unknown age may be as old as can be.
    let due = half_time(info.mtime.unwrap_or(Timestamp::from_unix_ms(0)), kept);
    if due.is_none_or(|due| due > now()) {
        return Ok(due);
    }
    let version = uploads.version(&name).await?;
    let picture = match node.pictures.fetch(digest).await {
        Ok(picture) => picture,
        Err(PictureError::Unavailable(error)) => return Err(error),
        // Refused, as the job will be that asks for it.
        Err(_) => return Ok(None),
    };
    let mut known = info.metadata;
    known.extend(metadata(&picture.input));
    match uploads.put_known(&name, &picture.bytes, known, &version).await {
        Ok(()) => tracing::info!(job = %id, "picture of a waiting job stored afresh"),
        // Another node, or a caller with the same picture, was faster.
        Err(ObjectError::Superseded) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(half_time(now(), kept))
}

/// Writes a job's record once more, unchanged, if it has spent half of its time; gives the time to look again.
async fn renew_record(
    node: &NodeContext,
    id: JobId,
    mut stored: Stored,
) -> Result<Option<Timestamp>, async_nats::Error> {
    let kept = node.records.kept_for();
    let due = half_time(stored.written_at, kept);
    if due.is_none_or(|due| due > now()) {
        return Ok(due);
    }
    let written = node.records.change(&mut stored, CHANGE_LIMIT, |record| {
        let status = record.job.status;
        if status.is_terminal() { Err(Refusal::Ended(status)) } else { Ok(()) }
    });
    match written.await {
        Ok(()) => tracing::info!(job = %id, "record of a waiting job written afresh"),
        Err(ChangeError::Refused(_)) => return Ok(None),
        Err(ChangeError::Record(error)) => return Err(error.into()),
    }
    Ok(half_time(now(), kept))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(seconds: u64) -> Timestamp {
        Timestamp::from_unix_ms(seconds * 1_000)
    }

    fn job(number: u8) -> JobId {
        JobId::new(time(1), [number; 10])
    }

    #[test]
    fn each_waiting_job_is_looked_at_once_and_again_at_its_time() {
        let mut renewals = Renewals::default();
        let waiting = [job(1), job(2)];
        assert_eq!(renewals.due(&waiting, time(100)).len(), 2);
        renewals.look_again(job(1), time(500));
        renewals.look_again(job(2), time(300));
        assert!(renewals.due(&waiting, time(200)).is_empty());
        assert_eq!(renewals.due(&waiting, time(400)), [job(2)]);
        assert_eq!(renewals.due(&waiting, time(600)), [job(2), job(1)], "the longest due first");
        assert!(
            renewals.due(&[job(2)], time(700)).len() == 1 && renewals.next_look.len() == 1,
            "ended ones go"
        );
    }

    #[test]
    fn half_of_the_retention_is_left_when_something_is_renewed() {
        assert_eq!(half_time(time(100), Duration::from_secs(600)), Some(time(400)));
        assert_eq!(half_time(time(100), Duration::ZERO), None, "kept for ever");
    }
}
