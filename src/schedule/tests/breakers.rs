//! A host that cannot be reached.

use std::num::NonZeroU32;

use super::super::{BreakerConfig, GateLimits, Health, LaneLimits, StartDecision};
use super::simulation::{End, NO_LIMITS, SECOND, Sim, at_most, at_ms, rate};

const TRIP: BreakerConfig = BreakerConfig {
    failure_threshold: NonZeroU32::new(5),
    cooldown: 15 * SECOND,
    max_wait: 15 * SECOND,
};

fn tripping(gate: GateLimits, trip: BreakerConfig) -> Sim {
    let mut sim = Sim::new(GateLimits::UNLIMITED);
    sim.limit_lane(
        "a",
        LaneLimits {
            breaker: trip,
            ..gate.into()
        },
    );
    sim
}

/// Opens the breaker of lane `a` now, by so many failures.
fn fail(sim: &mut Sim, failures: usize) {
    let batch = sim.batch(NO_LIMITS);
    sim.push_many(batch, "a", failures);
    for _ in 0..failures {
        let (slot, _) = sim.start();
        sim.learn(&slot, Health::Unreachable);
        sim.schedule.settle(slot);
    }
}

#[test]
fn five_failures_in_a_row_and_no_fewer_open_it() {
    let mut sim = tripping(at_most(1), TRIP);
    fail(&mut sim, 4);
    let batch = sim.batch(NO_LIMITS);
    sim.push_many(batch, "a", 3);
    for health in [Health::Healthy, Health::Unreachable] {
        let (slot, _) = sim.start();
        sim.learn(&slot, health);
        sim.schedule.settle(slot);
    }
    assert!(
        matches!(sim.next(), StartDecision::Start(..)),
        "the count began anew"
    );

    let mut sim = tripping(at_most(1), TRIP);
    fail(&mut sim, 5);
    let batch = sim.batch(NO_LIMITS);
    sim.push(batch, "a");
    assert!(matches!(sim.next(), StartDecision::WaitUntil(at) if at == at_ms(15_000)));
}

#[test]
fn a_dead_host_costs_five_failures_and_one_probe() {
    let mut sim = tripping(at_most(1), TRIP);
    let batch = sim.batch(NO_LIMITS);
    sim.push_many(batch, "a", 10_000);
    sim.push_many(batch, "b", 100);
    sim.run(|job| match &*job.lane {
        "a" => End::Unreachable(SECOND),
        _ => End::Done(SECOND),
    });
    let of_a: Vec<_> = sim
        .starts
        .iter()
        .filter(|start| &*start.lane == "a")
        .collect();
    assert_eq!(of_a.len(), 6);
    assert_eq!(of_a[5].at, at_ms(20_000), "five seconds, and the cooldown");
    assert_eq!(sim.unreachable.len(), 10_000 - 6);
    assert!(sim.unreachable.iter().all(|&(at, _)| at == at_ms(21_000)));
    assert_eq!(sim.now, at_ms(21_000));
}

#[test]
fn a_host_that_is_back_for_its_probe_gets_all_that_waited() {
    let mut sim = tripping(at_most(1), TRIP);
    let batch = sim.batch(NO_LIMITS);
    sim.push_many(batch, "a", 20);
    let mut asked = 0;
    sim.run(|_| {
        asked += 1;
        match asked {
            1..6 => End::Unreachable(1),
            _ => End::Done(SECOND),
        }
    });
    assert!(sim.unreachable.is_empty());
    let times = sim.times();
    let probe = times[5];
    assert_eq!(probe.as_nanos() / SECOND, 15);
    assert!(
        times[6..].iter().all(|&at| at >= probe.plus_nanos(SECOND)),
        "it was alone"
    );
    assert_eq!(
        sim.now,
        probe.plus_nanos(15 * SECOND),
        "one after the other"
    );
}

