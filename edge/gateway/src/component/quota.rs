//! The tenant's use of its limits, on the bus. Callers whose key has no limits cost nothing here.

use bytes::Bytes;
use orfeas_edge_nats::Error as BusError;
use orfeas_edge_nats::jetstream::kv;
use orfeas_protocol::{JobId, KeyLimits, Timestamp};

use super::clock;
use super::edge::{Bus, Edge, soon};
use super::jobs;
use crate::auth::Caller;
use crate::failure::Failure;
use crate::quota::{Excess, UNRECORDED_MAX, Usage};

/// Requests of one tenant that meet at its value more often than this are not a client's but an attacker's.
const CAS_TRIES_MAX: u32 = 32;

/// Refuses a request that is over its tenant's limits before its body is read. Nothing is counted.
///
/// # Errors
/// It is over (429); the bus is away.
pub(super) async fn look(edge: &Edge, bus: &mut Bus, caller: &Caller, job: JobId) -> Result<(), Failure> {
    if caller.limits == KeyLimits::default() {
        return Ok(());
    }
    let (_, mut usage) = load(edge, bus, caller).await?;
    match usage.check(caller.limits, clock::now(), Some(job)) {
        Err(Excess::Jobs { .. }) => {
            forget_ended(edge, bus, &mut usage, clock::now()).await?;
            Ok(usage.check(caller.limits, clock::now(), Some(job))?)
        }
        checked => Ok(checked?),
    }
}

/// Counts a request, and the job that it makes.
///
/// # Errors
/// The tenant is over its limits (429); the bus is away.
pub(super) async fn take(
    edge: &Edge,
    bus: &mut Bus,
    caller: &Caller,
    job: Option<JobId>,
) -> Result<(), Failure> {
    if caller.limits == KeyLimits::default() {
        return Ok(());
    }
    let bucket = edge.settings.region.names().tenants_bucket();
    for _ in 0..CAS_TRIES_MAX {
        let (expected, mut usage) = load(edge, bus, caller).await?;
        let mut taken = usage.take(caller.limits, clock::now(), job);
        if matches!(taken, Err(Excess::Jobs { .. })) {
            forget_ended(edge, bus, &mut usage, clock::now()).await?;
            taken = usage.take(caller.limits, clock::now(), job);
        }
        taken?;
        let value = Some(Bytes::from(usage.to_json()));
        let put = kv::Put { bucket: &bucket, key: caller.tenant.as_str(), expected, value };
        match bus.call(&put, soon()).await {
            Ok(_) => return Ok(()),
            Err(BusError::Conflict) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Failure::from(Excess::Jobs { limit: caller.limits.jobs.map_or(0, std::num::NonZeroU32::get) }))
}

async fn load(edge: &Edge, bus: &mut Bus, caller: &Caller) -> Result<(kv::Expected, Usage), Failure> {
    let bucket = edge.settings.region.names().tenants_bucket();
    let entry = bus.call(&kv::Get { bucket: &bucket, key: caller.tenant.as_str() }, soon()).await?;
    Ok(match entry {
        Some(kv::Entry { revision, value }) => {
            (kv::Expected::Revision(revision), Usage::read(value.as_deref()))
        }
        None => (kv::Expected::Nothing, Usage::default()),
    })
}

/// Looks at the records of the jobs that are counted, all in one round trip, and forgets those that have ended.
async fn forget_ended(edge: &Edge, bus: &mut Bus, usage: &mut Usage, now: Timestamp) -> Result<(), Failure> {
    let mut asked = Vec::new();
    for &id in usage.open() {
        asked.push((id, jobs::start_load(bus, &edge.settings.region, id)?));
    }
    let mut ended = Vec::new();
    for (id, pending) in asked {
        let is_open = match jobs::read(bus.finish(pending, soon()).await?)? {
            Some(stored) => !stored.record.job.status.is_terminal(),
            // On its way, or its submission failed after it was counted.
            None => now.since(id.created_at()) < UNRECORDED_MAX,
        };
        if !is_open {
            ended.push(id);
        }
    }
    usage.retain(|id| !ended.contains(&id));
    Ok(())
}
