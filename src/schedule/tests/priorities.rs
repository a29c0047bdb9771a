//! Priorities.

use super::super::{BatchLimits, GateLimits, PriorityLevel, StartDecision};
use super::simulation::{End, MS, NO_LIMITS, Sim, at_most, at_ms};

use PriorityLevel::{High, Low, Normal};

fn one_at_once() -> (Sim, super::super::BatchId) {
    let mut sim = Sim::new(GateLimits::UNLIMITED);
    let batch = sim.batch(BatchLimits {
        overall: at_most(1),
        ..NO_LIMITS
    });
    (sim, batch)
}

#[test]
fn a_higher_one_starts_first_at_whatever_host_and_else_it_is_as_ever() {
    let (mut sim, batch) = one_at_once();
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
        sim.push_at(batch, lane, level);
    }
    sim.run(|_| End::Done(MS));
    assert_eq!(sim.ids(), [4, 6, 1, 2, 7, 3, 0, 5]);
}

#[test]
fn one_that_comes_later_overtakes_all_that_wait() {
    let (mut sim, batch) = one_at_once();
    sim.push_many(batch, "a", 3);
    sim.push_many(batch, "b", 3);
    let (slot, _) = sim.start();
    sim.push_at(batch, "b", High);
    sim.push_at(batch, "b", Low);
    sim.schedule.settle(slot);
    sim.run(|_| End::Done(MS));
    assert_eq!(sim.ids()[1], 6);
    assert_eq!(sim.ids().last(), Some(&7));
}

#[test]
fn what_comes_again_keeps_its_priority_and_goes_before_fresh_ones_of_the_same() {
    let (mut sim, batch) = one_at_once();
    sim.push_at(batch, "a", Low);
    let (slot, job) = sim.start();
    for level in [Low, Normal, High] {
        sim.push_at(batch, "a", level);
    }
    assert!(sim.settle_again(slot, job, at_ms(0)));
    sim.run(|_| End::Done(MS));
    assert_eq!(sim.ids(), [0, 3, 2, 0, 1]);
}

#[test]
fn one_that_may_not_start_keeps_no_lower_one_waiting() {
    let mut sim = Sim::new(GateLimits::UNLIMITED);
    sim.limit_lane("a", at_most(1));
    let batch = sim.batch(BatchLimits {
        overall: at_most(2),
        ..NO_LIMITS
    });
    for _ in 0..3 {
        sim.push_at(batch, "a", High);
    }
    sim.push_at(batch, "b", Low);
    let (started, _) = sim.start_all();
    let ids: Vec<_> = started.iter().map(|(_, job)| job.id).collect();
    assert_eq!(ids, [0, 3]);
}

#[test]
fn batches_take_turns_whatever_their_priorities() {
    let mut sim = Sim::new(at_most(1));
    let (one, other) = (sim.batch(NO_LIMITS), sim.batch(NO_LIMITS));
    for _ in 0..10 {
        sim.push_at(one, "a", High);
        sim.push_at(other, "b", Low);
    }
    sim.run(|_| End::Done(MS));
    let first: Vec<_> = sim.starts[..10].iter().map(|start| start.batch).collect();
    assert_eq!(first.iter().filter(|&&batch| batch == one).count(), 5);
}

#[test]
fn a_low_one_that_its_lane_called_up_waits_for_the_high_ones_and_the_lane_goes_on() {
    let mut sim = Sim::new(GateLimits::UNLIMITED);
    sim.limit_lane("a", at_most(1));
    let one = sim.batch(BatchLimits {
        overall: at_most(2),
        ..NO_LIMITS
    });
    let other = sim.batch(NO_LIMITS);
    sim.push(one, "a");
    let (slot, _) = sim.start();
    sim.push_at(one, "a", Low);
    sim.push(other, "a");
    assert!(matches!(sim.next(), StartDecision::Idle));
    sim.push_at(one, "b", High);
    sim.push_at(one, "c", High);
    sim.schedule.settle(slot);
    let (started, _) = sim.start_all();
    let mut ids: Vec<_> = started.iter().map(|(_, job)| job.id).collect();
    ids.sort_unstable();
    assert_eq!(
        ids,
        [2, 3, 4],
        "the batch is full, and its place at a goes to the next"
    );
}

#[test]
fn a_turn_that_was_overtaken_time_and_again_takes_no_more_room() {
    let (mut sim, batch) = one_at_once();
    sim.push_at(batch, "a", Low);
    for _ in 0..1_000 {
        sim.push_at(batch, "a", High);
        sim.push_at(batch, "a", Normal);
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
fn one_whose_reader_is_gone_gives_its_rank_away() {
    let (mut sim, batch) = one_at_once();
    let lost = sim.push_at(batch, "a", High);
    sim.push_at(batch, "a", Low);
    sim.push_at(batch, "b", Normal);
    lost.abandoned.set(true);
    sim.run(|_| End::Done(MS));
    assert_eq!(sim.ids(), [2, 1]);
}
