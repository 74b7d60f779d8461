//! The promises: nothing starves, tenants get equal shares, passing over has its bound.

use proptest::prelude::*;

use super::super::accounts::VirtualTime;
use super::*;

#[derive(Debug, Clone)]
struct Arrival {
    /// Starts that happen before it.
    after: usize,
    tenant: u8,
    priority: u8,
    kind: u8,
    cost_ms: u64,
}

fn arrivals(tenants: u8, jobs_max: usize) -> impl Strategy<Value = Vec<Arrival>> {
    let arrival = (0..3usize, 0..tenants, 1..=10u8, 0..3u8, 500..=COST_MAX_MS);
    let arrival = arrival.prop_map(|(after, tenant, priority, kind, cost_ms)| Arrival {
        after,
        tenant,
        priority,
        kind,
        cost_ms,
    });
    prop::collection::vec(arrival, 1..=jobs_max)
}

const COST_MAX_MS: u64 = 3_000;
const COST_MAX: Duration = Duration::from_millis(COST_MAX_MS);

/// A device that runs one job after the other, and what was promised to those that wait for it.
struct Device {
    queue: JobQueue<u8>,
    policy: Policy,
    now_ms: u64,
    /// In the order in which they came.
    watched: Vec<Watched>,
}

/// A job as the test reckons with it: when it has to be in the top band is not asked of the queue.
#[derive(Debug)]
struct Watched {
    id: JobId,
    tenant: TenantId,
    top_at_ms: u64,
    /// From then on.
    starts_by: Option<VirtualTime>,
}

impl Device {
    fn new(policy: Policy) -> Self {
        Self { queue: JobQueue::new(policy.clone()), policy, now_ms: 0, watched: Vec::new() }
    }

    fn submit(&mut self, job: Queued<u8>) {
        let now = at(self.now_ms);
        self.queue.submit(Queued { created_at: now, ..job }, now).unwrap();
    }

    fn submit_watched(&mut self, job: Queued<u8>) -> Result<(), TestCaseError> {
        let steps = u64::from(10 - job.priority.get());
        let top_at_ms = self.now_ms + steps * self.policy.age_step.as_millis() as u64;
        self.watched.push(Watched { id: job.id, tenant: job.tenant.clone(), top_at_ms, starts_by: None });
        self.submit(job);
        self.check()
    }

    /// Runs what is next; `false` when nothing waits.
    fn run_one(&mut self) -> Result<bool, TestCaseError> {
        let Next::Start(job) = self.queue.next(at(self.now_ms), |_| Fit::Warm) else { return Ok(false) };
        let watched = self.watched.iter().position(|watched| watched.id == job.id);
        let watched = watched.map(|place| self.watched.remove(place));
        self.now_ms += job.expected.as_millis() as u64;
        self.queue.settle(&job.tenant, job.expected, job.expected);
        let starts_by = watched.and_then(|watched| watched.starts_by);
        prop_assert!(
            starts_by.is_none_or(|bound| self.queue.accounts.clock <= bound),
            "{job:?} started late"
        );
        self.check()?;
        Ok(true)
    }

    /// Nobody waits beyond `max(v, V) + account_max + 2 (k + 1) × cost` from when it had to be in the top band.
    fn check(&mut self) -> Result<(), TestCaseError> {
        let (queue, clock) = (&self.queue, self.queue.accounts.clock);
        let mut older: HashMap<TenantId, u32> = HashMap::new();
        for watched in &mut self.watched {
            let older = older.entry(watched.tenant.clone()).or_default();
            if watched.starts_by.is_none() && watched.top_at_ms <= self.now_ms {
                let tenant = queue.jobs[&queue.turns[&watched.id]].tenant;
                let from = queue.accounts.virtual_time(tenant).max(clock);
                watched.starts_by =
                    Some(from.plus(self.policy.account_max).plus(COST_MAX * (2 * (*older + 1))));
            }
            *older += 1;
            prop_assert!(
                watched.starts_by.is_none_or(|bound| clock <= bound),
                "{watched:?} waits at {clock:?}"
            );
        }
        Ok(())
    }
}

