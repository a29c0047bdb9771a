//! Tests of the end of batches, and of the eviction of idle queues and lanes.

use super::super::{BatchLimits, GateLimits, StartDecision};
use super::simulation::{
    MS, NO_LIMITS, Outcome, SECOND, Simulation, TestJob, at_ms, concurrency, rate,
};

fn sorted_ids(jobs: Vec<TestJob>) -> Vec<usize> {
    let mut ids: Vec<usize> = jobs.into_iter().map(|job| job.id).collect();
    ids.sort_unstable();
    ids
}

/// Job 0 is in flight, job 1 is in a backoff, jobs 2 and 3 are ready.
#[test]
fn removed_batch_returns_ready_and_delayed_jobs() {
    let mut sim = Simulation::new(GateLimits::UNLIMITED);
    sim.set_lane_limits("a", concurrency(1));
    let (ended, other) = (sim.add_batch(NO_LIMITS), sim.add_batch(NO_LIMITS));
    sim.push(ended, "b");
    sim.push(ended, "c");
    let (in_flight, _) = sim.start();
    let (slot, retry) = sim.start();
    assert!(sim.settle_and_requeue(slot, retry, at_ms(50)));
    sim.push(ended, "b");
    sim.push(ended, "a");
    let last = sim.push(other, "a");

    assert_eq!(sorted_ids(sim.schedule.remove_batch(ended)), [1, 2, 3]);
    assert_eq!(sim.schedule.in_flight(ended), 1);
    assert!(sim.schedule.remove_batch(ended).is_empty());
    assert_eq!(sim.start().1.id, last);
    sim.now = at_ms(50);
    assert!(matches!(sim.next(), StartDecision::WaitForChange));
    sim.schedule.settle(in_flight);
    assert_eq!(sim.schedule.in_flight(ended), 0);
    assert!(sim.schedule.batches.len() == 1 && sim.schedule.delayed_jobs.is_empty());
}

#[test]
fn removed_batch_accepts_no_jobs_even_if_its_index_is_reused() {
    let mut sim = Simulation::new(GateLimits::UNLIMITED);
    let ended = sim.add_batch(NO_LIMITS);
    sim.push(ended, "a");
    let (slot, job) = sim.start();
    assert!(sim.schedule.remove_batch(ended).is_empty());
    assert!(!sim.settle_and_requeue(slot, job, at_ms(0)));
    let next = sim.add_batch(NO_LIMITS);
    assert_eq!(next.index, ended.index);
    sim.push(ended, "a");
    assert!(matches!(sim.next(), StartDecision::WaitForChange));
    assert_eq!(sim.rejected, [(at_ms(0), 1)]);
    assert!(sim.schedule.remove_batch(ended).is_empty());
    assert!(!sim.schedule.is_batch_blocked_only_by_hosts(ended, sim.now));
    sim.push(next, "a");
    assert_eq!(sim.start().1.id, 2);
}

#[test]
fn removing_a_batch_does_not_take_rejected_jobs_of_another() {
    let mut sim = Simulation::new(GateLimits::UNLIMITED);
    let (late, ended) = (
        sim.add_batch(BatchLimits {
            deadline: Some(at_ms(0)),
            ..NO_LIMITS
        }),
        sim.add_batch(NO_LIMITS),
    );
    let id = sim.push(late, "a");
    assert!(sim.schedule.remove_batch(ended).is_empty());
    assert_eq!(sorted_ids(sim.schedule.take_rejected_jobs()), [id]);
}

#[test]
fn removed_batch_forwards_its_wakeup_in_a_lane() {
    let mut sim = Simulation::new(GateLimits::UNLIMITED);
    sim.set_lane_limits("a", concurrency(1));
    let [first, woken, last] = [0; 3].map(|_| sim.add_batch(NO_LIMITS));
    for batch in [first, woken, last] {
        sim.push(batch, "a");
    }
    let (slot, _) = sim.start();
    assert!(matches!(sim.next(), StartDecision::WaitForChange));
    sim.schedule.settle(slot);
    assert_eq!(sim.schedule.remove_batch(woken).len(), 1);
    assert_eq!(sim.start().0.batch_id(), last);
}

#[test]
fn slot_of_a_removed_batch_counts_until_it_is_settled() {
    let mut sim = Simulation::new(concurrency(1));
    let (ended, other) = (sim.add_batch(NO_LIMITS), sim.add_batch(NO_LIMITS));
    sim.push(ended, "a");
    sim.push(other, "a");
    let (slot, _) = sim.start();
    sim.schedule.remove_batch(ended);
    assert!(matches!(sim.next(), StartDecision::WaitForChange));
    sim.schedule.settle(slot);
    assert_eq!(sim.start().0.batch_id(), other);
}

/// Lanes with a rate limit are kept until their burst is replenished.
#[test]
fn idle_lanes_are_evicted() {
    let mut sim = Simulation::new(GateLimits::UNLIMITED);
    let batch = sim.add_batch(BatchLimits {
        per_lane_limits: rate(100, 1),
        ..NO_LIMITS
    });
    let mut max_items = 0;
    for lane in 0..200_000u64 {
        sim.now = at_ms(lane);
        sim.push(batch, &lane.to_string());
        let (slot, _) = sim.start();
        sim.schedule.settle(slot);
        let schedule = &sim.schedule;
        max_items = max_items.max(
            schedule.lanes.len()
                + schedule.routes.len()
                + schedule.shares.len()
                + schedule.queues.len()
                + schedule.eviction_candidates.len()
                + schedule.timers.len(),
        );
    }
    assert!(max_items <= 200, "{max_items} items are kept");
    assert_eq!(sim.schedule.lane_by_key.len(), sim.schedule.lanes.len());
    assert_eq!(
        sim.schedule.batches[batch.index].share_by_lane.len(),
        sim.schedule.queues.len()
    );
}

