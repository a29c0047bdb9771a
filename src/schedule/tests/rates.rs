//! Tests of when jobs start: rates, pauses, backoffs and deadlines.

use super::super::{BatchLimits, GateLimits, GcraRate, StartDecision, Time};
use super::gate_meter::check_rate;
use super::simulation::{MS, NO_LIMITS, Outcome, SECOND, Simulation, at_ms, concurrency, rate};

fn ms_of(times: Vec<Time>) -> Vec<u64> {
    times.into_iter().map(|time| time.as_nanos() / MS).collect()
}

#[test]
fn rate_starts_its_burst_at_once_and_then_one_job_per_interval() {
    let mut sim = Simulation::new(GateLimits::UNLIMITED);
    sim.set_lane_limits("a", rate(10, 3));
    let batch = sim.add_batch(NO_LIMITS);
    sim.push_many(batch, "a", 6);
    sim.run(|_| Outcome::Done(MS));
    assert_eq!(ms_of(sim.start_times()), [0, 0, 0, 100, 200, 300]);
}

#[test]
fn burst_is_replenished_while_the_lane_is_idle() {
    let mut sim = Simulation::new(GateLimits::UNLIMITED);
    sim.set_lane_limits("a", rate(10, 3));
    let batch = sim.add_batch(NO_LIMITS);
    sim.push_many(batch, "a", 3);
    sim.run(|_| Outcome::Done(MS));
    sim.now = at_ms(200);
    sim.push_many(batch, "a", 3);
    sim.run(|_| Outcome::Done(MS));
    assert_eq!(ms_of(sim.start_times()), [0, 0, 0, 200, 200, 300]);
}

/// Returns the limits of each gate by its number: `limits` at one gate, no limits at the others.
fn limits_only_at(limited_gate: usize, limits: GateLimits) -> impl Fn(usize) -> GateLimits {
    move |gate| {
        if gate == limited_gate {
            limits
        } else {
            GateLimits::UNLIMITED
        }
    }
}

#[test]
fn every_gate_enforces_its_rate() {
    for gate in 0..4 {
        let limits = limits_only_at(gate, rate(10, 1));
        let mut sim = Simulation::new(limits(0));
        sim.set_lane_limits("a", limits(2));
        let batch = sim.add_batch(BatchLimits {
            overall_limits: limits(1),
            per_lane_limits: limits(3),
            deadline: None,
        });
        sim.push_many(batch, "a", 4);
        sim.run(|_| Outcome::Done(MS));
        assert_eq!(ms_of(sim.start_times()), [0, 100, 200, 300], "gate {gate}");
    }
}

#[test]
fn start_that_is_undone_does_not_count_against_the_rate_of_any_gate() {
    for gate in 0..5 {
        let limits = limits_only_at(gate, rate(10, 1));
        let mut sim = Simulation::new(limits(0));
        sim.set_lane_limits("a", limits(2));
        let tenant = sim.schedule.add_tenant(limits(4));
        let batch_limits = BatchLimits {
            overall_limits: limits(1),
            per_lane_limits: limits(3),
            deadline: None,
        };
        let batch = sim.add_tenant_batch(tenant, batch_limits);
        let other = sim.add_tenant_batch(tenant, NO_LIMITS);
        sim.push_many(batch, "a", 2);
        sim.push_many(other, "a", usize::from(gate != 1 && gate != 3));
        let (mut slot, _) = sim.start();
        if gate != 1 && gate != 3 {
            assert!(sim.start_all().0.is_empty(), "gate {gate}");
        }
        sim.schedule.undo_unsent_start(&mut slot);
        sim.schedule.settle(slot);
        let (started, _) = sim.start_all();
        assert_eq!(started.len(), 1, "gate {gate}");
    }
}

#[test]
fn every_gate_enforces_its_concurrency() {
    for gate in 0..4 {
        let limits = limits_only_at(gate, concurrency(2));
        let mut sim = Simulation::new(limits(0));
        sim.set_lane_limits("a", limits(2));
        let batch = sim.add_batch(BatchLimits {
            overall_limits: limits(1),
            per_lane_limits: limits(3),
            deadline: None,
        });
        sim.push_many(batch, "a", 6);
        sim.run(|_| Outcome::Done(10 * MS));
        assert_eq!(
            ms_of(sim.start_times()),
            [0, 0, 10, 10, 20, 20],
            "gate {gate}"
        );
    }
}

/// The number of starts per second over `count` starts.
fn measure_rate(
    limits: GateLimits,
    count: usize,
    slack: u64,
    lateness: impl FnMut() -> u64,
) -> f64 {
    let mut sim = Simulation::new(GateLimits::UNLIMITED);
    sim.set_lane_limits("a", limits);
    let batch = sim.add_batch(NO_LIMITS);
    sim.push_many(batch, "a", count);
    sim.run_with_late_timer(|_| Outcome::Done(1), lateness);
    check_rate(&sim.start_times(), limits.rate.unwrap(), slack).unwrap();
    count as f64 / (sim.now.as_nanos() as f64 / SECOND as f64)
}

