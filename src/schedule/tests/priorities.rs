//! Tests of priorities within a batch.

use super::super::{BatchId, BatchLimits, GateLimits, PriorityLevel, StartDecision};
use super::simulation::{MS, NO_LIMITS, Outcome, Simulation, at_ms, concurrency};

use PriorityLevel::{High, Low, Normal};

/// A simulation with a batch that starts one job at a time.
fn one_at_a_time() -> (Simulation, BatchId) {
    let mut sim = Simulation::new(GateLimits::UNLIMITED);
    let batch = sim.add_batch(BatchLimits {
        overall_limits: concurrency(1),
        ..NO_LIMITS
    });
    (sim, batch)
}

#[test]
fn higher_priority_starts_first_in_any_lane() {
    let (mut sim, batch) = one_at_a_time();
    for (lane, level) in [
        ("a", Low),
        ("a", Normal),
        ("b", Normal),
        ("a", Normal),
        ("b", High),
        ("c", Low),
        ("a", High),
        ("c", Normal),
    ] {
        sim.push_with_level(batch, lane, level);
    }
    sim.run(|_| Outcome::Done(MS));
    assert_eq!(sim.started_ids(), [4, 6, 1, 2, 7, 3, 0, 5]);
}

#[test]
fn later_job_of_high_priority_overtakes_queued_ones() {
    let (mut sim, batch) = one_at_a_time();
    sim.push_many(batch, "a", 3);
    sim.push_many(batch, "b", 3);
    let (slot, _) = sim.start();
    sim.push_with_level(batch, "b", High);
    sim.push_with_level(batch, "b", Low);
    sim.schedule.settle(slot);
    sim.run(|_| Outcome::Done(MS));
    assert_eq!(sim.started_ids()[1], 6);
    assert_eq!(sim.started_ids().last(), Some(&7));
}

#[test]
fn requeued_job_keeps_its_priority_and_precedes_fresh_ones_of_it() {
    let (mut sim, batch) = one_at_a_time();
    sim.push_with_level(batch, "a", Low);
    let (slot, job) = sim.start();
    for level in [Low, Normal, High] {
        sim.push_with_level(batch, "a", level);
    }
    assert!(sim.settle_and_requeue(slot, job, at_ms(0)));
    sim.run(|_| Outcome::Done(MS));
    assert_eq!(sim.started_ids(), [0, 3, 2, 0, 1]);
}

#[test]
fn blocked_job_of_high_priority_does_not_delay_lower_ones() {
    let mut sim = Simulation::new(GateLimits::UNLIMITED);
    sim.set_lane_limits("a", concurrency(1));
    let batch = sim.add_batch(BatchLimits {
        overall_limits: concurrency(2),
        ..NO_LIMITS
    });
    for _ in 0..3 {
        sim.push_with_level(batch, "a", High);
    }
    sim.push_with_level(batch, "b", Low);
    let (started, _) = sim.start_all();
    let ids: Vec<_> = started.iter().map(|(_, job)| job.id).collect();
    assert_eq!(ids, [0, 3]);
}

#[test]
fn priorities_do_not_matter_between_batches() {
    let mut sim = Simulation::new(concurrency(1));
    let (one, other) = (sim.add_batch(NO_LIMITS), sim.add_batch(NO_LIMITS));
    for _ in 0..10 {
        sim.push_with_level(one, "a", High);
        sim.push_with_level(other, "b", Low);
    }
    sim.run(|_| Outcome::Done(MS));
    let first: Vec<_> = sim.starts[..10].iter().map(|start| start.batch).collect();
    assert_eq!(first.iter().filter(|&&batch| batch == one).count(), 5);
}

#[test]
fn woken_job_of_low_priority_waits_and_its_lane_wakes_the_next() {
    let mut sim = Simulation::new(GateLimits::UNLIMITED);
    sim.set_lane_limits("a", concurrency(1));
    let one = sim.add_batch(BatchLimits {
        overall_limits: concurrency(2),
        ..NO_LIMITS
    });
    let other = sim.add_batch(NO_LIMITS);
    sim.push(one, "a");
    let (slot, _) = sim.start();
    sim.push_with_level(one, "a", Low);
    sim.push(other, "a");
    assert!(matches!(sim.next(), StartDecision::WaitForChange));
    sim.push_with_level(one, "b", High);
    sim.push_with_level(one, "c", High);
    sim.schedule.settle(slot);
    let (started, _) = sim.start_all();
    let mut ids: Vec<_> = started.iter().map(|(_, job)| job.id).collect();
    ids.sort_unstable();
    assert_eq!(
        ids,
        [2, 3, 4],
        "the batch is full, so the slot of lane a goes to the next"
    );
}

#[test]
fn stale_run_queue_entries_do_not_accumulate() {
    let (mut sim, batch) = one_at_a_time();
    sim.push_with_level(batch, "a", Low);
    for _ in 0..1_000 {
        sim.push_with_level(batch, "a", High);
        sim.push_with_level(batch, "a", Normal);
        for _ in 0..2 {
            let (slot, _) = sim.start();
            sim.schedule.settle(slot);
        }
    }
    let batch = sim.schedule.batches.iter().next().unwrap().1;
    assert!(batch.run_queue.entry_count() <= 6);
    assert_eq!(sim.start().1.level, Low);
}

#[test]
fn abandoned_job_loses_its_precedence() {
    let (mut sim, batch) = one_at_a_time();
    let abandoned = sim.push_with_level(batch, "a", High);
    sim.push_with_level(batch, "a", Low);
    sim.push_with_level(batch, "b", Normal);
    abandoned.abandoned.set(true);
    sim.run(|_| Outcome::Done(MS));
    assert_eq!(sim.started_ids(), [2, 1]);
}