#[test]
fn who_owes_time_is_not_starved_by_ever_new_tenants() {
    let mut queue = queue(Policy::default(), [job(0, 0, 10, 0), job(1, 0, 10, 0)]);
    // It has used ten seconds of the device, and waits for more.
    assert_eq!(started(queue.next(at(0), |_| Fit::Warm)), Some(id(0)));
    queue.settle(&tenant(0), SECOND, SECOND * 10);
    let mut fresh = 0;
    for n in 2..100u8 {
        let newcomer = tenant(n);
        queue.submit(Queued { tenant: newcomer, ..job(n.into(), 0, 10, 0) }, at(0)).unwrap();
        let Next::Start(job) = queue.next(at(0), |_| Fit::Warm) else { panic!("jobs wait") };
        queue.settle(&job.tenant, SECOND, SECOND);
        if job.id == id(1) {
            break;
        }
        fresh += 1;
    }
    assert!(fresh <= 20, "{fresh} new tenants went first");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    /// The bound of the module's text, for a device that makes progress and fits everything, while for each job that
    /// starts another one of the highest priority comes.
    #[test]
    fn no_job_starves(
        arrivals in arrivals(4, 24),
        urgent in prop::collection::vec((0..6u8, 500..=COST_MAX_MS), 1..8),
    ) {
        let mut device = Device::new(Policy {
            age_step: Duration::from_secs(2),
            affinity_max: 0,
            account_max: Duration::from_secs(1),
            ..Policy::default()
        });
        let mut numbers = 0..;
        for (n, Arrival { after, tenant, priority, kind, cost_ms }) in numbers.by_ref().zip(arrivals) {
            let expected = Duration::from_millis(cost_ms);
            device.submit_watched(Queued { expected, ..job(n, tenant, priority, kind) })?;
            for _ in 0..after {
                device.run_one()?;
            }
        }
        let mut stream = urgent.iter().cycle();
        while !device.watched.is_empty()
            && let (Some(n), Some(&(tenant, cost_ms))) = (numbers.next(), stream.next())
        {
            let expected = Duration::from_millis(cost_ms);
            device.submit(Queued { expected, ..job(n, tenant, 10, 0) });
            prop_assert!(device.run_one()?, "jobs wait and nothing starts");
        }
    }

    #[test]
    fn tenants_that_always_have_work_get_equal_shares(
        costs in prop::collection::vec((500..3_000u64, 0..3u8, 500..3_000u64, 0..3u8), 20..60),
        warm in prop::collection::vec(0..3u8, 60),
    ) {
        let policy = Policy { affinity_window: Duration::from_secs(2), ..Policy::default() };
        let allowed = COST_MAX + policy.affinity_window;
        let mut queue = JobQueue::new(policy);
        for (n, (a_ms, a_kind, b_ms, b_kind)) in costs.iter().copied().enumerate() {
            for (tenant, cost_ms, kind) in [(0, a_ms, a_kind), (1, b_ms, b_kind)] {
                let expected = Duration::from_millis(cost_ms);
                let job = Queued { expected, ..job(2 * n + usize::from(tenant), tenant, 5, kind) };
                queue.submit(job, at(0)).unwrap();
            }
        }
        let mut used = [Duration::ZERO; 2];
        let mut left = [costs.len(); 2];
        for warm in warm {
            let fit = |kind: &u8| if *kind == warm { Fit::Warm } else { Fit::Cold };
            let Next::Start(job) = queue.next(at(0), fit) else { break };
            queue.settle(&job.tenant, job.expected, job.expected);
            let who = usize::from(job.tenant == tenant(1));
            used[who] += job.expected;
            left[who] -= 1;
            if left.contains(&0) {
                break;
            }
            prop_assert!(used[0].abs_diff(used[1]) <= allowed, "{used:?}");
        }
    }

    /// Once first, a job sees at most `bypass_max` others start before it, whatever comes and whatever fits.
    #[test]
    fn the_first_job_is_passed_over_a_bounded_number_of_times(
        arrivals in arrivals(3, 99),
        fits in prop::collection::vec([any::<bool>(), any::<bool>()], 300),
    ) {
        let policy = Policy { bypass_max: 4, affinity_max: 4, ..Policy::default() };
        let bypass_max = policy.bypass_max as usize;
        let mut queue = JobQueue::new(policy);
        // Kind 0 never fits until the end; it is the most urgent and the oldest, so it is first.
        queue.submit(Queued { created_at: at(0), ..job(1_000, 9, 10, 0) }, at(0)).unwrap();
        let mut fits = fits.into_iter();
        let mut passed = 0;
        for (n, arrival) in arrivals.into_iter().enumerate() {
            let Arrival { tenant, priority, kind, .. } = arrival;
            let kind = 1 + kind % 2;
            let job = Queued { created_at: at(0), expected: Duration::ZERO, ..job(n, tenant, priority, kind) };
            queue.submit(job, at(0)).unwrap();
            let [one, two] = fits.next().unwrap();
            let fit = |kind: &u8| match *kind {
                1 if one => Fit::Warm,
                2 if two => Fit::Cold,
                _ => Fit::NotNow,
            };
            for _ in 0..arrival.after {
                passed += usize::from(started(queue.next(at(0), fit)).is_some());
            }
            prop_assert!(passed <= bypass_max);
        }
        prop_assert_eq!(started(queue.next(at(0), |_| Fit::Cold)), Some(id(1_000)));
    }
}
