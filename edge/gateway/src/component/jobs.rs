//! Job records on the bus: reading them, moving them, and waiting for them to change.

use std::time::{Duration, Instant};

use bytes::Bytes;
use orfeas_edge_nats::jetstream::kv;
use orfeas_edge_nats::{Error as BusError, Headers, Pending, Subscription};
use orfeas_protocol::job::CancelOutcome;
use orfeas_protocol::{Code, JobId, JobRecord, Region};

use super::clock;
use super::edge::{Bus, soon};
use crate::failure::Failure;

/// Events are hints: an edge that missed one looks again after this long.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// A job's writers are its node and those who cancel it; meeting one of them more often than this is a defect.
const CAS_TRIES_MAX: u32 = 16;

/// A record as it is stored.
#[derive(Debug, Clone)]
pub(super) struct StoredJob {
    /// Grows with each change.
    pub(super) revision: u64,
    pub(super) record: JobRecord,
}

/// Asks for a record.
pub(super) fn start_load(
    bus: &mut Bus,
    region: &Region,
    id: JobId,
) -> Result<Pending<Option<kv::Entry>>, BusError> {
    bus.start(&kv::Get { bucket: &region.names().jobs_bucket(), key: &id.to_string() })
}

/// Reads the answer; `None` if there is no such job.
///
/// # Errors
/// The record is not readable.
pub(super) fn read(entry: Option<kv::Entry>) -> Result<Option<StoredJob>, Failure> {
    let Some(kv::Entry { revision, value: Some(value) }) = entry else { return Ok(None) };
    let record = serde_json::from_slice(&value)
        .map_err(|error| Failure::internal(format!("job record is not readable: {error}")))?;
    Ok(Some(StoredJob { revision, record }))
}

/// Reads a record; `None` if there is no such job.
///
/// # Errors
/// The record is not readable, or the bus is away.
pub(super) async fn load(bus: &mut Bus, region: &Region, id: JobId) -> Result<Option<StoredJob>, Failure> {
    let pending = start_load(bus, region, id)?;
    read(bus.finish(pending, soon()).await?)
}

/// Asks to store a record in place of the one that is expected.
pub(super) fn start_store(
    bus: &mut Bus,
    record: &JobRecord,
    expected: kv::Expected,
) -> Result<Pending<u64>, Failure> {
    let value = serde_json::to_vec(record)
        .map_err(|error| Failure::internal(format!("job record cannot be written: {error}")))?;
    let (bucket, key) = (record.job.region.names().jobs_bucket(), record.job.id.to_string());
    let put = kv::Put { bucket: &bucket, key: &key, expected, value: Some(Bytes::from(value)) };
    Ok(bus.start(&put)?)
}

/// Tells whoever watches; it goes out with the next write. Nobody waits for it: watchers look at the record
/// from time to time.
pub(super) fn announce(bus: &mut Bus, record: &JobRecord) -> Result<(), Failure> {
    let json = serde_json::to_vec(&record.job)
        .map_err(|error| Failure::internal(format!("job object cannot be written: {error}")))?;
    let subject = record.job.region.names().events(record.job.id);
    Ok(bus.publish(&subject, &Headers::new(), &json)?)
}

/// Cancels a job: one that is queued ends, one that runs is asked to. Another writer's change is looked at anew.
///
/// # Errors
/// The job has ended (409); the bus is away.
pub(super) async fn cancel(bus: &mut Bus, mut stored: StoredJob) -> Result<JobRecord, Failure> {
    for _ in 0..CAS_TRIES_MAX {
        let StoredJob { revision, mut record } = stored;
        let id = record.job.id;
        let was_asked = record.is_cancel_requested();
        let outcome = record.request_cancel(clock::now()).map_err(|error| {
            Failure::from(orfeas_protocol::Problem::new(Code::JobAlreadyEnded, error.to_string()))
        })?;
        if was_asked && outcome == CancelOutcome::Requested {
            return Ok(record);
        }
        let pending = start_store(bus, &record, kv::Expected::Revision(revision))?;
        match bus.finish(pending, soon()).await {
            Ok(_) => {
                announce(bus, &record)?;
                bus.flush(soon()).await?;
                return Ok(record);
            }
            Err(BusError::Conflict) => {}
            Err(error) => return Err(error.into()),
        }
        stored = load(bus, &record.job.region, id).await?.ok_or_else(Failure::no_such_job)?;
    }
    Err(Failure::internal("a job changes faster than it can be cancelled"))
}

/// Waits for changes of one job: by its events, and by a look at the record each second.
pub(super) struct JobWatch {
    id: JobId,
    region: Region,
    events: Subscription,
}

impl JobWatch {
    /// Begins to watch; the subscription goes out with the next write.
    pub(super) fn start(bus: &mut Bus, region: &Region, id: JobId) -> Result<Self, Failure> {
        let events = bus.subscribe(&region.names().events(id))?;
        Ok(Self { id, region: region.clone(), events })
    }

    /// Waits for an event, for as long as a second, and reads the record.
    ///
    /// # Errors
    /// The job is gone, or the bus is away.
    pub(super) async fn look(&self, bus: &mut Bus, deadline: Instant) -> Result<StoredJob, Failure> {
        let until = deadline.min(Instant::now() + LOOK_INTERVAL);
        // Several events tell of one record.
        if bus.event(self.events, until).await?.is_some() {
            while bus.event(self.events, Instant::now()).await?.is_some() {}
        }
        load(bus, &self.region, self.id).await?.ok_or_else(Failure::no_such_job)
    }

    /// Ends the watch.
    pub(super) fn stop(self, bus: &mut Bus) {
        bus.unsubscribe(self.events);
    }
}
