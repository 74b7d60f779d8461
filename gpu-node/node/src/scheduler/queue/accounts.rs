//! What each tenant has used of the device, in virtual time.
//!
//! The *virtual clock* moves with the work done: what a job has used, divided by the number of tenants that wait. It
//! is what each of them would have got if the device were shared evenly, and never goes back. A tenant's own time
//! moves by the whole cost of its jobs, by what is expected when they start, corrected when they end; the tenant
//! that is furthest behind goes first. One that comes back after a pause starts at the clock: it brings no credit
//! along, and what it owed has faded as far as the clock has moved on.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use orfeas_protocol::TenantId;

/// Tenants without waiting jobs whose debt is remembered; the smallest debts go first.
pub(super) const IDLE_MAX: usize = 10_000;

/// Device time in microseconds: 580,000 years of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct VirtualTime(u64);

impl VirtualTime {
    /// How much later this is than `earlier`; zero if it is not.
    pub(super) fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    pub(super) fn plus(self, cost: Duration) -> Self {
        Self(self.0.saturating_add(micros(cost)))
    }

    fn minus(self, cost: Duration) -> Self {
        Self(self.0.saturating_sub(micros(cost)))
    }
}

/// Names a tenant within its queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct TenantKey(u64);

#[derive(Debug)]
struct Account {
    tenant: TenantId,
    used: VirtualTime,
    waiting: usize,
}

/// The accounts of a queue.
#[derive(Debug)]
pub(super) struct Accounts {
    /// How far an account may stand from the clock when it is charged.
    distance_max: Duration,
    pub(super) clock: VirtualTime,
    keys: HashMap<TenantId, TenantKey>,
    accounts: HashMap<TenantKey, Account>,
    /// Tenants with waiting jobs.
    active: u32,
    /// Tenants without, that owe something.
    idle: BTreeSet<(VirtualTime, TenantKey)>,
    opened: u64,
}

impl Accounts {
    pub(super) fn new(distance_max: Duration) -> Self {
        Self {
            distance_max,
            clock: VirtualTime::default(),
            keys: HashMap::new(),
            accounts: HashMap::new(),
            active: 0,
            idle: BTreeSet::new(),
            opened: 0,
        }
    }

    /// A job of a tenant begins to wait.
    pub(super) fn enter(&mut self, tenant: &TenantId) -> TenantKey {
        let key = self.open(tenant);
        if let Some(account) = self.accounts.get_mut(&key) {
            if account.waiting == 0 {
                self.active += 1;
                self.idle.remove(&(account.used, key));
                account.used = account.used.max(self.clock);
            }
            account.waiting += 1;
        }
        key
    }

    /// A job of a tenant waits no longer.
    pub(super) fn leave(&mut self, key: TenantKey) {
        let Some(account) = self.accounts.get_mut(&key) else { return };
        account.waiting = account.waiting.saturating_sub(1);
        if account.waiting == 0 {
            self.active = self.active.saturating_sub(1);
            self.idle.insert((account.used, key));
            self.forget();
        }
    }

    /// What a tenant has used; to be asked while it waits.
    pub(super) fn virtual_time(&self, key: TenantKey) -> VirtualTime {
        self.accounts.get(&key).map_or(self.clock, |account| account.used)
    }

    /// A tenant's job starts: its virtual time before and after.
    pub(super) fn charge(&mut self, key: TenantKey, cost: Duration) -> (VirtualTime, VirtualTime) {
        let earliest = self.clock.minus(self.distance_max);
        let latest = self.clock.plus(self.distance_max).plus(cost);
        let Some(account) = self.accounts.get_mut(&key) else { return (self.clock, self.clock) };
        let before = account.used;
        account.used = before.max(earliest).plus(cost).min(latest);
        (before, account.used)
    }

