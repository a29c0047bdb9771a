//! Tests of the circuit breaker of a lane.

use std::num::NonZeroU32;

use super::super::{BreakerConfig, GateLimits, LaneLimits, RouteHealth, StartDecision};
use super::simulation::{NO_LIMITS, Outcome, SECOND, Simulation, at_ms, concurrency, rate};

const CONFIG: BreakerConfig = BreakerConfig {
    failure_threshold: NonZeroU32::new(5),
    cooldown_nanos: 15 * SECOND,
    max_wait_nanos: 15 * SECOND,
};

/// A simulation with a circuit breaker for lane `a`.
fn simulation(gate: GateLimits, breaker: BreakerConfig) -> Simulation {
    let mut sim = Simulation::new(GateLimits::UNLIMITED);
    sim.set_lane_limits(
        "a",
        LaneLimits {
            breaker,
            ..gate.into()
        },
    );
    sim
}

/// Starts `failures` jobs in lane `a` and records that no connection was established.
fn fail_connections(sim: &mut Simulation, failures: usize) {
    let batch = sim.add_batch(NO_LIMITS);
    sim.push_many(batch, "a", failures);
    for _ in 0..failures {
        let (slot, _) = sim.start();
        sim.record_health(&slot, RouteHealth::Unreachable);
        sim.schedule.settle(slot);
    }
}

#[test]
fn breaker_opens_at_five_consecutive_failures() {
    let mut sim = simulation(concurrency(1), CONFIG);
    fail_connections(&mut sim, 4);
    let batch = sim.add_batch(NO_LIMITS);
    sim.push_many(batch, "a", 3);
    for health in [RouteHealth::Healthy, RouteHealth::Unreachable] {
        let (slot, _) = sim.start();
        sim.record_health(&slot, health);
        sim.schedule.settle(slot);
    }
    assert!(
        matches!(sim.next(), StartDecision::Start(..)),
        "the count restarted"
    );

    let mut sim = simulation(concurrency(1), CONFIG);
    fail_connections(&mut sim, 5);
    let batch = sim.add_batch(NO_LIMITS);
    sim.push(batch, "a");
    assert!(matches!(sim.next(), StartDecision::WaitUntil(at) if at == at_ms(15_000)));
}

#[test]
fn dead_host_costs_five_failures_and_one_probe() {
    let mut sim = simulation(concurrency(1), CONFIG);
    let batch = sim.add_batch(NO_LIMITS);
    sim.push_many(batch, "a", 10_000);
    sim.push_many(batch, "b", 100);
    sim.run(|job| match &*job.lane {
        "a" => Outcome::Unreachable(SECOND),
        _ => Outcome::Done(SECOND),
    });
    let of_a: Vec<_> = sim
        .starts
        .iter()
        .filter(|start| &*start.lane == "a")
        .collect();
    assert_eq!(of_a.len(), 6);
    assert_eq!(
        of_a[5].at,
        at_ms(20_000),
        "after five seconds of failures and the cooldown"
    );
    assert_eq!(sim.unreachable.len(), 10_000 - 6);
    assert!(sim.unreachable.iter().all(|&(at, _)| at == at_ms(21_000)));
    assert_eq!(sim.now, at_ms(21_000));
}

#[test]
fn recovered_host_gets_all_queued_jobs_after_the_probe() {
    let mut sim = simulation(concurrency(1), CONFIG);
    let batch = sim.add_batch(NO_LIMITS);
    sim.push_many(batch, "a", 20);
    let mut start_count = 0;
    sim.run(|_| {
        start_count += 1;
        match start_count {
            1..6 => Outcome::Unreachable(1),
            _ => Outcome::Done(SECOND),
        }
    });
    assert!(sim.unreachable.is_empty());
    let times = sim.start_times();
    let probe = times[5];
    assert_eq!(probe.as_nanos() / SECOND, 15);
    assert!(
        times[6..].iter().all(|&at| at >= probe.plus_nanos(SECOND)),
        "the probe was alone"
    );
    assert_eq!(
        sim.now,
        probe.plus_nanos(15 * SECOND),
        "at a concurrency of one"
    );
}

