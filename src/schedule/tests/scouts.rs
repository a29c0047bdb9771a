//! A lane's first start is a scout.

use super::super::{BatchLimits, GateLimits, StartDecision};
use super::simulation::{End, MS, NO_LIMITS, Sim, at_ms};

const SCOUT: GateLimits = GateLimits {
    scout_timeout: 300 * MS,
    ..GateLimits::UNLIMITED
};

fn scouting(lanes: &[&str]) -> Sim {
    let mut sim = Sim::new(GateLimits::UNLIMITED);
    for lane in lanes {
        sim.limit_lane(lane, SCOUT);
    }
    sim
}

#[test]
fn the_first_of_a_lane_is_alone_until_it_reports() {
    let mut sim = scouting(&["a", "b"]);
    let (one, other) = (sim.batch(NO_LIMITS), sim.batch(NO_LIMITS));
    sim.push_many(one, "a", 3);
    sim.push_many(other, "a", 3);
    sim.push_many(one, "b", 2);
    let (mut started, next) = sim.start_all();
    assert_eq!(sim.ids(), [0, 6], "one of each lane");
    assert!(matches!(next, StartDecision::WaitUntil(at) if at == at_ms(300)));
    assert!(started.iter().all(|(slot, _)| slot.is_scout()));
    sim.now = at_ms(20);
    sim.schedule.finish_scout_or_probe(&mut started[0].0);
    assert!(!started[0].0.is_scout());
    let (rest, _) = sim.start_all();
    assert_eq!(rest.len(), 5, "all of its lane and none of the other");
    assert!(
        rest.iter()
            .all(|(slot, job)| !slot.is_scout() && &*job.lane == "a")
    );
}

#[test]
fn a_scout_that_ends_has_reported() {
    let mut sim = scouting(&["a"]);
    let batch = sim.batch(NO_LIMITS);
    sim.push_many(batch, "a", 4);
    sim.run(|_| End::Done(50 * MS));
    assert_eq!(
        sim.times(),
        [at_ms(0), at_ms(50), at_ms(50), at_ms(50)],
        "whatever it came to"
    );
}

#[test]
fn a_silent_scout_is_waited_for_so_long_and_no_longer() {
    let mut sim = scouting(&["a"]);
    let batch = sim.batch(NO_LIMITS);
    sim.push_many(batch, "a", 4);
    sim.run(|_| End::Done(5_000 * MS));
    assert_eq!(sim.times(), [at_ms(0), at_ms(300), at_ms(300), at_ms(300)]);
}

#[test]
fn a_batch_whose_scout_is_out_wants_no_other_hosts_until_it_is_late() {
    let mut sim = scouting(&["a"]);
    sim.limit_lane(
        "b",
        GateLimits {
            concurrency: 1,
            ..SCOUT
        },
    );
    let batch = sim.batch(NO_LIMITS);
    sim.push_many(batch, "a", 3);
    let (mut started, _) = sim.start_all();
    assert!(!sim.schedule.is_host_limited(batch, at_ms(299)));
    assert!(
        sim.schedule.is_host_limited(batch, at_ms(300)),
        "it is late, and those of other hosts need not wait for it"
    );
    sim.now = at_ms(20);
    sim.schedule.finish_scout_or_probe(&mut started[0].0);
    let _all_of_a = sim.start_all();
    sim.push_many(batch, "b", 3);
    let (mut started, _) = sim.start_all();
    assert!(!sim.schedule.is_host_limited(batch, sim.now));
    sim.schedule.finish_scout_or_probe(&mut started[0].0);
    let _none = sim.start_all();
    assert!(
        sim.schedule.is_host_limited(batch, sim.now),
        "the scout is back, and its host may have no more than it"
    );
}

#[test]
fn a_late_report_changes_nothing() {
    let mut sim = scouting(&["a"]);
    let batch = sim.batch(NO_LIMITS);
    sim.push_many(batch, "a", 3);
    let (mut scout, _) = sim.start();
    sim.now = at_ms(300);
    let (rest, _) = sim.start_all();
    assert_eq!(rest.len(), 2);
    sim.schedule.finish_scout_or_probe(&mut scout);
    sim.push(batch, "a");
    assert_eq!(sim.start_all().0.len(), 1);
}

#[test]
fn a_lane_sends_one_scout_in_its_life() {
    let mut sim = scouting(&["a"]);
    let batch = sim.batch(NO_LIMITS);
    sim.push(batch, "a");
    sim.run(|_| End::Done(MS));
    sim.push_many(batch, "a", 10);
    let (started, _) = sim.start_all();
    assert_eq!(started.len(), 10);
}

#[test]
fn a_deadline_before_the_scout_must_be_back_refuses_nobody_early() {
    let mut sim = scouting(&["a"]);
    let batch = sim.batch(BatchLimits {
        deadline: Some(at_ms(100)),
        ..NO_LIMITS
    });
    sim.push_many(batch, "a", 3);
    let (mut started, next) = sim.start_all();
    assert!(matches!(next, StartDecision::WaitUntil(at) if at == at_ms(100)));
    assert!(sim.refused.is_empty());
    sim.now = at_ms(90);
    sim.schedule.finish_scout_or_probe(&mut started[0].0);
    assert_eq!(sim.start_all().0.len(), 2);
}