#[test]
fn what_comes_to_a_host_that_is_down_for_long_ends_at_once_but_for_the_probe() {
    let mut sim = tripping(GateLimits::UNLIMITED, TRIP);
    fail(&mut sim, 5);
    let batch = sim.batch(NO_LIMITS);
    sim.now = at_ms(15_000);
    sim.push(batch, "a");
    let (probe, _) = sim.start();
    assert!(probe.is_probe());
    sim.learn(&probe, Health::Unreachable);
    sim.schedule.settle(probe);
    sim.now = at_ms(29_999);
    sim.push_many(batch, "a", 3);
    assert!(matches!(sim.next(), StartDecision::Idle));
    assert_eq!(sim.unreachable.len(), 3);
    sim.now = at_ms(30_000);
    sim.push_many(batch, "a", 3);
    let (started, _) = sim.start_all();
    assert_eq!(
        (started.len(), sim.unreachable.len()),
        (1, 5),
        "one asks for all"
    );
}

#[test]
fn who_never_waits_is_refused_from_the_first_failure_that_opens_it() {
    let hasty = BreakerConfig {
        max_wait: 0,
        ..TRIP
    };
    let mut sim = tripping(GateLimits::UNLIMITED, hasty);
    let batch = sim.batch(NO_LIMITS);
    sim.push_many(batch, "a", 5);
    let (started, _) = sim.start_all();
    for (slot, _) in started {
        sim.push(batch, "a");
        sim.learn(&slot, Health::Unreachable);
        sim.schedule.settle(slot);
    }
    assert!(matches!(sim.next(), StartDecision::Idle));
    assert_eq!(sim.unreachable.len(), 5);
}

#[test]
fn what_was_on_the_wire_when_it_opened_does_not_keep_it_open() {
    let mut sim = tripping(GateLimits::UNLIMITED, TRIP);
    let batch = sim.batch(NO_LIMITS);
    sim.push_many(batch, "a", 20);
    let (mut started, _) = sim.start_all();
    sim.push(batch, "a");
    for _ in 0..5 {
        let (slot, _) = started.remove(0);
        sim.learn(&slot, Health::Unreachable);
        sim.schedule.settle(slot);
    }
    sim.now = at_ms(14_000);
    for (slot, _) in started.drain(..14) {
        sim.learn(&slot, Health::Unreachable);
        sim.schedule.settle(slot);
    }
    assert!(matches!(sim.next(), StartDecision::WaitUntil(at) if at == at_ms(15_000)));
    sim.now = at_ms(15_000);
    let (probe, _) = sim.start();
    let (late, _) = started.remove(0);
    sim.learn(&late, Health::Unreachable);
    sim.schedule.settle(late);
    sim.push(batch, "a");
    assert!(
        matches!(sim.next(), StartDecision::Idle),
        "the probe is still out"
    );
    sim.learn(&probe, Health::Healthy);
    sim.schedule.settle(probe);
    assert!(matches!(sim.next(), StartDecision::Start(..)));
}

#[test]
fn an_answer_to_what_was_on_the_wire_closes_it_early() {
    let mut sim = tripping(GateLimits::UNLIMITED, TRIP);
    let batch = sim.batch(NO_LIMITS);
    sim.push_many(batch, "a", 7);
    let (mut started, _) = sim.start_all();
    sim.push_many(batch, "a", 10);
    for _ in 0..5 {
        let (slot, _) = started.remove(0);
        sim.learn(&slot, Health::Unreachable);
        sim.schedule.settle(slot);
    }
    assert!(matches!(sim.next(), StartDecision::WaitUntil(_)));
    let (strained, _) = started.remove(0);
    sim.learn(&strained, Health::Overloaded);
    sim.schedule.settle(strained);
    assert!(
        matches!(sim.next(), StartDecision::WaitUntil(_)),
        "a lost answer is none"
    );
    let (well, _) = started.remove(0);
    sim.learn(&well, Health::Healthy);
    sim.schedule.settle(well);
    assert_eq!(sim.start_all().0.len(), 10);
}