#[test]
fn jobs_for_a_host_in_a_long_outage_end_at_once_except_the_probe() {
    let mut sim = simulation(GateLimits::UNLIMITED, CONFIG);
    fail_connections(&mut sim, 5);
    let batch = sim.add_batch(NO_LIMITS);
    sim.now = at_ms(15_000);
    sim.push(batch, "a");
    let (probe, _) = sim.start();
    assert!(probe.is_probe());
    sim.record_health(&probe, RouteHealth::Unreachable);
    sim.schedule.settle(probe);
    sim.now = at_ms(29_999);
    sim.push_many(batch, "a", 3);
    assert!(matches!(sim.next(), StartDecision::WaitForChange));
    assert_eq!(sim.unreachable.len(), 3);
    sim.now = at_ms(30_000);
    sim.push_many(batch, "a", 3);
    let (started, _) = sim.start_all();
    assert_eq!(
        (started.len(), sim.unreachable.len()),
        (1, 5),
        "only the probe starts"
    );
}

#[test]
fn jobs_are_rejected_at_once_if_max_wait_is_zero() {
    let no_wait = BreakerConfig {
        max_wait_nanos: 0,
        ..CONFIG
    };
    let mut sim = simulation(GateLimits::UNLIMITED, no_wait);
    let batch = sim.add_batch(NO_LIMITS);
    sim.push_many(batch, "a", 5);
    let (started, _) = sim.start_all();
    for (slot, _) in started {
        sim.push(batch, "a");
        sim.record_health(&slot, RouteHealth::Unreachable);
        sim.schedule.settle(slot);
    }
    assert!(matches!(sim.next(), StartDecision::WaitForChange));
    assert_eq!(sim.unreachable.len(), 5);
}

#[test]
fn failures_of_earlier_requests_do_not_prolong_the_outage() {
    let mut sim = simulation(GateLimits::UNLIMITED, CONFIG);
    let batch = sim.add_batch(NO_LIMITS);
    sim.push_many(batch, "a", 20);
    let (mut started, _) = sim.start_all();
    sim.push(batch, "a");
    for _ in 0..5 {
        let (slot, _) = started.remove(0);
        sim.record_health(&slot, RouteHealth::Unreachable);
        sim.schedule.settle(slot);
    }
    sim.now = at_ms(14_000);
    for (slot, _) in started.drain(..14) {
        sim.record_health(&slot, RouteHealth::Unreachable);
        sim.schedule.settle(slot);
    }
    assert!(matches!(sim.next(), StartDecision::WaitUntil(at) if at == at_ms(15_000)));
    sim.now = at_ms(15_000);
    let (probe, _) = sim.start();
    let (late, _) = started.remove(0);
    sim.record_health(&late, RouteHealth::Unreachable);
    sim.schedule.settle(late);
    sim.push(batch, "a");
    assert!(
        matches!(sim.next(), StartDecision::WaitForChange),
        "the probe is still in flight"
    );
    sim.record_health(&probe, RouteHealth::Healthy);
    sim.schedule.settle(probe);
    assert!(matches!(sim.next(), StartDecision::Start(..)));
}

