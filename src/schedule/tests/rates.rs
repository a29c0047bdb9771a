//! Rates, pauses, back-offs and deadlines: when a job starts.

use super::super::{BatchLimits, GateLimits, GcraRate, StartDecision, Time};
use super::gate_meter::check_rate;
use super::simulation::{End, MS, NO_LIMITS, SECOND, Sim, at_most, at_ms, rate};

fn ms_of(times: Vec<Time>) -> Vec<u64> {
    times.into_iter().map(|time| time.as_nanos() / MS).collect()
}

#[test]
fn a_rate_starts_its_burst_at_once_and_then_keeps_its_pace() {
    let mut sim = Sim::new(GateLimits::UNLIMITED);
    sim.limit_lane("a", rate(10, 3));
    let batch = sim.batch(NO_LIMITS);
    sim.push_many(batch, "a", 6);
    sim.run(|_| End::Done(MS));
    assert_eq!(ms_of(sim.times()), [0, 0, 0, 100, 200, 300]);
}

#[test]
fn a_burst_fills_up_again_in_an_idle_time() {
    let mut sim = Sim::new(GateLimits::UNLIMITED);
    sim.limit_lane("a", rate(10, 3));
    let batch = sim.batch(NO_LIMITS);
    sim.push_many(batch, "a", 3);
    sim.run(|_| End::Done(MS));
    sim.now = at_ms(200);
    sim.push_many(batch, "a", 3);
    sim.run(|_| End::Done(MS));
    assert_eq!(ms_of(sim.times()), [0, 0, 0, 200, 200, 300]);
}

#[test]
fn every_gate_holds_its_rate() {
    for gate in 0..4 {
        let limits = |this: usize| {
            if this == gate {
                rate(10, 1)
            } else {
                GateLimits::UNLIMITED
            }
        };
        let mut sim = Sim::new(limits(0));
        sim.limit_lane("a", limits(2));
        let batch = sim.batch(BatchLimits {
            overall: limits(1),
            per_lane: limits(3),
            deadline: None,
        });
        sim.push_many(batch, "a", 4);
        sim.run(|_| End::Done(MS));
        assert_eq!(ms_of(sim.times()), [0, 100, 200, 300], "gate {gate}");
    }
}

#[test]
fn every_gate_holds_its_concurrency() {
    for gate in 0..4 {
        let limits = |this: usize| {
            if this == gate {
                at_most(2)
            } else {
                GateLimits::UNLIMITED
            }
        };
        let mut sim = Sim::new(limits(0));
        sim.limit_lane("a", limits(2));
        let batch = sim.batch(BatchLimits {
            overall: limits(1),
            per_lane: limits(3),
            deadline: None,
        });
        sim.push_many(batch, "a", 6);
        sim.run(|_| End::Done(10 * MS));
        assert_eq!(ms_of(sim.times()), [0, 0, 10, 10, 20, 20], "gate {gate}");
    }
}

/// Starts per second over a long run.
fn long_run(limits: GateLimits, count: usize, slack: u64, late: impl FnMut() -> u64) -> f64 {
    let mut sim = Sim::new(GateLimits::UNLIMITED);
    sim.limit_lane("a", limits);
    let batch = sim.batch(NO_LIMITS);
    sim.push_many(batch, "a", count);
    sim.run_late(|_| End::Done(1), late);
    check_rate(&sim.times(), limits.rate.unwrap(), slack).unwrap();
    count as f64 / (sim.now.as_nanos() as f64 / SECOND as f64)
}

#[test]
fn a_rate_holds_over_a_million_starts() {
    let measured = long_run(rate(1_000, 10), 1_000_000, 0, || 0);
    assert!((999.0..=1_000.1).contains(&measured), "{measured}/s");
}

#[test]
fn a_late_timer_costs_a_rate_nothing() {
    let mut random = fastrand::Rng::with_seed(7);
    for (per_second, burst) in [
        (10, 1),
        (100, 1),
        (500, 1),
        (1_000, 1),
        (1_000, 10),
        (2_000, 1),
        (20_000, 200),
    ] {
        for always in [false, true] {
            let late = || {
                if always {
                    1_200_000
                } else {
                    random.u64(0..=1_200_000)
                }
            };
            let measured = long_run(rate(per_second, burst), 20_000, 2 * MS, late);
            assert!(
                measured > 0.98 * per_second as f64,
                "{measured} of {per_second}/s"
            );
        }
    }
}