#[test]
fn lane_in_use_is_never_evicted() {
    let mut sim = Simulation::new(GateLimits::UNLIMITED);
    sim.set_lane_limits("kept", concurrency(1));
    let batch = sim.add_batch(NO_LIMITS);
    sim.push_many(batch, "kept", 2);
    let (slot, _) = sim.start();
    for lane in 0..1_000 {
        sim.push(batch, &lane.to_string());
        let (other, _) = sim.start();
        sim.schedule.settle(other);
    }
    sim.schedule.settle(slot);
    assert_eq!(sim.start().1.id, 1);
}

#[test]
fn paused_lane_is_kept_until_its_pause_is_over() {
    let mut sim = Simulation::new(GateLimits::UNLIMITED);
    let batch = sim.add_batch(NO_LIMITS);
    sim.push(batch, "paused");
    let (slot, _) = sim.start();
    sim.schedule.pause_lane(&slot, at_ms(1_000));
    sim.schedule.settle(slot);
    for lane in 0..1_000 {
        sim.push(batch, &lane.to_string());
        let (other, _) = sim.start();
        sim.schedule.settle(other);
    }
    sim.push(batch, "paused");
    assert!(matches!(sim.next(), StartDecision::WaitUntil(at) if at == at_ms(1_000)));
}

/// Each batch has a deadline, a backoff and a rate-limited job, all about an hour ahead.
#[test]
fn many_small_batches_leave_nothing_behind() {
    let hour = 3_600 * SECOND;
    let mut sim = Simulation::new(GateLimits::UNLIMITED);
    let lasting_batch = sim.add_batch(NO_LIMITS);
    let mut lasting = Vec::new();
    for lane in 0..1_000 {
        sim.push(lasting_batch, &lane.to_string());
        lasting.push(sim.start());
    }
    let mut max_items = 0;
    for turn in 0..50_000usize {
        let (pace, deadline) = (
            GateLimits {
                concurrency: 2,
                ..rate(1, 1)
            },
            sim.now.plus_nanos(hour),
        );
        let limits = BatchLimits {
            overall_limits: pace,
            per_lane_limits: pace,
            deadline: Some(deadline),
        };
        let batch = sim.add_batch(limits);
        sim.push_many(batch, &(turn % 1_000).to_string(), 2);
        let (slot, job) = sim.start();
        assert!(sim.settle_and_requeue(slot, job, sim.now.plus_nanos(hour / 2)));
        assert!(!matches!(sim.next(), StartDecision::Start(..)));
        assert_eq!(sim.schedule.remove_batch(batch).len(), 2);
        let (slot, job) = lasting.swap_remove(turn % lasting.len());
        sim.schedule.settle(slot);
        sim.push(lasting_batch, &job.lane);
        lasting.push(sim.start());
        sim.now = sim.now.plus_nanos(MS);
        let schedule = &sim.schedule;
        max_items = max_items.max(
            schedule.timers.len() + schedule.deadlines.len() + schedule.eviction_candidates.len(),
        );
    }
    assert!(max_items <= 500, "{max_items} items are kept");
    assert!(
        sim.schedule.batches.len() == 1
            && sim.schedule.deadlines.is_empty()
            && sim.schedule.queues.len() <= 2_000
    );
}

/// Sets many timers of each kind, so that obsolete timers are removed repeatedly.
#[test]
fn sweep_keeps_every_timer_in_use() {
    let mut sim = Simulation::new(GateLimits::UNLIMITED);
    let kinds = [(10, 0, 0), (0, 10, 0), (0, 0, 10), (0, 0, 0)];
    for turn in 0..400 {
        let (overall, per_lane, lane) = kinds[turn % 4];
        let rate_or_none = |per_second: u64| {
            if per_second > 0 {
                rate(per_second, 1)
            } else {
                GateLimits::UNLIMITED
            }
        };
        let name = turn.to_string();
        sim.set_lane_limits(&name, rate_or_none(lane));
        let batch = sim.add_batch(BatchLimits {
            overall_limits: rate_or_none(overall),
            per_lane_limits: rate_or_none(per_lane),
            deadline: None,
        });
        sim.push_many(batch, &name, 3);
    }
    let mut tried = std::collections::HashSet::new();
    sim.run(|job| {
        if tried.insert(job.id) {
            Outcome::Retry(MS, SECOND)
        } else {
            Outcome::Done(MS)
        }
    });
    assert_eq!((sim.starts.len(), sim.schedule.queued_count), (2_400, 0));
}

#[test]
fn finished_batch_leaves_nothing_queued() {
    let mut sim = Simulation::new(concurrency(3));
    sim.set_lane_limits("0", rate(1_000, 1));
    let batch = sim.add_batch(BatchLimits {
        per_lane_limits: concurrency(1),
        ..NO_LIMITS
    });
    for job in 0..100 {
        sim.push(batch, &(job % 7).to_string());
    }
    sim.run(|_| Outcome::Done(MS));
    assert!(matches!(sim.next(), StartDecision::WaitForChange));
    assert_eq!(
        (sim.in_flight(), sim.schedule.queued_count, sim.starts.len()),
        (0, 0, 100)
    );
    assert!(sim.schedule.remove_batch(batch).is_empty());
    assert!(sim.schedule.batches.is_empty() && sim.schedule.queues.is_empty());
}