#[test]
fn rate_is_exact_over_a_million_starts() {
    let measured = measure_rate(rate(1_000, 10), 1_000_000, 0, || 0);
    assert!((999.0..=1_000.1).contains(&measured), "{measured}/s");
}

#[test]
fn late_timer_does_not_lower_the_rate() {
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
        for is_constant in [false, true] {
            let lateness = || {
                if is_constant {
                    1_200_000
                } else {
                    random.u64(0..=1_200_000)
                }
            };
            let measured = measure_rate(rate(per_second, burst), 20_000, 2 * MS, lateness);
            assert!(
                measured > 0.98 * per_second as f64,
                "{measured} of {per_second}/s"
            );
        }
    }
}

#[test]
fn wait_for_a_slot_is_made_up_for_if_only_other_batches_have_jobs() {
    let mut sim = Simulation::new(GateLimits {
        concurrency: 1,
        ..rate(10, 1)
    });
    for _ in 0..3 {
        let batch = sim.add_batch(NO_LIMITS);
        sim.push(batch, "a");
    }
    let durations = [150 * MS, 50 * MS, MS];
    sim.run(|job| Outcome::Done(durations[job.id]));
    assert_eq!(ms_of(sim.start_times()), [0, 150, 200]);
}

#[test]
fn idle_lane_gets_no_more_than_its_burst() {
    let mut sim = Simulation::new(GateLimits::UNLIMITED);
    sim.set_lane_limits("a", rate(1_000, 1));
    let batch = sim.add_batch(NO_LIMITS);
    sim.push_many(batch, "a", 2);
    sim.run_with_late_timer(|_| Outcome::Done(1), || 2 * MS);
    sim.now = at_ms(1_000);
    sim.push_many(batch, "a", 3);
    sim.run(|_| Outcome::Done(1));
    assert_eq!(ms_of(sim.start_times())[2..], [1_000, 1_001, 1_002]);
}