#[test]
fn a_lane_that_was_idle_gets_no_more_than_its_burst() {
    let mut sim = Sim::new(GateLimits::UNLIMITED);
    sim.limit_lane("a", rate(1_000, 1));
    let batch = sim.batch(NO_LIMITS);
    sim.push_many(batch, "a", 2);
    sim.run_late(|_| End::Done(1), || 2 * MS);
    sim.now = at_ms(1_000);
    sim.push_many(batch, "a", 3);
    sim.run(|_| End::Done(1));
    assert_eq!(ms_of(sim.times())[2..], [1_000, 1_001, 1_002]);
}

#[test]
fn a_pause_delays_the_whole_lane_and_no_other() {
    let mut sim = Sim::new(GateLimits::UNLIMITED);
    let (one, other) = (sim.batch(NO_LIMITS), sim.batch(NO_LIMITS));
    sim.push(one, "a");
    let (slot, _) = sim.start();
    sim.schedule.pause_lane(&slot, at_ms(500));
    sim.schedule.settle(slot);
    for batch in [one, other] {
        sim.push(batch, "a");
        sim.push(batch, "b");
    }
    sim.run(|_| End::Done(0));
    let of = |lane: &str| {
        sim.starts[1..]
            .iter()
            .filter(|start| &*start.lane == lane)
            .map(|start| start.at)
            .collect()
    };
    assert_eq!(ms_of(of("a")), [500, 500]);
    assert_eq!(ms_of(of("b")), [0, 0]);
}

#[test]
fn a_later_shorter_pause_does_not_shorten_one() {
    let mut sim = Sim::new(GateLimits::UNLIMITED);
    let batch = sim.batch(NO_LIMITS);
    sim.push_many(batch, "a", 3);
    let (first, _) = sim.start();
    let (second, _) = sim.start();
    sim.schedule.pause_lane(&first, at_ms(500));
    sim.schedule.pause_lane(&second, at_ms(100));
    assert!(matches!(sim.next(), StartDecision::WaitUntil(at) if at == at_ms(500)));
    sim.schedule.settle(first);
    sim.schedule.settle(second);
    sim.run(|_| End::Done(0));
    assert_eq!(ms_of(sim.times()), [0, 0, 500]);
}

#[test]
fn a_pause_that_comes_while_a_lane_waits_is_kept() {
    let mut sim = Sim::new(GateLimits::UNLIMITED);
    sim.limit_lane("a", rate(10, 1));
    let batch = sim.batch(NO_LIMITS);
    sim.push_many(batch, "a", 2);
    let (slot, _) = sim.start();
    assert!(matches!(sim.next(), StartDecision::WaitUntil(at) if at == at_ms(100)));
    sim.schedule.pause_lane(&slot, at_ms(150));
    sim.schedule.settle(slot);
    sim.run(|_| End::Done(0));
    assert_eq!(ms_of(sim.times()), [0, 150]);
}

#[test]
fn a_pause_does_not_count_as_lateness() {
    let mut sim = Sim::new(GateLimits::UNLIMITED);
    sim.limit_lane("a", rate(10, 1));
    let batch = sim.batch(NO_LIMITS);
    sim.push_many(batch, "a", 4);
    let (slot, _) = sim.start();
    assert!(matches!(sim.next(), StartDecision::WaitUntil(at) if at == at_ms(100)));
    sim.schedule.pause_lane(&slot, at_ms(101));
    sim.schedule.settle(slot);
    sim.run(|_| End::Done(0));
    assert_eq!(ms_of(sim.times()), [0, 101, 201, 301]);
}

#[test]
fn a_clock_that_goes_back_costs_a_rate_no_more_than_its_burst() {
    let mut sim = Sim::new(rate(1, 1));
    let batch = sim.batch(NO_LIMITS);
    sim.push_many(batch, "a", 100);
    sim.run(|_| End::Done(0));
    assert_eq!(sim.now, at_ms(99_000));
    sim.now = at_ms(0);
    sim.push(batch, "a");
    assert!(matches!(sim.next(), StartDecision::WaitUntil(at) if at <= at_ms(1_000)));
}

#[test]
fn what_comes_again_goes_before_fresh_work_and_not_before_its_time() {
    let mut sim = Sim::new(at_most(1));
    let batch = sim.batch(NO_LIMITS);
    sim.push_many(batch, "a", 5);
    let mut tries = 0;
    sim.run(|job| {
        tries += 1;
        if job.id == 0 && tries == 1 {
            End::Again(10 * MS, 15 * MS)
        } else {
            End::Done(10 * MS)
        }
    });
    assert_eq!(sim.ids(), [0, 1, 2, 0, 3, 4]);
    assert_eq!(ms_of(sim.times()), [0, 10, 20, 30, 40, 50]);
}

