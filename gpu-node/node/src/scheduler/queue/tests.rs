//! The queue against a model that scans everything, and the bounds that it promises.

mod bounds;
mod model;

use std::time::Duration;

use super::lines::BANDS;
use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn at(ms: u64) -> Timestamp {
    Timestamp::from_unix_ms(1_000_000 + ms)
}

fn id(n: usize) -> JobId {
    let mut random = [0; 10];
    random[2..].copy_from_slice(&(n as u64).to_be_bytes());
    JobId::new(at(0), random)
}

fn tenant(n: u8) -> TenantId {
    format!("t{n}").parse().unwrap()
}

fn job(n: usize, tenant_number: u8, priority: u8, kind: u8) -> Queued<u8> {
    Queued {
        id: id(n),
        tenant: tenant(tenant_number),
        priority: priority.try_into().unwrap(),
        kind,
        created_at: at(0),
        deadline: None,
        expected: SECOND,
    }
}

fn queue(policy: Policy, jobs: impl IntoIterator<Item = Queued<u8>>) -> JobQueue<u8> {
    let mut queue = JobQueue::new(policy);
    for job in jobs {
        queue.submit(job, at(0)).unwrap();
    }
    queue
}

fn started(next: Next<u8>) -> Option<JobId> {
    if let Next::Start(job) = next { Some(job.id) } else { None }
}

fn starts(queue: &mut JobQueue<u8>, now: Timestamp, fit: impl Fn(u8) -> Fit + Copy) -> Vec<JobId> {
    std::iter::from_fn(|| started(queue.next(now, |kind| fit(*kind)))).collect()
}

#[test]
fn the_most_urgent_goes_first_and_equals_as_they_came() {
    let mut queue = queue(Policy::default(), [(0, 5), (1, 9), (2, 5), (3, 10)].map(|(n, p)| job(n, 0, p, 0)));
    assert_eq!(queue.order(9), [3, 1, 0, 2].map(id));
    assert_eq!(starts(&mut queue, at(0), |_| Fit::Warm), [3, 1, 0, 2].map(id));
}

#[test]
fn a_job_rises_by_a_level_per_step_that_it_has_waited() {
    let policy = Policy { age_step: SECOND, ..Policy::default() };
    let mut queue = queue(policy, [job(0, 0, 1, 0)]);
    queue.submit(Queued { created_at: at(2_000), ..job(1, 0, 3, 0) }, at(2_000)).unwrap();
    queue.submit(Queued { created_at: at(2_000), ..job(2, 0, 4, 0) }, at(2_000)).unwrap();
    let order = starts(&mut queue, at(2_000), |_| Fit::Warm);
    assert_eq!(order, [2, 0, 1].map(id), "two seconds make a 1 a 3, and the older goes first");
}

#[test]
fn a_job_that_comes_from_another_node_keeps_its_age() {
    let policy = Policy { age_step: SECOND, ..Policy::default() };
    let mut queue = queue(policy, []);
    queue.submit(job(0, 0, 9, 0), at(0)).unwrap();
    queue.submit(Queued { created_at: at(0), ..job(1, 0, 1, 0) }, at(60_000)).unwrap();
    queue.submit(Queued { created_at: at(59_000), ..job(2, 0, 10, 0) }, at(60_000)).unwrap();
    assert_eq!(starts(&mut queue, at(60_000), |_| Fit::Warm), [0, 1, 2].map(id));
}

#[test]
fn tenants_take_turns_whatever_one_of_them_has_submitted_before() {
    let flood = (0..20).map(|n| job(n, 0, 5, 0));
    let mut queue = queue(Policy::default(), flood.chain([job(20, 1, 5, 0), job(21, 1, 5, 0)]));
    let order = starts(&mut queue, at(0), |_| Fit::Warm);
    assert_eq!(order[..4], [0, 20, 1, 21].map(id));
}

#[test]
fn who_always_asks_for_the_highest_priority_gets_no_more_than_half_once_others_have_aged() {
    let policy = Policy { age_step: SECOND, ..Policy::default() };
    let mut queue = queue(policy, (0..100).map(|n| job(n, 0, 1, 0)));
    let mut low = 0;
    for round in 0..60 {
        let now = at(20_000 + round * 1_000);
        let urgent = Queued { created_at: now, ..job(1_000 + round as usize, 1, 10, 0) };
        queue.submit(urgent, now).unwrap();
        let Next::Start(job) = queue.next(now, |_| Fit::Warm) else { panic!("a job waits") };
        queue.settle(&job.tenant, job.expected, job.expected);
        low += usize::from(job.tenant == tenant(0));
    }
    assert!((29..=31).contains(&low), "{low} of 60");
}

