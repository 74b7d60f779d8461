//! The order in which the jobs that wait here now would start: for choosing whose pictures and models are brought here,
//! and what another node may have. What callers are told of their place is the whole region's (`service/line`).

use std::cmp::Reverse;
use std::collections::btree_set;
use std::collections::{BinaryHeap, HashMap};

use orfeas_protocol::JobId;

use super::JobQueue;
use super::accounts::{TenantKey, VirtualTime};
use super::lines::{BANDS, Turn};

impl<K: Ord + Clone> JobQueue<K> {
    /// The first `limit` jobs in the order in which they would start if nothing came, nothing aged and everything
    /// fitted. O((tenants + limit) log n).
    pub fn order(&self, limit: usize) -> Vec<JobId> {
        let mut ids = Vec::new();
        self.walk(|id| {
            ids.push(id);
            ids.len() < limit
        });
        ids
    }

    /// Shows the jobs in order until `go_on` says no.
    fn walk(&self, mut go_on: impl FnMut(JobId) -> bool) {
        let mut used: HashMap<TenantKey, VirtualTime> = HashMap::new();
        for band in (0..BANDS).rev() {
            let mut queues: Vec<(TenantKey, btree_set::Iter<'_, Turn>)> = self.lines.queues(band).collect();
            let mut heads = BinaryHeap::new();
            for (at, (tenant, turns)) in queues.iter_mut().enumerate() {
                let used = *used.entry(*tenant).or_insert_with(|| self.accounts.virtual_time(*tenant));
                heads.extend(turns.next().map(|turn| Reverse((used, *turn, at))));
            }
            while let Some(Reverse((used_then, turn, at))) = heads.pop() {
                let Some((tenant, turns)) = queues.get_mut(at) else { continue };
                let Some(used) = used.get_mut(tenant) else { continue };
                // Another job of the tenant, of another kind, has gone in the meantime.
                if *used != used_then {
                    heads.push(Reverse((*used, turn, at)));
                    continue;
                }
                let Some(waiting) = self.jobs.get(&turn) else { continue };
                if !go_on(waiting.job.id) {
                    return;
                }
                *used = used.plus(waiting.job.expected);
                heads.extend(turns.next().map(|turn| Reverse((*used, *turn, at))));
            }
        }
    }
}
