//! Tests of the final round of a batch: failed jobs start once more after all other jobs.

use super::super::{BatchLimits, GateLimits, StartDecision};
use super::simulation::{MS, NO_LIMITS, Outcome, SECOND, Simulation, at_ms, concurrency};

#[test]
fn final_round_begins_when_nothing_else_of_the_batch_is_left() {
    let mut sim = Simulation::new(GateLimits::UNLIMITED);
    let (batch, other) = (sim.add_batch(NO_LIMITS), sim.add_batch(NO_LIMITS));
    sim.push_many(batch, "a", 3);
    sim.push(other, "a");
    let (mut started, _) = sim.start_all();
    let mut take = |id| {
        let index = started.iter().position(|(_, job)| job.id == id);
        started.swap_remove(index.unwrap())
    };
    let (slot, job) = take(0);
    assert!(sim.settle_for_final_round(slot, job));
    assert!(
        matches!(sim.next(), StartDecision::WaitForChange),
        "two are in flight"
    );
    let (slot, job) = take(1);
    assert!(sim.settle_and_requeue(slot, job, at_ms(5)));
    let (slot, job) = take(2);
    assert!(sim.settle_for_final_round(slot, job));
    assert!(
        matches!(sim.next(), StartDecision::WaitUntil(at) if at == at_ms(5)),
        "one is in a backoff"
    );
    sim.now = at_ms(5);
    let (slot, job) = sim.start();
    assert_eq!(job.id, 1);
    assert!(matches!(sim.next(), StartDecision::WaitForChange));
    sim.schedule.settle(slot);
    let (last, next) = sim.start_all();
    let ids: Vec<_> = last.iter().map(|(_, job)| job.id).collect();
    assert_eq!(ids, [0, 2], "although another batch is in flight");
    assert!(matches!(next, StartDecision::WaitForChange));
}

#[test]
fn final_round_waits_while_more_jobs_are_expected() {
    let mut sim = Simulation::new(GateLimits::UNLIMITED);
    let batch = sim.add_batch(NO_LIMITS);
    assert!(!sim.schedule.set_expects_more_jobs(batch, true));
    sim.push(batch, "a");
    let (slot, job) = sim.start();
    assert!(sim.settle_for_final_round(slot, job));
    assert!(matches!(sim.next(), StartDecision::WaitForChange));
    assert!(
        sim.schedule.is_batch_blocked_only_by_hosts(batch, sim.now),
        "the caller may push more"
    );
    sim.push(batch, "b");
    assert!(
        !sim.schedule.set_expects_more_jobs(batch, false),
        "one job is left"
    );
    let (slot, job) = sim.start();
    assert_eq!(job.id, 1);
    sim.schedule.settle(slot);
    assert_eq!(sim.start().1.id, 0);
}

#[test]
fn final_round_observes_the_limits() {
    let mut sim = Simulation::new(GateLimits::UNLIMITED);
    let batch = sim.add_batch(BatchLimits {
        overall_limits: concurrency(2),
        ..NO_LIMITS
    });
    sim.push_many(batch, "a", 6);
    for _ in 0..6 {
        let (slot, job) = sim.start();
        assert!(sim.settle_for_final_round(slot, job));
    }
    sim.run(|_| Outcome::Done(SECOND));
    assert_eq!(sim.starts.len(), 12);
    assert_eq!((sim.max_in_flight, sim.now), (2, at_ms(3_000)));
}

#[test]
fn deadline_or_removal_returns_final_round_jobs() {
    let mut sim = Simulation::new(GateLimits::UNLIMITED);
    let batch = sim.add_batch(BatchLimits {
        deadline: Some(at_ms(100)),
        ..NO_LIMITS
    });
    sim.schedule.set_expects_more_jobs(batch, true);
    sim.push_many(batch, "a", 3);
    let (started, _) = sim.start_all();
    for (slot, job) in started {
        assert!(sim.settle_for_final_round(slot, job));
    }
    assert!(matches!(sim.next(), StartDecision::WaitUntil(at) if at == at_ms(100)));
    sim.now = at_ms(100);
    assert!(matches!(sim.next(), StartDecision::WaitForChange));
    assert_eq!(sim.rejected.len(), 3);
    assert!(!sim.schedule.set_expects_more_jobs(batch, false));

    let batch = sim.add_batch(NO_LIMITS);
    sim.schedule.set_expects_more_jobs(batch, true);
    sim.push(batch, "a");
    let (slot, job) = sim.start();
    assert!(sim.settle_for_final_round(slot, job));
    assert_eq!(sim.schedule.remove_batch(batch).len(), 1);
    assert_eq!(sim.schedule.delayed_jobs.len(), 0);
}

#[test]
fn abandoned_job_does_not_delay_the_final_round() {
    let mut sim = Simulation::new(GateLimits::UNLIMITED);
    let batch = sim.add_batch(BatchLimits {
        overall_limits: concurrency(1),
        ..NO_LIMITS
    });
    sim.push(batch, "a");
    let (slot, job) = sim.start();
    let abandoned = sim.push_job(batch, "a");
    assert!(sim.settle_for_final_round(slot, job));
    abandoned.abandoned.set(true);
    sim.now = sim.now.plus_nanos(MS);
    assert_eq!(sim.start().1.id, 0);
}
