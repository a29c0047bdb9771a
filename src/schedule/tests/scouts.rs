//! Tests of the scout, the first request on a route, for which the other requests on the route
//! wait.

use super::super::{BatchLimits, BreakerConfig, GateLimits, LaneLimits, StartDecision};
use super::simulation::{MS, NO_LIMITS, Outcome, Simulation, at_ms, concurrency};

const SCOUT: LaneLimits = LaneLimits {
    gate_limits: GateLimits::UNLIMITED,
    breaker: BreakerConfig::DISABLED,
    retry_budget: None,
    scout_timeout_nanos: 300 * MS,
    budgets: None,
};

/// A simulation in which the first request to each of `lanes` is a scout.
fn simulation(lanes: &[&str]) -> Simulation {
    let mut sim = Simulation::new(GateLimits::UNLIMITED);
    for lane in lanes {
        sim.set_lane_limits(lane, SCOUT);
    }
    sim
}

#[test]
fn scout_is_alone_in_its_lane_until_it_finishes() {
    let mut sim = simulation(&["a", "b"]);
    let (one, other) = (sim.add_batch(NO_LIMITS), sim.add_batch(NO_LIMITS));
    sim.push_many(one, "a", 3);
    sim.push_many(other, "a", 3);
    sim.push_many(one, "b", 2);
    let (mut started, next) = sim.start_all();
    assert_eq!(sim.started_ids(), [0, 6], "one of each lane");
    assert!(matches!(next, StartDecision::WaitUntil(at) if at == at_ms(300)));
    assert!(started.iter().all(|(slot, _)| slot.is_scout()));
    sim.now = at_ms(20);
    sim.schedule.end_wait_for_scout_or_probe(&mut started[0].0);
    assert!(!started[0].0.is_scout());
    let (rest, _) = sim.start_all();
    assert_eq!(rest.len(), 5, "all of its lane and none of the other lane");
    assert!(
        rest.iter()
            .all(|(slot, job)| !slot.is_scout() && &*job.lane == "a")
    );
}

#[test]
fn scout_that_is_not_sent_is_replaced_by_the_next_request() {
    let mut sim = simulation(&["a"]);
    let batch = sim.add_batch(NO_LIMITS);
    sim.push_many(batch, "a", 3);
    let (mut started, _) = sim.start_all();
    let (mut slot, job) = started.remove(0);
    let now = sim.now;
    sim.schedule.undo_unsent_start(&mut slot);
    sim.schedule.requeue(&slot, job, now, now).unwrap();
    assert!(sim.schedule.hold_lane_for_name_lookup("a"));
    sim.schedule.settle(slot);
    assert!(sim.start_all().0.is_empty(), "the lane is held");
    sim.schedule.release_lane_for_name_lookup("a");
    let (started, _) = sim.start_all();
    assert_eq!(started.len(), 1, "the others wait for the scout again");
    assert!(started[0].0.is_scout());
}

#[test]
fn scout_that_is_not_sent_is_replaced_by_a_request_of_another_batch() {
    let mut sim = simulation(&["a"]);
    let (one, other) = (sim.add_batch(NO_LIMITS), sim.add_batch(NO_LIMITS));
    sim.push(one, "a");
    let (mut slot, _) = sim.start();
    sim.push(other, "a");
    assert!(sim.start_all().0.is_empty(), "the scout is alone");
    sim.schedule.undo_unsent_start(&mut slot);
    sim.schedule.settle(slot);
    let (slot, _) = sim.start();
    assert!(slot.is_scout() && slot.batch_id() == other);
}

#[test]
fn settled_scout_counts_as_finished() {
    let mut sim = simulation(&["a"]);
    let batch = sim.add_batch(NO_LIMITS);
    sim.push_many(batch, "a", 4);
    sim.run(|_| Outcome::Done(50 * MS));
    assert_eq!(
        sim.start_times(),
        [at_ms(0), at_ms(50), at_ms(50), at_ms(50)],
        "regardless of its outcome"
    );
}

#[test]
fn others_wait_for_a_scout_no_longer_than_its_timeout() {
    let mut sim = simulation(&["a"]);
    let batch = sim.add_batch(NO_LIMITS);
    sim.push_many(batch, "a", 4);
    sim.run(|_| Outcome::Done(5_000 * MS));
    assert_eq!(
        sim.start_times(),
        [at_ms(0), at_ms(300), at_ms(300), at_ms(300)]
    );
}

#[test]
fn batch_is_not_host_limited_while_its_scout_is_alone() {
    let mut sim = simulation(&["a"]);
    sim.set_lane_limits(
        "b",
        LaneLimits {
            gate_limits: concurrency(1),
            ..SCOUT
        },
    );
    let batch = sim.add_batch(NO_LIMITS);
    sim.push_many(batch, "a", 3);
    let (mut started, _) = sim.start_all();
    assert!(
        !sim.schedule
            .is_batch_blocked_only_by_hosts(batch, at_ms(299))
    );
    assert!(
        sim.schedule
            .is_batch_blocked_only_by_hosts(batch, at_ms(300)),
        "the scout has timed out"
    );
    sim.now = at_ms(20);
    sim.schedule.end_wait_for_scout_or_probe(&mut started[0].0);
    let _all_of_a = sim.start_all();
    sim.push_many(batch, "b", 3);
    let (mut started, _) = sim.start_all();
    assert!(!sim.schedule.is_batch_blocked_only_by_hosts(batch, sim.now));
    sim.schedule.end_wait_for_scout_or_probe(&mut started[0].0);
    let _none = sim.start_all();
    assert!(
        sim.schedule.is_batch_blocked_only_by_hosts(batch, sim.now),
        "the scout has finished, and its lane allows one request"
    );
}

#[test]
fn scout_that_finishes_after_its_timeout_changes_nothing() {
    let mut sim = simulation(&["a"]);
    let batch = sim.add_batch(NO_LIMITS);
    sim.push_many(batch, "a", 3);
    let (mut scout, _) = sim.start();
    sim.now = at_ms(300);
    let (rest, _) = sim.start_all();
    assert_eq!(rest.len(), 2);
    sim.schedule.end_wait_for_scout_or_probe(&mut scout);
    sim.push(batch, "a");
    assert_eq!(sim.start_all().0.len(), 1);
}

#[test]
fn lane_sends_only_one_scout() {
    let mut sim = simulation(&["a"]);
    let batch = sim.add_batch(NO_LIMITS);
    sim.push(batch, "a");
    sim.run(|_| Outcome::Done(MS));
    sim.push_many(batch, "a", 10);
    let (started, _) = sim.start_all();
    assert_eq!(started.len(), 10);
}

#[test]
fn deadline_before_the_scout_timeout_rejects_nothing_early() {
    let mut sim = simulation(&["a"]);
    let batch = sim.add_batch(BatchLimits {
        deadline: Some(at_ms(100)),
        ..NO_LIMITS
    });
    sim.push_many(batch, "a", 3);
    let (mut started, next) = sim.start_all();
    assert!(matches!(next, StartDecision::WaitUntil(at) if at == at_ms(100)));
    assert!(sim.rejected.is_empty());
    sim.now = at_ms(90);
    sim.schedule.end_wait_for_scout_or_probe(&mut started[0].0);
    assert_eq!(sim.start_all().0.len(), 2);
}