#[test]
fn a_job_that_does_not_fit_is_passed_over_a_bounded_number_of_times_and_then_gets_the_device() {
    let policy = Policy { bypass_max: 2, ..Policy::default() };
    let mut queue = queue(policy, [job(0, 0, 9, 1), job(1, 0, 5, 0), job(2, 0, 5, 0), job(3, 0, 10, 0)]);
    let full = |kind: u8| if kind == 1 { Fit::NotNow } else { Fit::Warm };
    assert_eq!(starts(&mut queue, at(0), full), [3, 1, 2].map(id));
    queue.submit(job(4, 0, 5, 0), at(0)).unwrap();
    assert_eq!(queue.next(at(0), |kind| full(*kind)), Next::Wait, "kept for the large one");
    queue.submit(job(5, 0, 10, 0), at(0)).unwrap();
    assert_eq!(queue.next(at(1), |kind| full(*kind)), Next::Wait, "whatever comes now");
    assert_eq!(starts(&mut queue, at(2), |_| Fit::Warm), [0, 5, 4].map(id));
}

#[test]
fn a_device_that_is_kept_in_vain_is_free_again_after_the_limit() {
    let policy = Policy { bypass_max: 0, reservation_max: SECOND, ..Policy::default() };
    let mut queue = queue(policy, [job(0, 0, 9, 1), job(1, 0, 5, 0)]);
    let full = |kind: &u8| if *kind == 1 { Fit::NotNow } else { Fit::Warm };
    assert_eq!(queue.next(at(0), full), Next::Wait);
    assert_eq!(queue.wake_at(), Some(at(1_000)));
    assert_eq!(queue.next(at(999), full), Next::Wait);
    assert!(matches!(queue.next(at(1_000), full), Next::NoRoom(job) if job.id == id(0)));
    assert_eq!(started(queue.next(at(1_000), full)), Some(id(1)));
}

#[test]
fn a_loaded_model_goes_first_among_equals_for_a_bounded_run() {
    let policy = Policy { affinity_max: 3, ..Policy::default() };
    let jobs = (0..6).map(|n| job(n, 0, 5, u8::from(n > 0)));
    let mut queue = queue(policy, jobs.chain([job(9, 0, 6, 0)]));
    let warm_one = |kind: u8| if kind == 1 { Fit::Warm } else { Fit::Cold };
    // A higher priority is no near-equal; then the run of the loaded model, then the swap.
    assert_eq!(starts(&mut queue, at(0), warm_one), [9, 1, 2, 3, 0, 4, 5].map(id));
}

#[test]
fn a_job_past_its_deadline_is_reported_and_never_starts() {
    let deadline = Some(at(500));
    let mut queue = queue(Policy::default(), [Queued { deadline, ..job(0, 0, 10, 0) }, job(1, 0, 1, 0)]);
    assert_eq!(queue.wake_at(), deadline);
    queue.set_gate(Gate::Paused);
    assert_eq!(queue.next(at(499), |_| Fit::Warm), Next::Wait);
    assert!(matches!(queue.next(at(500), |_| Fit::Warm), Next::Expired(job) if job.id == id(0)));
    assert_eq!(queue.next(at(500), |_| Fit::Warm), Next::Wait, "paused");
    queue.set_gate(Gate::Open);
    assert_eq!(starts(&mut queue, at(500), |_| Fit::Warm), [id(1)]);
}

#[test]
fn what_can_never_fit_is_handed_out_and_blocks_nobody() {
    let mut queue = queue(Policy::default(), [job(0, 0, 10, 1), job(1, 0, 1, 0)]);
    let small = |kind: &u8| if *kind == 1 { Fit::Never } else { Fit::Warm };
    assert!(matches!(queue.next(at(0), small), Next::NeverFits(job) if job.id == id(0)));
    assert_eq!(started(queue.next(at(0), small)), Some(id(1)));
}

#[test]
fn the_depth_is_bounded_and_a_job_waits_once() {
    let mut queue = queue(Policy { depth_max: 2, ..Policy::default() }, [job(0, 0, 5, 0)]);
    assert_eq!(queue.submit(job(0, 0, 5, 0), at(0)), Err(SubmitError::Duplicate));
    queue.submit(job(1, 0, 5, 0), at(0)).unwrap();
    assert_eq!(queue.submit(job(2, 0, 5, 0), at(0)), Err(SubmitError::Full));
    queue.set_gate(Gate::Draining);
    assert_eq!(queue.submit(job(2, 0, 5, 0), at(0)), Err(SubmitError::Draining));
    assert_eq!(queue.next(at(0), |_| Fit::Warm), Next::Wait);
    assert_eq!(queue.remove(id(0)).map(|job| job.id), Some(id(0)));
    assert_eq!((queue.remove(id(0)), queue.len()), (None, 1));
}

#[test]
fn nothing_is_left_behind_by_jobs_that_have_gone() {
    let jobs = (0..90)
        .map(|n| Queued { deadline: Some(at(9)), ..job(n, n as u8 % 7, 1 + n as u8 % 10, n as u8 % 3) });
    let mut queue = queue(Policy::default(), jobs);
    for n in 0..25 {
        drop(queue.remove(id(n)));
        started(queue.next(at(1), |_| Fit::Warm)).unwrap();
    }
    while !matches!(queue.next(at(99_999), |_| Fit::Warm), Next::Wait) {}
    assert!(
        queue.is_empty() && queue.turns.is_empty() && queue.rises.is_empty() && queue.deadlines.is_empty()
    );
    assert!(
        (0..BANDS).all(|band| queue.lines.heads(band).is_empty() && queue.lines.queues(band).count() == 0)
    );
}