#[test]
fn a_back_off_holds_no_slot() {
    let mut sim = Sim::new(at_most(1));
    let batch = sim.batch(NO_LIMITS);
    sim.push(batch, "a");
    let (slot, job) = sim.start();
    assert!(sim.settle_again(slot, job, at_ms(1_000)));
    sim.push(batch, "b");
    let (slot, _) = sim.start();
    sim.schedule.settle(slot);
    assert!(matches!(sim.next(), StartDecision::WaitUntil(at) if at == at_ms(1_000)));
    sim.run(|_| End::Done(0));
    assert_eq!(ms_of(sim.times()), [0, 0, 1_000]);
}

fn until(deadline: u64) -> BatchLimits {
    BatchLimits {
        deadline: Some(at_ms(deadline)),
        ..NO_LIMITS
    }
}

#[test]
fn a_deadline_refuses_at_once_what_no_gate_lets_start_before_it() {
    let slow = GateLimits {
        concurrency: usize::MAX,
        rate: Some(GcraRate {
            emission_interval: SECOND,
            burst_tolerance: 0,
        }),
        ..GateLimits::UNLIMITED
    };
    for gate in 0..4 {
        let limits = |this: usize| {
            if this == gate {
                slow
            } else {
                GateLimits::UNLIMITED
            }
        };
        let mut sim = Sim::new(limits(0));
        sim.limit_lane("a", limits(2));
        let batch = sim.batch(BatchLimits {
            overall: limits(1),
            per_lane: limits(3),
            ..until(1_500)
        });
        sim.push_many(batch, "a", 5);
        sim.run(|_| End::Done(MS));
        assert_eq!(ms_of(sim.times()), [0, 1_000], "gate {gate}");
        assert_eq!(sim.refused.len(), 3, "gate {gate}");
        assert!(
            sim.refused.iter().all(|&(at, _)| at == at_ms(1_000)),
            "gate {gate}: {:?}",
            sim.refused
        );
    }
}

#[test]
fn a_deadline_refuses_what_waits_when_it_comes() {
    let mut sim = Sim::new(at_most(1));
    let batch = sim.batch(until(25));
    sim.push_many(batch, "a", 5);
    sim.run(|_| End::Done(10 * MS));
    assert_eq!(ms_of(sim.times()), [0, 10, 20]);
    assert_eq!(sim.refused, [(at_ms(25), 3), (at_ms(25), 4)]);
    sim.push(batch, "a");
    assert!(matches!(sim.next(), StartDecision::Idle));
    assert_eq!(sim.refused.len(), 3);
}

#[test]
fn a_retry_past_the_deadline_is_given_back() {
    let mut sim = Sim::new(GateLimits::UNLIMITED);
    let batch = sim.batch(until(25));
    sim.push_many(batch, "a", 2);
    let (late, early) = (sim.start(), sim.start());
    assert!(!sim.settle_again(late.0, late.1, at_ms(25)));
    assert!(sim.settle_again(early.0, early.1, at_ms(24)));
    assert!(matches!(sim.next(), StartDecision::WaitUntil(at) if at == at_ms(24)));
}

#[test]
fn one_batch_that_ends_does_not_keep_its_lane_from_another() {
    let mut sim = Sim::new(GateLimits::UNLIMITED);
    sim.limit_lane("a", rate(1, 1));
    let (brief, patient) = (sim.batch(until(500)), sim.batch(NO_LIMITS));
    sim.push_many(brief, "a", 2);
    sim.push_many(patient, "a", 2);
    sim.run(|_| End::Done(MS));
    assert_eq!(
        ms_of(sim.starts_of(patient).map(|start| start.at).collect()),
        [1_000, 2_000]
    );
    assert_eq!(sim.refused, [(at_ms(0), 1)]);
}

#[test]
fn an_abandoned_job_takes_no_limit() {
    let mut sim = Sim::new(GateLimits::UNLIMITED);
    sim.limit_lane("a", rate(1, 1));
    let batch = sim.batch(NO_LIMITS);
    sim.push(batch, "a");
    let (slot, job) = sim.start();
    job.abandoned.set(true);
    assert!(sim.settle_again(slot, job, at_ms(1_500)));
    sim.now = at_ms(1_500);
    sim.push(batch, "a");
    assert_eq!(sim.start().1.id, 1);
    assert_eq!(sim.refused, [(at_ms(1_500), 0)]);
}