#[test]
fn a_probe_that_is_answered_is_waited_for_no_longer() {
    let mut sim = tripping(GateLimits::UNLIMITED, TRIP);
    fail(&mut sim, 5);
    sim.now = at_ms(15_000);
    let batch = sim.batch(NO_LIMITS);
    sim.push_many(batch, "a", 4);
    let (mut started, _) = sim.start_all();
    assert_eq!(started.len(), 1);
    sim.schedule.finish_scout_or_probe(&mut started[0].0);
    assert_eq!(sim.start_all().0.len(), 3, "while the first reads its body");
}

#[test]
fn a_probe_that_says_nothing_is_followed_by_another() {
    let mut sim = tripping(GateLimits::UNLIMITED, TRIP);
    fail(&mut sim, 5);
    sim.now = at_ms(15_000);
    let (dropped, batch) = (sim.batch(NO_LIMITS), sim.batch(NO_LIMITS));
    sim.push(dropped, "a");
    sim.push_many(batch, "a", 2);
    let (cancelled, _) = sim.start();
    assert!(cancelled.is_probe() && cancelled.batch() == dropped);
    sim.schedule.remove_batch(dropped);
    assert!(matches!(sim.next(), StartDecision::Idle));
    sim.schedule.settle(cancelled);
    let (again, next) = sim.start_all();
    assert!(again.len() == 1 && again[0].0.is_probe());
    assert!(matches!(next, StartDecision::Idle));
}

#[test]
fn what_waits_for_a_dead_host_holds_nothing_and_heeds_its_deadline() {
    let mut sim = tripping(GateLimits::UNLIMITED, TRIP);
    fail(&mut sim, 5);
    let batch = sim.batch(super::super::BatchLimits {
        overall: at_most(1),
        deadline: Some(at_ms(10_000)),
        ..NO_LIMITS
    });
    sim.push_many(batch, "a", 5);
    sim.push_many(batch, "b", 5);
    sim.run(|_| End::Done(SECOND));
    assert_eq!(sim.starts_of(batch).count(), 5, "those of b");
    assert_eq!(sim.refused.len(), 5);
    assert!(sim.refused.iter().all(|&(at, _)| at == at_ms(10_000)));
}

#[test]
fn the_line_of_a_thousand_batches_before_a_dead_host_is_answered_at_once() {
    let mut sim = tripping(
        rate(1, 1),
        BreakerConfig {
            max_wait: 0,
            ..TRIP
        },
    );
    let batches: Vec<_> = (0..1_000).map(|_| sim.batch(NO_LIMITS)).collect();
    for &batch in &batches {
        sim.push_many(batch, "a", 3);
    }
    sim.run(|_| End::Unreachable(1));
    assert_eq!(sim.starts.len(), 5);
    assert_eq!(sim.unreachable.len(), 3_000 - 5);
    let last = sim.unreachable.last().unwrap().0;
    assert_eq!(last.as_nanos() / SECOND, 4, "with the fifth");
}

#[test]
fn a_lane_that_is_down_is_not_forgotten_and_one_that_was_long_ago_is() {
    let mut sim = tripping(GateLimits::UNLIMITED, TRIP);
    fail(&mut sim, 5);
    let batch = sim.batch(NO_LIMITS);
    let crowd = |sim: &mut Sim, name: &str| {
        for lane in 0..50 {
            sim.push(batch, &format!("{name}{lane}"));
            while let StartDecision::Start(slot, _) = sim.next() {
                sim.schedule.settle(slot);
            }
        }
    };
    sim.now = at_ms(29_000);
    crowd(&mut sim, "x");
    assert!(sim.schedule.lane_by_key.contains_key("a"));
    sim.now = at_ms(31_000);
    crowd(&mut sim, "y");
    assert!(!sim.schedule.lane_by_key.contains_key("a"));
}
