//! Which jobs each tenant has, newest first: what `list` answers from. The watch of the records feeds it.
//!
//! It holds ids and states only, and of those a bounded number: beyond it the oldest jobs are forgotten, and lists
//! end there. What it says is a hint, as a record may have moved on or expired: whoever lists reads the records.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use orfeas_protocol::{JobId, JobRecord, JobStatus, TenantId};

/// Some 150 bytes each.
const JOBS_MAX: usize = 200_000;

/// The jobs of the region by tenant. Clones stand for the same index.
#[derive(Debug, Clone)]
pub(crate) struct JobIndex {
    index: Arc<Mutex<Index>>,
}

impl Default for JobIndex {
    fn default() -> Self {
        Self { index: Arc::new(Mutex::new(Index::new(JOBS_MAX))) }
    }
}

impl JobIndex {
    /// A record was written.
    pub(crate) fn note(&self, record: &JobRecord) {
        self.lock().note(record.job.id, &record.tenant, record.job.status);
    }

    /// A record is gone.
    pub(crate) fn forget(&self, id: JobId) {
        self.lock().forget(id);
    }

    /// The watch begins: what it has told before is not to be trusted until it is through.
    pub(crate) fn begin(&self) {
        let mut index = self.lock();
        *index = Index::new(index.jobs_max);
    }

    /// The watch has told of every record that was there when it began.
    pub(crate) fn complete(&self) {
        self.lock().is_complete = true;
    }

    /// Up to `count` jobs of a tenant from before `cursor`, newest first; `None` while the index is not complete.
    pub(crate) fn page(
        &self,
        tenant: &TenantId,
        status: Option<JobStatus>,
        cursor: Option<JobId>,
        count: usize,
    ) -> Option<Vec<JobId>> {
        let index = self.lock();
        index.is_complete.then(|| index.page(tenant, status, cursor, count))
    }

    /// How many jobs of the region wait for a node.
    pub(crate) fn queued(&self) -> usize {
        self.lock().queued
    }

    fn lock(&self) -> MutexGuard<'_, Index> {
        // No code that can panic runs under this lock.
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct Index {
    jobs_max: usize,
    is_complete: bool,
    queued: usize,
    owners: BTreeMap<JobId, Arc<TenantId>>,
    tenants: HashMap<Arc<TenantId>, BTreeMap<JobId, JobStatus>>,
}

impl Index {
    fn new(jobs_max: usize) -> Self {
        Self { jobs_max, is_complete: false, queued: 0, owners: BTreeMap::new(), tenants: HashMap::new() }
    }

    fn note(&mut self, id: JobId, tenant: &TenantId, status: JobStatus) {
        let known = self.tenants.get_key_value(tenant).map(|(tenant, _)| tenant.clone());
        let tenant = known.unwrap_or_else(|| Arc::new(tenant.clone()));
        let before = self.tenants.entry(tenant.clone()).or_default().insert(id, status);
        self.queued += usize::from(status == JobStatus::Queued);
        self.queued -= usize::from(before == Some(JobStatus::Queued));
        self.owners.insert(id, tenant);
        if self.owners.len() > self.jobs_max
            && let Some((oldest, _)) = self.owners.first_key_value()
        {
            self.forget(*oldest);
        }
    }

    fn forget(&mut self, id: JobId) {
        let Some(tenant) = self.owners.remove(&id) else { return };
        let Some(jobs) = self.tenants.get_mut(&tenant) else { return };
        self.queued -= usize::from(jobs.remove(&id) == Some(JobStatus::Queued));
        if jobs.is_empty() {
            self.tenants.remove(&tenant);
        }
    }

    fn page(
        &self,
        tenant: &TenantId,
        status: Option<JobStatus>,
        cursor: Option<JobId>,
        count: usize,
    ) -> Vec<JobId> {
        let Some(jobs) = self.tenants.get(tenant) else { return Vec::new() };
        let jobs = jobs.iter().rev().filter(|(id, _)| cursor.is_none_or(|cursor| **id < cursor));
        let wanted = jobs.filter(|(_, found)| status.is_none_or(|status| **found == status));
        wanted.take(count).map(|(id, _)| *id).collect()
    }
}

#[cfg(test)]
mod tests {
    use orfeas_protocol::Timestamp;
    use proptest::prelude::*;

    use super::*;

    fn id(number: u8) -> JobId {
        JobId::new(Timestamp::from_unix_ms(u64::from(number)), [number; 10])
    }

    fn tenant(number: u8) -> TenantId {
        format!("t{number}").parse().unwrap()
    }

    #[test]
    fn pages_go_from_the_newest_to_the_oldest_and_hold_one_tenants_jobs() {
        let mut index = Index::new(100);
        for number in 0..10 {
            index.note(id(number), &tenant(number % 2), JobStatus::Queued);
        }
        index.note(id(4), &tenant(0), JobStatus::Completed);
        assert_eq!(index.page(&tenant(0), None, None, 3), [id(8), id(6), id(4)]);
        assert_eq!(index.page(&tenant(0), None, Some(id(4)), 3), [id(2), id(0)]);
        assert_eq!(index.page(&tenant(0), Some(JobStatus::Completed), None, 3), [id(4)]);
        assert!(index.page(&tenant(7), None, None, 3).is_empty());
        assert_eq!(index.queued, 9);
    }

    #[test]
    fn an_index_that_is_not_complete_answers_nothing() {
        let index = JobIndex::default();
        assert_eq!(index.page(&tenant(0), None, None, 1), None);
        index.complete();
        assert_eq!(index.page(&tenant(0), None, None, 1), Some(Vec::new()));
        index.begin();
        assert_eq!(index.page(&tenant(0), None, None, 1), None);
    }

    proptest! {
        #[test]
        fn the_index_agrees_with_a_plain_list_and_keeps_its_bound(
            steps in prop::collection::vec((0u8..20, 0u8..3, 0usize..6), 0..200)
        ) {
            const BOUND: usize = 12;
            let mut index = Index::new(BOUND);
            let mut model: BTreeMap<JobId, (u8, JobStatus)> = BTreeMap::new();
            for (number, status, kind) in steps {
                // A job keeps its tenant.
                let owner = number % 3;
                if kind == 5 {
                    index.forget(id(number));
                    model.remove(&id(number));
                } else {
                    let status = JobStatus::ALL[usize::from(status)];
                    index.note(id(number), &tenant(owner), status);
                    model.insert(id(number), (owner, status));
                    while model.len() > BOUND {
                        model.pop_first();
                    }
                }
                for owner in 0..3 {
                    let expected: Vec<_> =
                        model.iter().rev().filter(|(_, (by, _))| *by == owner).map(|(id, _)| *id).collect();
                    prop_assert_eq!(index.page(&tenant(owner), None, None, 100), expected);
                }
                let queued = model.values().filter(|(_, status)| *status == JobStatus::Queued).count();
                prop_assert_eq!(index.queued, queued);
                prop_assert!(index.owners.len() <= BOUND);
            }
        }
    }
}
