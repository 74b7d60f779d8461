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

fn arrivals(tenants: u8) -> impl Strategy<Value = Vec<Arrival>> {
    let arrival = (0..3usize, 0..tenants, 1..=10u8, 0..3u8, 500..3_000u64);
    let arrival = arrival.prop_map(|(after, tenant, priority, kind, cost_ms)| Arrival {
        after,
        tenant,
        priority,
        kind,
        cost_ms,
    });
    prop::collection::vec(arrival, 1..100)
}

const COST_MAX: Duration = Duration::from_secs(3);

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

    /// The bound of the module's text, for a device that makes progress and fits everything.
    #[test]
    fn no_job_starves(arrivals in arrivals(4)) {
        let policy = Policy {
            age_step: Duration::from_secs(2),
            affinity_max: 0,
            account_max: Duration::from_secs(1),
            ..Policy::default()
        };
        let mut queue = JobQueue::new(policy.clone());
        let mut now_ms = 0;
        let mut bounds: HashMap<JobId, VirtualTime> = HashMap::new();
        let drain = std::iter::repeat_n(None, arrivals.len());
        for (n, arrival) in arrivals.into_iter().map(Some).chain(drain).enumerate() {
            let count = arrival.as_ref().map_or(1, |arrival| arrival.after);
            for _ in 0..count {
                let Next::Start(job) = queue.next(at(now_ms), |_| Fit::Warm) else { break };
                now_ms += job.expected.as_millis() as u64;
                queue.settle(&job.tenant, job.expected, job.expected);
                if let Some(bound) = bounds.remove(&job.id) {
                    prop_assert!(queue.accounts.clock <= bound, "{job:?}");
                }
                note_top(&queue, &mut bounds, &policy);
            }
            if let Some(Arrival { tenant, priority, kind, cost_ms, .. }) = arrival {
                let expected = Duration::from_millis(cost_ms);
                let job = Queued { expected, created_at: at(now_ms), ..job(n, tenant, priority, kind) };
                queue.submit(job, at(now_ms)).unwrap();
                note_top(&queue, &mut bounds, &policy);
            }
        }
        prop_assert!(queue.is_empty(), "{} of them wait still", queue.len());
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
        arrivals in arrivals(3),
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

/// Notes the bound of each job that has come to the top band: `max(v, V) + account_max + (k + 2) × cost`.
fn note_top(queue: &JobQueue<u8>, bounds: &mut HashMap<JobId, VirtualTime>, policy: &Policy) {
    for (turn, waiting) in &queue.jobs {
        if waiting.band == BANDS - 1 && !bounds.contains_key(&waiting.job.id) {
            let older = queue.jobs.iter().filter(|(other, of)| of.tenant == waiting.tenant && *other < turn);
            let from = queue.accounts.virtual_time(waiting.tenant).max(queue.accounts.clock);
            let bound = from.plus(policy.account_max).plus(COST_MAX * (older.count() as u32 + 2));
            bounds.insert(waiting.job.id, bound);
        }
    }
}