#[test]
fn response_to_an_earlier_request_closes_the_breaker_early() {
    let mut sim = simulation(GateLimits::UNLIMITED, CONFIG);
    let batch = sim.add_batch(NO_LIMITS);
    sim.push_many(batch, "a", 7);
    let (mut started, _) = sim.start_all();
    sim.push_many(batch, "a", 10);
    for _ in 0..5 {
        let (slot, _) = started.remove(0);
        sim.record_health(&slot, RouteHealth::Unreachable);
        sim.schedule.settle(slot);
    }
    assert!(matches!(sim.next(), StartDecision::WaitUntil(_)));
    let (overloaded, _) = started.remove(0);
    sim.record_health(&overloaded, RouteHealth::Overloaded);
    sim.schedule.settle(overloaded);
    assert!(
        matches!(sim.next(), StartDecision::WaitUntil(_)),
        "a failure after connecting does not close it"
    );
    let (healthy, _) = started.remove(0);
    sim.record_health(&healthy, RouteHealth::Healthy);
    sim.schedule.settle(healthy);
    assert_eq!(sim.start_all().0.len(), 10);
}

#[test]
fn answered_probe_lets_others_start_before_it_settles() {
    let mut sim = simulation(GateLimits::UNLIMITED, CONFIG);
    fail_connections(&mut sim, 5);
    sim.now = at_ms(15_000);
    let batch = sim.add_batch(NO_LIMITS);
    sim.push_many(batch, "a", 4);
    let (mut started, _) = sim.start_all();
    assert_eq!(started.len(), 1);
    sim.schedule.end_wait_for_scout_or_probe(&mut started[0].0);
    assert_eq!(sim.start_all().0.len(), 3, "while the probe reads its body");
}

#[test]
fn probe_without_an_outcome_is_followed_by_another() {
    let mut sim = simulation(GateLimits::UNLIMITED, CONFIG);
    fail_connections(&mut sim, 5);
    sim.now = at_ms(15_000);
    let (dropped, batch) = (sim.add_batch(NO_LIMITS), sim.add_batch(NO_LIMITS));
    sim.push(dropped, "a");
    sim.push_many(batch, "a", 2);
    let (cancelled, _) = sim.start();
    assert!(cancelled.is_probe() && cancelled.batch_id() == dropped);
    sim.schedule.remove_batch(dropped);
    assert!(matches!(sim.next(), StartDecision::WaitForChange));
    sim.schedule.settle(cancelled);
    let (again, next) = sim.start_all();
    assert!(again.len() == 1 && again[0].0.is_probe());
    assert!(matches!(next, StartDecision::WaitForChange));
}

#[test]
fn jobs_whose_deadline_passes_before_the_probe_end_at_once_and_hold_no_slot() {
    let mut sim = simulation(GateLimits::UNLIMITED, CONFIG);
    fail_connections(&mut sim, 5);
    let batch = sim.add_batch(super::super::BatchLimits {
        overall_limits: concurrency(1),
        deadline: Some(at_ms(10_000)),
        ..NO_LIMITS
    });
    sim.push_many(batch, "a", 5);
    sim.push_many(batch, "b", 5);
    sim.run(|_| Outcome::Done(SECOND));
    assert_eq!(sim.starts_of(batch).count(), 5, "those of lane b");
    let at_once: Vec<_> = (5..10).map(|id| (at_ms(0), id)).collect();
    assert_eq!(sim.unreachable, at_once);
    assert!(sim.rejected.is_empty());
}

#[test]
fn deadline_after_the_probe_rejects_nothing() {
    let mut sim = simulation(GateLimits::UNLIMITED, CONFIG);
    fail_connections(&mut sim, 5);
    let batch = sim.add_batch(with_deadline(15_001));
    sim.push_many(batch, "a", 5);
    sim.run(|_| Outcome::Done(SECOND));
    assert_eq!((sim.unreachable.len(), sim.rejected.len()), (0, 4));
    assert_eq!(sim.starts_of(batch).count(), 1, "the probe");
}

fn with_deadline(ms: u64) -> super::super::BatchLimits {
    super::super::BatchLimits {
        deadline: Some(at_ms(ms)),
        ..NO_LIMITS
    }
}

