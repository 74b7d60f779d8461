//! Who stands where: for each band and kind, the tenants that wait, by the device time that they have used.

use std::collections::btree_set;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use orfeas_protocol::Timestamp;

use super::accounts::{TenantKey, VirtualTime};

/// One band per priority.
pub(super) const BANDS: usize = 10;

/// A job's place in its tenant's order: since when it waits, and its arrival where that is the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Turn {
    pub(super) since: Timestamp,
    pub(super) arrival: u64,
}

/// Where a job stands, beside its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) band: usize,
    pub(super) tenant: TenantKey,
}

/// All bands.
#[derive(Debug)]
pub(super) struct Lines<K> {
    bands: [BTreeMap<K, Line>; BANDS],
}

/// The jobs of one kind in one band.
#[derive(Debug, Default)]
struct Line {
    tenants: HashMap<TenantKey, BTreeSet<Turn>>,
    /// Each tenant's first job, the least used tenant first.
    heads: BTreeMap<(VirtualTime, Turn), TenantKey>,
}

impl<K> Default for Lines<K> {
    fn default() -> Self {
        Self { bands: std::array::from_fn(|_| BTreeMap::new()) }
    }
}

impl<K: Ord + Clone> Lines<K> {
    /// A job takes its place. `used` is its tenant's virtual time.
    pub(super) fn insert(&mut self, place: Place, kind: &K, turn: Turn, used: VirtualTime) {
        let Some(band) = self.bands.get_mut(place.band) else { return };
        if !band.contains_key(kind) {
            band.insert(kind.clone(), Line::default());
        }
        let Some(line) = band.get_mut(kind) else { return };
        let turns = line.tenants.entry(place.tenant).or_default();
        let head = turns.first().copied();
        turns.insert(turn);
        if head.is_none_or(|head| turn < head) {
            if let Some(head) = head {
                line.heads.remove(&(used, head));
            }
            line.heads.insert((used, turn), place.tenant);
        }
    }

    /// A job leaves its place.
    pub(super) fn remove(&mut self, place: Place, kind: &K, turn: Turn, used: VirtualTime) {
        let Some(band) = self.bands.get_mut(place.band) else { return };
        let Some(line) = band.get_mut(kind) else { return };
        let Some(turns) = line.tenants.get_mut(&place.tenant) else { return };
        let was_head = turns.first() == Some(&turn);
        turns.remove(&turn);
        if was_head {
            line.heads.remove(&(used, turn));
            match turns.first() {
                Some(head) => {
                    line.heads.insert((used, *head), place.tenant);
                }
                None => {
                    line.tenants.remove(&place.tenant);
                }
            }
        }
        if line.heads.is_empty() {
            band.remove(kind);
        }
    }

    /// A tenant's virtual time has changed.
    pub(super) fn rekey(&mut self, tenant: TenantKey, before: VirtualTime, after: VirtualTime) {
        if before == after {
            return;
        }
        for line in self.bands.iter_mut().flat_map(BTreeMap::values_mut) {
            if let Some(&head) = line.tenants.get(&tenant).and_then(BTreeSet::first) {
                line.heads.remove(&(before, head));
                line.heads.insert((after, head), tenant);
            }
        }
    }

    /// The first job of each kind in a band, in the order in which they would start.
    pub(super) fn heads(&self, band: usize) -> Vec<(VirtualTime, Turn, &K)> {
        let lines = self.bands.get(band).into_iter().flatten();
        let first = |(kind, line): (_, &Line)| {
            line.heads.first_key_value().map(|(&(used, turn), _)| (used, turn, kind))
        };
        let mut heads: Vec<_> = lines.filter_map(first).collect();
        heads.sort_by_key(|&(used, turn, _)| (used, turn));
        heads
    }

    /// Every tenant's jobs of each kind in a band, in their order.
    pub(super) fn queues(&self, band: usize) -> impl Iterator<Item = (TenantKey, btree_set::Iter<'_, Turn>)> {
        let lines = self.bands.get(band).into_iter().flat_map(BTreeMap::values);
        lines.flat_map(|line| &line.tenants).map(|(tenant, turns)| (*tenant, turns.iter()))
    }
}
