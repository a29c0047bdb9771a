//! What waits for the end of its batch.

use super::super::{BatchLimits, GateLimits, StartDecision};
use super::simulation::{End, MS, NO_LIMITS, SECOND, Sim, at_most, at_ms};

#[test]
fn it_begins_when_nothing_else_is_left_and_not_before() {
    let mut sim = Sim::new(GateLimits::UNLIMITED);
    let (batch, other) = (sim.batch(NO_LIMITS), sim.batch(NO_LIMITS));
    sim.push_many(batch, "a", 3);
    sim.push(other, "a");
    let (mut started, _) = sim.start_all();
    let mut take = |id| {
        let place = started.iter().position(|(_, job)| job.id == id);
        started.swap_remove(place.unwrap())
    };
    let (slot, job) = take(0);
    assert!(sim.settle_last(slot, job));
    assert!(
        matches!(sim.next(), StartDecision::Idle),
        "two are on the wire"
    );
    let (slot, job) = take(1);
    assert!(sim.settle_again(slot, job, at_ms(5)));
    let (slot, job) = take(2);
    assert!(sim.settle_last(slot, job));
    assert!(
        matches!(sim.next(), StartDecision::WaitUntil(at) if at == at_ms(5)),
        "one backs off"
    );
    sim.now = at_ms(5);
    let (slot, job) = sim.start();
    assert_eq!(job.id, 1);
    assert!(matches!(sim.next(), StartDecision::Idle));
    sim.schedule.settle(slot);
    let (last, next) = sim.start_all();
    let ids: Vec<_> = last.iter().map(|(_, job)| job.id).collect();
    assert_eq!(ids, [0, 2], "though another batch is on the wire");
    assert!(matches!(next, StartDecision::Idle));
}

#[test]
fn it_waits_while_more_is_to_come() {
    let mut sim = Sim::new(GateLimits::UNLIMITED);
    let batch = sim.batch(NO_LIMITS);
    assert!(!sim.schedule.set_expects_more(batch, true));
    sim.push(batch, "a");
    let (slot, job) = sim.start();
    assert!(sim.settle_last(slot, job));
    assert!(matches!(sim.next(), StartDecision::Idle));
    assert!(
        sim.schedule.is_host_limited(batch, sim.now),
        "its reader may hand in more"
    );
    sim.push(batch, "b");
    assert!(!sim.schedule.set_expects_more(batch, false), "one is left");
    let (slot, job) = sim.start();
    assert_eq!(job.id, 1);
    sim.schedule.settle(slot);
    assert_eq!(sim.start().1.id, 0);
}

#[test]
fn it_keeps_the_limits() {
    let mut sim = Sim::new(GateLimits::UNLIMITED);
    let batch = sim.batch(BatchLimits {
        overall: at_most(2),
        ..NO_LIMITS
    });
    sim.push_many(batch, "a", 6);
    for _ in 0..6 {
        let (slot, job) = sim.start();
        assert!(sim.settle_last(slot, job));
    }
    sim.run(|_| End::Done(SECOND));
    assert_eq!(sim.starts.len(), 12);
    assert_eq!((sim.most_in_flight, sim.now), (2, at_ms(3_000)));
}

#[test]
fn a_deadline_or_a_removal_gives_them_back() {
    let mut sim = Sim::new(GateLimits::UNLIMITED);
    let batch = sim.batch(BatchLimits {
        deadline: Some(at_ms(100)),
        ..NO_LIMITS
    });
    sim.schedule.set_expects_more(batch, true);
    sim.push_many(batch, "a", 3);
    let (started, _) = sim.start_all();
    for (slot, job) in started {
        assert!(sim.settle_last(slot, job));
    }
    assert!(matches!(sim.next(), StartDecision::WaitUntil(at) if at == at_ms(100)));
    sim.now = at_ms(100);
    assert!(matches!(sim.next(), StartDecision::Idle));
    assert_eq!(sim.refused.len(), 3);
    assert!(!sim.schedule.set_expects_more(batch, false));

    let batch = sim.batch(NO_LIMITS);
    sim.schedule.set_expects_more(batch, true);
    sim.push(batch, "a");
    let (slot, job) = sim.start();
    assert!(sim.settle_last(slot, job));
    assert_eq!(sim.schedule.remove_batch(batch).len(), 1);
    assert_eq!(sim.schedule.delayed_jobs.len(), 0);
}

#[test]
fn one_that_lost_its_reader_keeps_no_round_from_beginning() {
    let mut sim = Sim::new(GateLimits::UNLIMITED);
    let batch = sim.batch(BatchLimits {
        overall: at_most(1),
        ..NO_LIMITS
    });
    sim.push(batch, "a");
    let (slot, job) = sim.start();
    let lost = sim.push_job(batch, "a");
    assert!(sim.settle_last(slot, job));
    lost.abandoned.set(true);
    sim.now = sim.now.plus_nanos(MS);
    assert_eq!(sim.start().1.id, 0);
}