/// A request in flight may get a response, which closes the breaker.
#[test]
fn jobs_wait_for_their_deadline_while_a_request_could_close_the_breaker() {
    let mut sim = simulation(GateLimits::UNLIMITED, CONFIG);
    let (patient, hasty) = (sim.add_batch(NO_LIMITS), sim.add_batch(with_deadline(200)));
    sim.push_many(patient, "a", 6);
    let (mut started, _) = sim.start_all();
    for (slot, _) in started.drain(..5) {
        sim.record_health(&slot, RouteHealth::Unreachable);
        sim.schedule.settle(slot);
    }
    sim.push(patient, "a");
    sim.push_many(hasty, "a", 2);
    assert!(matches!(sim.next(), StartDecision::WaitUntil(at) if at == at_ms(200)));
    sim.now = at_ms(50);
    let (slot, _) = started.remove(0);
    sim.record_health(&slot, RouteHealth::Unreachable);
    sim.schedule.settle(slot);
    assert!(matches!(sim.next(), StartDecision::WaitUntil(_)));
    assert_eq!(sim.unreachable, [(at_ms(50), 7), (at_ms(50), 8)]);
    assert!(sim.rejected.is_empty());
}

#[test]
fn failed_probe_ends_jobs_whose_deadline_passes_before_the_next_one() {
    let config = BreakerConfig {
        max_wait_nanos: 60 * SECOND,
        ..CONFIG
    };
    let mut sim = simulation(GateLimits::UNLIMITED, config);
    fail_connections(&mut sim, 5);
    let (patient, hasty) = (
        sim.add_batch(NO_LIMITS),
        sim.add_batch(with_deadline(20_000)),
    );
    sim.push_many(patient, "a", 2);
    sim.push_many(hasty, "a", 2);
    sim.now = at_ms(15_000);
    let (probe, _) = sim.start();
    assert!(probe.is_probe() && probe.batch_id() == patient);
    assert!(matches!(sim.next(), StartDecision::WaitUntil(at) if at == at_ms(20_000)));
    sim.now = at_ms(16_000);
    sim.record_health(&probe, RouteHealth::Unreachable);
    sim.schedule.settle(probe);
    assert!(matches!(sim.next(), StartDecision::WaitUntil(_)));
    let ended: Vec<_> = sim.unreachable.iter().map(|&(at, _)| at).collect();
    assert_eq!(ended, [at_ms(16_000); 2]);
}

#[test]
fn jobs_of_a_thousand_batches_for_a_dead_host_end_at_once() {
    let mut sim = simulation(
        rate(1, 1),
        BreakerConfig {
            max_wait_nanos: 0,
            ..CONFIG
        },
    );
    let batches: Vec<_> = (0..1_000).map(|_| sim.add_batch(NO_LIMITS)).collect();
    for &batch in &batches {
        sim.push_many(batch, "a", 3);
    }
    sim.run(|_| Outcome::Unreachable(1));
    assert_eq!(sim.starts.len(), 5);
    assert_eq!(sim.unreachable.len(), 3_000 - 5);
    let last = sim.unreachable.last().unwrap().0;
    assert_eq!(last.as_nanos() / SECOND, 4, "at the fifth failure");
}

#[test]
fn lane_is_kept_during_an_outage_and_evicted_long_after() {
    let mut sim = simulation(GateLimits::UNLIMITED, CONFIG);
    fail_connections(&mut sim, 5);
    let batch = sim.add_batch(NO_LIMITS);
    let use_other_lanes = |sim: &mut Simulation, prefix: &str| {
        for lane in 0..50 {
            sim.push(batch, &format!("{prefix}{lane}"));
            while let StartDecision::Start(slot, _) = sim.next() {
                sim.schedule.settle(slot);
            }
        }
    };
    sim.now = at_ms(29_000);
    use_other_lanes(&mut sim, "x");
    assert!(sim.schedule.lane_by_key.contains_key("a"));
    sim.now = at_ms(31_000);
    use_other_lanes(&mut sim, "y");
    assert!(!sim.schedule.lane_by_key.contains_key("a"));
}
