//! How batches end, and what is forgotten.

use super::super::{BatchLimits, GateLimits, StartDecision};
use super::simulation::{End, MS, NO_LIMITS, SECOND, Sim, TestJob, at_most, at_ms, rate};

fn ids(jobs: Vec<TestJob>) -> Vec<usize> {
    let mut ids: Vec<usize> = jobs.into_iter().map(|job| job.id).collect();
    ids.sort_unstable();
    ids
}

/// Jobs 0 (in flight), 1 (backing off), 2 and 3 (queued), in a lane of two slots.
#[test]
fn a_removed_batch_gives_back_what_is_queued_and_what_backs_off() {
    let mut sim = Sim::new(GateLimits::UNLIMITED);
    sim.limit_lane("a", at_most(1));
    let (ended, other) = (sim.batch(NO_LIMITS), sim.batch(NO_LIMITS));
    sim.push(ended, "b");
    sim.push(ended, "c");
    let (in_flight, _) = sim.start();
    let (slot, retry) = sim.start();
    assert!(sim.settle_again(slot, retry, at_ms(50)));
    sim.push(ended, "b");
    sim.push(ended, "a");
    let last = sim.push(other, "a");

    assert_eq!(ids(sim.schedule.remove_batch(ended)), [1, 2, 3]);
    assert_eq!(sim.schedule.in_flight(ended), 1);
    assert!(sim.schedule.remove_batch(ended).is_empty());
    assert_eq!(sim.start().1.id, last);
    sim.now = at_ms(50);
    assert!(matches!(sim.next(), StartDecision::Idle));
    sim.schedule.settle(in_flight);
    assert_eq!(sim.schedule.in_flight(ended), 0);
    assert!(sim.schedule.batches.len() == 1 && sim.schedule.delayed_jobs.is_empty());
}

#[test]
fn a_removed_batch_takes_no_more_even_when_its_number_is_used_again() {
    let mut sim = Sim::new(GateLimits::UNLIMITED);
    let ended = sim.batch(NO_LIMITS);
    sim.push(ended, "a");
    let (slot, job) = sim.start();
    assert!(sim.schedule.remove_batch(ended).is_empty());
    assert!(!sim.settle_again(slot, job, at_ms(0)));
    let next = sim.batch(NO_LIMITS);
    assert_eq!(next.index, ended.index);
    sim.push(ended, "a");
    assert!(matches!(sim.next(), StartDecision::Idle));
    assert_eq!(sim.refused, [(at_ms(0), 1)]);
    assert!(sim.schedule.remove_batch(ended).is_empty());
    assert!(!sim.schedule.is_host_limited(ended, sim.now));
    sim.push(next, "a");
    assert_eq!(sim.start().1.id, 2);
}

#[test]
fn a_removed_batch_does_not_take_what_was_refused_of_another() {
    let mut sim = Sim::new(GateLimits::UNLIMITED);
    let (late, ended) = (
        sim.batch(BatchLimits {
            deadline: Some(at_ms(0)),
            ..NO_LIMITS
        }),
        sim.batch(NO_LIMITS),
    );
    let id = sim.push(late, "a");
    assert!(sim.schedule.remove_batch(ended).is_empty());
    assert_eq!(ids(sim.schedule.take_rejected()), [id]);
}

#[test]
fn a_batch_removed_from_a_lane_hands_its_turn_on() {
    let mut sim = Sim::new(GateLimits::UNLIMITED);
    sim.limit_lane("a", at_most(1));
    let [first, called, last] = [0; 3].map(|_| sim.batch(NO_LIMITS));
    for batch in [first, called, last] {
        sim.push(batch, "a");
    }
    let (slot, _) = sim.start();
    assert!(matches!(sim.next(), StartDecision::Idle));
    sim.schedule.settle(slot);
    assert_eq!(sim.schedule.remove_batch(called).len(), 1);
    assert_eq!(sim.start().0.batch(), last);
}

#[test]
fn a_slot_of_a_removed_batch_still_counts_until_it_settles() {
    let mut sim = Sim::new(at_most(1));
    let (ended, other) = (sim.batch(NO_LIMITS), sim.batch(NO_LIMITS));
    sim.push(ended, "a");
    sim.push(other, "a");
    let (slot, _) = sim.start();
    sim.schedule.remove_batch(ended);
    assert!(matches!(sim.next(), StartDecision::Idle));
    sim.schedule.settle(slot);
    assert_eq!(sim.start().0.batch(), other);
}