    /// A job has ended: the clock moves on, and its tenant's charge is corrected. For a tenant that waits: its key
    /// and virtual time before and after.
    pub(super) fn settle(
        &mut self,
        tenant: &TenantId,
        charged: Duration,
        used: Duration,
    ) -> Option<(TenantKey, VirtualTime, VirtualTime)> {
        self.clock = self.clock.plus(used / self.active.max(1));
        let (more, less) = (used.saturating_sub(charged), charged.saturating_sub(used));
        if more.is_zero() && !self.keys.contains_key(tenant) {
            return None;
        }
        let key = self.open(tenant);
        let account = self.accounts.get_mut(&key)?;
        let before = account.used;
        if account.waiting > 0 {
            account.used = before.plus(more).minus(less);
            return Some((key, before, account.used));
        }
        account.used = before.max(self.clock).plus(more).minus(less);
        let after = account.used;
        self.idle.remove(&(before, key));
        self.idle.insert((after, key));
        self.forget();
        None
    }

    /// The account of a tenant, at the clock if it is new.
    fn open(&mut self, tenant: &TenantId) -> TenantKey {
        if let Some(key) = self.keys.get(tenant) {
            return *key;
        }
        let key = TenantKey(self.opened);
        self.opened += 1;
        self.keys.insert(tenant.clone(), key);
        self.accounts.insert(key, Account { tenant: tenant.clone(), used: self.clock, waiting: 0 });
        key
    }

    /// Closes accounts that owe nothing any more, and the smallest debts beyond the bound.
    fn forget(&mut self) {
        while let Some(&(used, key)) = self.idle.first()
            && (used <= self.clock || self.idle.len() > IDLE_MAX)
        {
            self.idle.pop_first();
            if let Some(account) = self.accounts.remove(&key) {
                self.keys.remove(&account.tenant);
            }
        }
    }
}

fn micros(cost: Duration) -> u64 {
    u64::try_from(cost.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> TenantId {
        name.parse().unwrap()
    }

    const SECOND: Duration = Duration::from_secs(1);

    fn run(accounts: &mut Accounts, key: TenantKey, name: &str, cost: Duration) {
        accounts.charge(key, cost);
        accounts.settle(&tenant(name), cost, cost);
    }

    #[test]
    fn who_comes_back_after_a_pause_has_no_credit_and_an_old_debt_has_faded() {
        let mut accounts = Accounts::new(SECOND * 600);
        let (a, b) = (accounts.enter(&tenant("a")), accounts.enter(&tenant("b")));
        for _ in 0..4 {
            run(&mut accounts, a, "a", SECOND);
        }
        assert_eq!(
            accounts.virtual_time(a).since(accounts.clock),
            SECOND * 2,
            "four used, two were its share"
        );
        accounts.leave(a);
        for _ in 0..3 {
            run(&mut accounts, b, "b", SECOND);
        }
        let a = accounts.enter(&tenant("a"));
        assert_eq!(accounts.virtual_time(a), accounts.clock);
    }

    #[test]
    fn accounts_that_owe_nothing_are_closed_and_the_others_are_bounded() {
        let mut accounts = Accounts::new(SECOND * 600);
        accounts.enter(&tenant("waits"));
        let alone = accounts.enter(&tenant("alone"));
        accounts.leave(alone);
        assert_eq!(accounts.accounts.len(), 1, "it owes nothing");
        for n in 0..2 * IDLE_MAX {
            let key = accounts.enter(&tenant(&format!("t{n}")));
            accounts.charge(key, SECOND);
            accounts.leave(key);
        }
        assert_eq!(accounts.accounts.len(), IDLE_MAX + 1);
        assert_eq!(accounts.keys.len(), IDLE_MAX + 1);
    }

    #[test]
    fn a_charge_is_corrected_by_what_was_used() {
        let mut accounts = Accounts::new(SECOND * 600);
        let a = accounts.enter(&tenant("a"));
        accounts.enter(&tenant("b"));
        accounts.charge(a, SECOND * 10);
        accounts.settle(&tenant("a"), SECOND * 10, SECOND * 4);
        assert_eq!(accounts.virtual_time(a).since(accounts.clock), SECOND * 2);
        accounts.charge(a, SECOND * 2);
        accounts.settle(&tenant("a"), SECOND * 2, SECOND * 4);
        assert_eq!(accounts.virtual_time(a).since(accounts.clock), SECOND * 4);
    }
}
