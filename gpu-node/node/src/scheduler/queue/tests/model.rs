//! The same decisions by looking at every job, each time.

use std::cmp::Reverse;
use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

struct Entry {
    job: Queued<u8>,
    turn: (Timestamp, u64),
    passed_over: u32,
}

struct Model {
    policy: Policy,
    gate: Gate,
    entries: Vec<Entry>,
    clock_us: u64,
    used_us: HashMap<TenantId, u64>,
    reservation: Option<(JobId, Timestamp)>,
    arrivals: u64,
}

impl Model {
    fn new(policy: Policy) -> Self {
        Self {
            policy,
            gate: Gate::Open,
            entries: Vec::new(),
            clock_us: 0,
            used_us: HashMap::new(),
            reservation: None,
            arrivals: 0,
        }
    }

    fn waits(&self, tenant: &TenantId) -> bool {
        self.entries.iter().any(|entry| entry.job.tenant == *tenant)
    }

    fn active(&self) -> u64 {
        let mut tenants: Vec<_> = self.entries.iter().map(|entry| &entry.job.tenant).collect();
        tenants.sort();
        tenants.dedup();
        tenants.len().max(1) as u64
    }

    fn submit(&mut self, job: Queued<u8>, now: Timestamp) -> bool {
        let known = self.entries.iter().any(|entry| entry.job.id == job.id);
        if self.gate == Gate::Draining || known || self.entries.len() >= self.policy.depth_max {
            return false;
        }
        if !self.waits(&job.tenant) {
            let used = self.used_us.entry(job.tenant.clone()).or_default();
            *used = (*used).max(self.clock_us);
        }
        let turn = (job.created_at.min(now), self.arrivals);
        self.arrivals += 1;
        self.entries.push(Entry { job, turn, passed_over: 0 });
        true
    }

    fn remove(&mut self, id: JobId) -> Option<Queued<u8>> {
        let at = self.entries.iter().position(|entry| entry.job.id == id)?;
        if self.reservation.is_some_and(|(reserved, _)| reserved == id) {
            self.reservation = None;
        }
        Some(self.entries.remove(at).job)
    }

    fn band(&self, entry: &Entry, now: Timestamp) -> u64 {
        let steps = now.since(entry.turn.0).as_millis() / self.policy.age_step.as_millis();
        (u64::from(entry.job.priority.get()) + steps as u64).min(10)
    }

    fn key(&self, entry: &Entry, now: Timestamp) -> (Reverse<u64>, u64, (Timestamp, u64)) {
        (Reverse(self.band(entry, now)), self.used_us[&entry.job.tenant], entry.turn)
    }