/// Lanes with a pace are remembered until it has run out, and no longer.
#[test]
fn idle_lanes_are_forgotten() {
    let mut sim = Sim::new(GateLimits::UNLIMITED);
    let batch = sim.batch(BatchLimits {
        per_lane: rate(100, 1),
        ..NO_LIMITS
    });
    let mut most = 0;
    for lane in 0..200_000u64 {
        sim.now = at_ms(lane);
        sim.push(batch, &lane.to_string());
        let (slot, _) = sim.start();
        sim.schedule.settle(slot);
        let schedule = &sim.schedule;
        most = most.max(
            schedule.lanes.len()
                + schedule.queues.len()
                + schedule.eviction_candidates.len()
                + schedule.timers.len(),
        );
    }
    assert!(most <= 200, "{most} things remembered");
    assert_eq!(sim.schedule.lane_by_key.len(), sim.schedule.lanes.len());
    assert_eq!(
        sim.schedule.batches[batch.index].queues.len(),
        sim.schedule.queues.len()
    );
}

#[test]
fn a_lane_in_use_is_never_forgotten() {
    let mut sim = Sim::new(GateLimits::UNLIMITED);
    sim.limit_lane("kept", at_most(1));
    let batch = sim.batch(NO_LIMITS);
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
fn a_paused_lane_is_remembered_through_its_pause() {
    let mut sim = Sim::new(GateLimits::UNLIMITED);
    let batch = sim.batch(NO_LIMITS);
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

/// Each leaves a deadline, a retry and a paced job behind, all of them an hour away.
#[test]
fn many_small_batches_leave_nothing_behind() {
    let hour = 3_600 * SECOND;
    let mut sim = Sim::new(GateLimits::UNLIMITED);
    let crowd = sim.batch(NO_LIMITS);
    let mut lasting = Vec::new();
    for lane in 0..1_000 {
        sim.push(crowd, &lane.to_string());
        lasting.push(sim.start());
    }
    let mut most = 0;
    for turn in 0..50_000usize {
        let (pace, deadline) = (
            GateLimits {
                concurrency: 2,
                ..rate(1, 1)
            },
            sim.now.plus_nanos(hour),
        );
        let limits = BatchLimits {
            overall: pace,
            per_lane: pace,
            deadline: Some(deadline),
        };
        let batch = sim.batch(limits);
        sim.push_many(batch, &(turn % 1_000).to_string(), 2);
        let (slot, job) = sim.start();
        assert!(sim.settle_again(slot, job, sim.now.plus_nanos(hour / 2)));
        assert!(!matches!(sim.next(), StartDecision::Start(..)));
        assert_eq!(sim.schedule.remove_batch(batch).len(), 2);
        let (slot, job) = lasting.swap_remove(turn % lasting.len());
        sim.schedule.settle(slot);
        sim.push(crowd, &job.lane);
        lasting.push(sim.start());
        sim.now = sim.now.plus_nanos(MS);
        let schedule = &sim.schedule;
        most = most.max(
            schedule.timers.len() + schedule.deadlines.len() + schedule.eviction_candidates.len(),
        );
    }
    assert!(most <= 500, "{most} things remembered");
    assert!(
        sim.schedule.batches.len() == 1
            && sim.schedule.deadlines.is_empty()
            && sim.schedule.queues.len() <= 2_000
    );
}

/// So many of each kind that the dead are looked for again and again.
#[test]
fn no_timer_that_is_waited_for_is_swept_out() {
    let mut sim = Sim::new(GateLimits::UNLIMITED);
    let kinds = [(10, 0, 0), (0, 10, 0), (0, 0, 10), (0, 0, 0)];
    for turn in 0..400 {
        let (whole, per_lane, lane) = kinds[turn % 4];
        let paced = |rate_of: u64| {
            if rate_of > 0 {
                rate(rate_of, 1)
            } else {
                GateLimits::UNLIMITED
            }
        };
        let name = turn.to_string();
        sim.limit_lane(&name, paced(lane));
        let batch = sim.batch(BatchLimits {
            overall: paced(whole),
            per_lane: paced(per_lane),
            deadline: None,
        });
        sim.push_many(batch, &name, 3);
    }
    let mut tried = std::collections::HashSet::new();
    sim.run(|job| match tried.insert(job.id) {
        true => End::Again(MS, SECOND),
        false => End::Done(MS),
    });
    assert_eq!((sim.starts.len(), sim.schedule.queued_count), (2_400, 0));
}

#[test]
fn nothing_waits_when_all_has_ended() {
    let mut sim = Sim::new(at_most(3));
    sim.limit_lane("0", rate(1_000, 1));
    let batch = sim.batch(BatchLimits {
        per_lane: at_most(1),
        ..NO_LIMITS
    });
    for job in 0..100 {
        sim.push(batch, &(job % 7).to_string());
    }
    sim.run(|_| End::Done(MS));
    assert!(matches!(sim.next(), StartDecision::Idle));
    assert_eq!(
        (sim.in_flight(), sim.schedule.queued_count, sim.starts.len()),
        (0, 0, 100)
    );
    assert!(sim.schedule.remove_batch(batch).is_empty());
    assert!(sim.schedule.batches.is_empty() && sim.schedule.queues.is_empty());
}
