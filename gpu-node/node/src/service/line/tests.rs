use orfeas_protocol::JobOptions;
use orfeas_protocol::job::NewJob;

use super::*;
use crate::fixtures::new_job;

fn record(n: u8, priority: u8, channel: Channel) -> JobRecord {
    record_of(n, priority, channel, Duration::from_secs(10))
}

/// Of a job that has waited for so long.
fn record_of(n: u8, priority: u8, channel: Channel, waited: Duration) -> JobRecord {
    let at = Timestamp::from_unix_ms(now().unix_ms() - waited.as_millis() as u64 + u64::from(n));
    let options = JobOptions { priority: priority.try_into().unwrap(), ..JobOptions::default() };
    let new = NewJob { id: JobId::new(at, [n; 10]), channel, options, ..new_job(at) };
    JobRecord::new(new, at)
}

fn node(name: &str) -> NodeId {
    name.parse().unwrap()
}

fn line(records: &[&JobRecord]) -> (Line, History) {
    let (line, history) = (Line::default(), History::default());
    for record in records {
        line.note(record, &history, "silhouette");
    }
    (line, history)
}

#[test]
fn the_urgent_and_the_early_go_before_and_other_channels_do_not_count() {
    let early = record(1, 5, Channel::Stable);
    let late = record(2, 5, Channel::Stable);
    let urgent = record(3, 9, Channel::Stable);
    let canary = record(4, 10, Channel::Canary);
    let mut running = record(5, 1, Channel::Canary);
    running.start(node("a"), Timestamp::from_unix_ms(2_000)).unwrap();
    let (line, history) = line(&[&late, &early, &urgent, &canary, &running]);
    let place = |record: &JobRecord, serving: &[NodeId]| {
        let (position, ahead) = line.before(record.job.id, serving, &history).unwrap();
        (position, ahead.len())
    };
    assert_eq!(
        place(&urgent, &[node("a")]),
        (0, 1),
        "the job that runs on its node is ahead, but not in the line"
    );
    assert_eq!(place(&early, &[node("a")]), (1, 2));
    assert_eq!(place(&late, &[node("b")]), (2, 2), "what runs on another channel's node is nothing to it");
    let queue = line.queue(Channel::Stable, &[node("a")], &history);
    let order: Vec<_> = queue.waiting.iter().map(|(id, _)| *id).collect();
    assert_eq!(order, [urgent.job.id, early.job.id, late.job.id]);
}

#[test]
fn jobs_that_ended_or_are_gone_leave_the_line() {
    let mut ended = record(1, 5, Channel::Stable);
    let gone = record(2, 5, Channel::Stable);
    let last = record(3, 5, Channel::Stable);
    let (line, history) = line(&[&ended, &gone, &last]);
    ended.request_cancel(Timestamp::from_unix_ms(3_000)).unwrap();
    line.note(&ended, &history, "silhouette");
    line.forget(gone.job.id);
    assert_eq!(line.before(last.job.id, &[], &history).unwrap().0, 0);
    assert!(line.before(ended.job.id, &[], &history).is_none());
}

#[test]
fn the_front_is_told_at_each_look_and_everybody_else_in_turn() {
    let records: Vec<_> = (0..100).map(|n| record(n, 5, Channel::Stable)).collect();
    let (line, history) = line(&records.iter().collect::<Vec<_>>());
    let queue = line.queue(Channel::Stable, &[], &history);
    let mut told = std::collections::BTreeSet::new();
    for look in 0..(100 - FRONT).div_ceil(BEHIND) {
        let turns = queue.turns(look);
        assert_eq!(turns.len(), FRONT + BEHIND);
        assert!((0..FRONT).all(|place| turns.contains(&place)));
        told.extend(turns);
    }
    assert_eq!(told.len(), 100);
    let short = Queue { waiting: queue.waiting[..3].to_vec(), ..queue };
    assert_eq!(short.turns(7), [0, 1, 2]);
}

#[test]
fn a_new_place_or_another_time_is_news_and_the_same_is_not() {
    let told = |p50_seconds: f64| {
        let estimate = crate::history::Estimate { p50_seconds, p90_seconds: p50_seconds };
        Told { phase: crate::history::Phase::Queued, raw: estimate, told: estimate }
    };
    let mut waiting = record(1, 5, Channel::Stable);
    waiting.foresee_wait(3, Some(estimate(&told(10.0))), 0).unwrap();
    let (line, history) = line(&[&waiting]);
    let queue = line.queue(Channel::Stable, &[], &history);
    let (_, open) = &queue.waiting[0];
    assert!(is_news(open, 2, Some(&told(10.0))));
    assert!(is_news(open, 3, Some(&told(12.0))));
    assert!(!is_news(open, 3, Some(&told(10.4))));
    assert!(is_news(open, 3, None), "it is not known any more");
}

#[test]
fn a_job_that_has_waited_for_long_has_risen_as_it_has_in_the_nodes_queues() {
    let old = record_of(1, 1, Channel::Stable, Duration::from_secs(300));
    let urgent = record(2, 10, Channel::Stable);
    let young = record(3, 1, Channel::Stable);
    let (line, history) = line(&[&old, &urgent, &young]);
    let place = |record: &JobRecord| line.before(record.job.id, &[], &history).unwrap().0;
    assert_eq!([&old, &urgent, &young].map(place), [0, 1, 2]);
}