    fn next(&mut self, now: Timestamp, fits: &[Fit]) -> Next<u8> {
        let expired = self.entries.iter().filter(|entry| entry.job.deadline.is_some_and(|at| at <= now));
        if let Some(entry) = expired.min_by_key(|entry| (entry.job.deadline, entry.turn)) {
            let id = entry.job.id;
            return Next::Expired(self.remove(id).unwrap());
        }
        if self.gate != Gate::Open {
            return Next::Wait;
        }
        let fit = |entry: &Entry| fits[usize::from(entry.job.kind)];
        if let Some((id, since)) = self.reservation {
            let entry = self.entries.iter().find(|entry| entry.job.id == id).unwrap();
            return match fit(entry) {
                Fit::Warm | Fit::Cold => self.start(id),
                Fit::Never => Next::NeverFits(self.remove(id).unwrap()),
                Fit::NotNow if now.since(since) >= self.policy.reservation_max => {
                    Next::NoRoom(self.remove(id).unwrap())
                }
                Fit::NotNow => Next::Wait,
            };
        }
        let mut sorted: Vec<&Entry> = self.entries.iter().collect();
        sorted.sort_by_key(|entry| self.key(entry, now));
        let Some(first) = sorted.first() else { return Next::Wait };
        let (first_id, passed_over) = (first.job.id, first.passed_over);
        // What the queue comes upon first: a fitting job whose band has nothing that never fits before it.
        let fitting = sorted.iter().position(|entry| matches!(fit(entry), Fit::Warm | Fit::Cold));
        let never = sorted.iter().position(|entry| fit(entry) == Fit::Never);
        if fit(first) == Fit::NotNow && passed_over >= self.policy.bypass_max {
            self.reservation = Some((first_id, now));
            return Next::Wait;
        }
        let Some(best) = fitting else {
            let Some(never) = never else { return Next::Wait };
            let id = sorted[never].job.id;
            return Next::NeverFits(self.remove(id).unwrap());
        };
        let (band, _, _) = self.key(sorted[best], now);
        let warm = sorted.iter().position(|entry| fit(entry) == Fit::Warm && self.key(entry, now).0 == band);
        // The search ends at the band's first loaded model, or with its band.
        let seen = |entry: &Entry| match warm {
            Some(warm) => self.key(entry, now) < self.key(sorted[warm], now),
            None => self.key(entry, now).0 <= band,
        };
        if let Some(never) = never.filter(|never| seen(sorted[*never])) {
            let id = sorted[never].job.id;
            return Next::NeverFits(self.remove(id).unwrap());
        }
        let chosen = warm.filter(|warm| {
            let apart_us = self.key(sorted[*warm], now).1 - self.key(sorted[best], now).1;
            let near = Duration::from_micros(apart_us) <= self.policy.affinity_window;
            near && (best != 0 || passed_over < self.policy.affinity_max)
        });
        let id = sorted[chosen.unwrap_or(best)].job.id;
        if id != first_id {
            self.entries.iter_mut().find(|entry| entry.job.id == first_id).unwrap().passed_over += 1;
        }
        self.start(id)
    }

    fn start(&mut self, id: JobId) -> Next<u8> {
        let entry = self.entries.iter().find(|entry| entry.job.id == id).unwrap();
        let (tenant, cost_us) = (entry.job.tenant.clone(), entry.job.expected.as_micros() as u64);
        let far_us = self.policy.account_max.as_micros() as u64;
        let used = self.used_us.get_mut(&tenant).unwrap();
        let raised = (*used).max(self.clock_us.saturating_sub(far_us)) + cost_us;
        *used = raised.min(self.clock_us + far_us + cost_us);
        Next::Start(self.remove(id).unwrap())
    }

    fn settle(&mut self, tenant: &TenantId, charged: Duration, used: Duration) {
        let (charged, used) = (charged.as_micros() as u64, used.as_micros() as u64);
        self.clock_us += used / self.active();
        let (more, less) = (used.saturating_sub(charged), charged.saturating_sub(used));
        let clock = self.clock_us;
        let waits = self.waits(tenant);
        let account = self.used_us.entry(tenant.clone()).or_default();
        // Who neither waits nor owes stands at the clock.
        let owes = waits || *account > clock;
        if owes || more > 0 {
            *account = ((*account).max(if waits { 0 } else { clock }) + more).saturating_sub(less);
        }
    }

    fn order(&self, now: Timestamp) -> Vec<JobId> {
        let mut used = self.used_us.clone();
        let mut left: Vec<&Entry> = self.entries.iter().collect();
        let mut order = Vec::new();
        while let Some(at) = (0..left.len()).min_by_key(|at| {
            let entry = left[*at];
            (Reverse(self.band(entry, now)), used[&entry.job.tenant], entry.turn)
        }) {
            let entry = left.remove(at);
            *used.get_mut(&entry.job.tenant).unwrap() += entry.job.expected.as_micros() as u64;
            order.push(entry.job.id);
        }
        order
    }
}