#[test]
fn pause_delays_its_whole_lane_and_no_other() {
    let mut sim = Simulation::new(GateLimits::UNLIMITED);
    let (one, other) = (sim.add_batch(NO_LIMITS), sim.add_batch(NO_LIMITS));
    sim.push(one, "a");
    let (slot, _) = sim.start();
    sim.schedule.pause_lane(&slot, at_ms(500));
    sim.schedule.settle(slot);
    for batch in [one, other] {
        sim.push(batch, "a");
        sim.push(batch, "b");
    }
    sim.run(|_| Outcome::Done(0));
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
fn earlier_end_does_not_shorten_a_pause() {
    let mut sim = Simulation::new(GateLimits::UNLIMITED);
    let batch = sim.add_batch(NO_LIMITS);
    sim.push_many(batch, "a", 3);
    let (first, _) = sim.start();
    let (second, _) = sim.start();
    sim.schedule.pause_lane(&first, at_ms(500));
    sim.schedule.pause_lane(&second, at_ms(100));
    assert!(matches!(sim.next(), StartDecision::WaitUntil(at) if at == at_ms(500)));
    sim.schedule.settle(first);
    sim.schedule.settle(second);
    sim.run(|_| Outcome::Done(0));
    assert_eq!(ms_of(sim.start_times()), [0, 0, 500]);
}

#[test]
fn pause_applies_to_a_lane_that_already_waits() {
    let mut sim = Simulation::new(GateLimits::UNLIMITED);
    sim.set_lane_limits("a", rate(10, 1));
    let batch = sim.add_batch(NO_LIMITS);
    sim.push_many(batch, "a", 2);
    let (slot, _) = sim.start();
    assert!(matches!(sim.next(), StartDecision::WaitUntil(at) if at == at_ms(100)));
    sim.schedule.pause_lane(&slot, at_ms(150));
    sim.schedule.settle(slot);
    sim.run(|_| Outcome::Done(0));
    assert_eq!(ms_of(sim.start_times()), [0, 150]);
}

#[test]
fn pause_does_not_count_as_lateness() {
    let mut sim = Simulation::new(GateLimits::UNLIMITED);
    sim.set_lane_limits("a", rate(10, 1));
    let batch = sim.add_batch(NO_LIMITS);
    sim.push_many(batch, "a", 4);
    let (slot, _) = sim.start();
    assert!(matches!(sim.next(), StartDecision::WaitUntil(at) if at == at_ms(100)));
    sim.schedule.pause_lane(&slot, at_ms(101));
    sim.schedule.settle(slot);
    sim.run(|_| Outcome::Done(0));
    assert_eq!(ms_of(sim.start_times()), [0, 101, 201, 301]);
}

#[test]
fn clock_that_goes_back_delays_a_rate_by_one_interval_at_most() {
    let mut sim = Simulation::new(rate(1, 1));
    let batch = sim.add_batch(NO_LIMITS);
    sim.push_many(batch, "a", 100);
    sim.run(|_| Outcome::Done(0));
    assert_eq!(sim.now, at_ms(99_000));
    sim.now = at_ms(0);
    sim.push(batch, "a");
    assert!(matches!(sim.next(), StartDecision::WaitUntil(at) if at <= at_ms(1_000)));
}

#[test]
fn retry_starts_before_fresh_jobs_and_after_its_backoff() {
    let mut sim = Simulation::new(concurrency(1));
    let batch = sim.add_batch(NO_LIMITS);
    sim.push_many(batch, "a", 5);
    let mut start_count = 0;
    sim.run(|job| {
        start_count += 1;
        if job.id == 0 && start_count == 1 {
            Outcome::Retry(10 * MS, 15 * MS)
        } else {
            Outcome::Done(10 * MS)
        }
    });
    assert_eq!(sim.started_ids(), [0, 1, 2, 0, 3, 4]);
    assert_eq!(ms_of(sim.start_times()), [0, 10, 20, 30, 40, 50]);
}

#[test]
fn backoff_holds_no_slot() {
    let mut sim = Simulation::new(concurrency(1));
    let batch = sim.add_batch(NO_LIMITS);
    sim.push(batch, "a");
    let (slot, job) = sim.start();
    assert!(sim.settle_and_requeue(slot, job, at_ms(1_000)));
    sim.push(batch, "b");
    let (slot, _) = sim.start();
    sim.schedule.settle(slot);
    assert!(matches!(sim.next(), StartDecision::WaitUntil(at) if at == at_ms(1_000)));
    sim.run(|_| Outcome::Done(0));
    assert_eq!(ms_of(sim.start_times()), [0, 0, 1_000]);
}

fn with_deadline(deadline: u64) -> BatchLimits {
    BatchLimits {
        deadline: Some(at_ms(deadline)),
        ..NO_LIMITS
    }
}

#[test]
fn job_that_cannot_start_before_its_deadline_is_rejected_at_once() {
    let slow = GateLimits {
        concurrency: usize::MAX,
        rate: Some(GcraRate {
            emission_interval_nanos: SECOND,
            burst_tolerance_nanos: 0,
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
        let mut sim = Simulation::new(limits(0));
        sim.set_lane_limits("a", limits(2));
        let batch = sim.add_batch(BatchLimits {
            overall_limits: limits(1),
            per_lane_limits: limits(3),
            ..with_deadline(1_500)
        });
        sim.push_many(batch, "a", 5);
        sim.run(|_| Outcome::Done(MS));
        assert_eq!(ms_of(sim.start_times()), [0, 1_000], "gate {gate}");
        assert_eq!(sim.rejected.len(), 3, "gate {gate}");
        assert!(
            sim.rejected.iter().all(|&(at, _)| at == at_ms(1_000)),
            "gate {gate}: {:?}",
            sim.rejected
        );
    }
}

#[test]
fn deadline_rejects_queued_jobs() {
    let mut sim = Simulation::new(concurrency(1));
    let batch = sim.add_batch(with_deadline(25));
    sim.push_many(batch, "a", 5);
    sim.run(|_| Outcome::Done(10 * MS));
    assert_eq!(ms_of(sim.start_times()), [0, 10, 20]);
    assert_eq!(sim.rejected, [(at_ms(25), 3), (at_ms(25), 4)]);
    sim.push(batch, "a");
    assert!(matches!(sim.next(), StartDecision::WaitForChange));
    assert_eq!(sim.rejected.len(), 3);
}

#[test]
fn retry_after_the_deadline_is_returned() {
    let mut sim = Simulation::new(GateLimits::UNLIMITED);
    let batch = sim.add_batch(with_deadline(25));
    sim.push_many(batch, "a", 2);
    let (late, early) = (sim.start(), sim.start());
    assert!(!sim.settle_and_requeue(late.0, late.1, at_ms(25)));
    assert!(sim.settle_and_requeue(early.0, early.1, at_ms(24)));
    assert!(matches!(sim.next(), StartDecision::WaitUntil(at) if at == at_ms(24)));
}

#[test]
fn batch_past_its_deadline_does_not_block_the_lane_for_another() {
    let mut sim = Simulation::new(GateLimits::UNLIMITED);
    sim.set_lane_limits("a", rate(1, 1));
    let (with_end, endless) = (sim.add_batch(with_deadline(500)), sim.add_batch(NO_LIMITS));
    sim.push_many(with_end, "a", 2);
    sim.push_many(endless, "a", 2);
    sim.run(|_| Outcome::Done(MS));
    assert_eq!(
        ms_of(sim.starts_of(endless).map(|start| start.at).collect()),
        [1_000, 2_000]
    );
    assert_eq!(sim.rejected, [(at_ms(0), 1)]);
}

#[test]
fn abandoned_job_does_not_count_against_limits() {
    let mut sim = Simulation::new(GateLimits::UNLIMITED);
    sim.set_lane_limits("a", rate(1, 1));
    let batch = sim.add_batch(NO_LIMITS);
    sim.push(batch, "a");
    let (slot, job) = sim.start();
    job.abandoned.set(true);
    assert!(sim.settle_and_requeue(slot, job, at_ms(1_500)));
    sim.now = at_ms(1_500);
    sim.push(batch, "a");
    assert_eq!(sim.start().1.id, 1);
    assert_eq!(sim.rejected, [(at_ms(1_500), 0)]);
}