#[derive(Debug, Clone)]
enum Step {
    Submit {
        job: usize,
        tenant: u8,
        priority: u8,
        kind: u8,
        age_ms: u64,
        deadline_ms: Option<u64>,
        cost_ms: u64,
    },
    Next {
        fits: [Fit; 3],
        after_ms: u64,
    },
    Remove(usize),
    Settle {
        used_ms: u64,
    },
    Gate(Gate),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let fit = || prop_oneof![4 => Just(Fit::Warm), 4 => Just(Fit::Cold), 4 => Just(Fit::NotNow), 1 => Just(Fit::Never)];
    let deadline = prop::option::weighted(0.1, 0..30_000u64);
    let submit = (0..60usize, 0..4u8, 1..=10u8, 0..3u8, 0..40_000u64, deadline, 0..4_000u64).prop_map(
        |(job, tenant, priority, kind, age_ms, deadline_ms, cost_ms)| Step::Submit {
            job,
            tenant,
            priority,
            kind,
            age_ms,
            deadline_ms,
            cost_ms,
        },
    );
    let gate = prop_oneof![8 => Just(Gate::Open), 2 => Just(Gate::Paused), 1 => Just(Gate::Draining)];
    let step = prop_oneof![
        10 => submit,
        12 => ([fit(), fit(), fit()], 0..3_000u64).prop_map(|(fits, after_ms)| Step::Next { fits, after_ms }),
        2 => (0..60usize).prop_map(Step::Remove),
        3 => (0..6_000u64).prop_map(|used_ms| Step::Settle { used_ms }),
        1 => gate.prop_map(Step::Gate),
    ];
    prop::collection::vec(step, 0..80)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn every_decision_is_the_models(steps in steps()) {
        let policy = Policy {
            depth_max: 20,
            age_step: Duration::from_secs(4),
            bypass_max: 3,
            reservation_max: Duration::from_secs(5),
            affinity_max: 2,
            affinity_window: Duration::from_secs(2),
            account_max: Duration::from_secs(10),
        };
        let (mut queue, mut model) = (JobQueue::new(policy.clone()), Model::new(policy));
        let mut now_ms = 100_000;
        let mut in_flight: Vec<(TenantId, Duration)> = Vec::new();
        for step in steps {
            match step {
                Step::Submit { job: n, tenant, priority, kind, age_ms, deadline_ms, cost_ms } => {
                    let job = Queued {
                        created_at: at(now_ms - age_ms),
                        deadline: deadline_ms.map(|after| at(now_ms + after)),
                        expected: Duration::from_millis(cost_ms),
                        ..job(n, tenant, priority, kind)
                    };
                    let taken = queue.submit(job.clone(), at(now_ms)).is_ok();
                    prop_assert_eq!(taken, model.submit(job, at(now_ms)));
                }
                Step::Next { fits, after_ms } => {
                    now_ms += after_ms;
                    let next = queue.next(at(now_ms), |kind| fits[usize::from(*kind)]);
                    prop_assert_eq!(&next, &model.next(at(now_ms), &fits));
                    if let Next::Start(job) = next {
                        in_flight.push((job.tenant, job.expected));
                    }
                    prop_assert_eq!(queue.order(usize::MAX), model.order(at(now_ms)));
                }
                Step::Remove(n) => prop_assert_eq!(queue.remove(id(n)), model.remove(id(n))),
                Step::Settle { used_ms } => {
                    if let Some((tenant, charged)) = in_flight.pop() {
                        queue.settle(&tenant, charged, Duration::from_millis(used_ms));
                        model.settle(&tenant, charged, Duration::from_millis(used_ms));
                    }
                }
                Step::Gate(gate) => {
                    queue.set_gate(gate);
                    model.gate = gate;
                }
            }
            prop_assert_eq!(queue.len(), model.entries.len());
        }
        // Nothing is lost and nothing comes twice: what is left comes out, once.
        queue.set_gate(Gate::Open);
        let mut left: Vec<JobId> = model.entries.iter().map(|entry| entry.job.id).collect();
        loop {
            match queue.next(at(now_ms), |_| Fit::Warm) {
                Next::Start(job) | Next::Expired(job) => {
                    let place = left.iter().position(|id| *id == job.id);
                    prop_assert!(place.is_some(), "{} came twice", job.id);
                    left.swap_remove(place.unwrap());
                }
                Next::Wait => break,
                other => prop_assert!(false, "{other:?}"),
            }
        }
        prop_assert!(left.is_empty());
    }
}
