//! Routes: what one proxy does to the requests of a lane that do not use it.

use std::num::NonZeroU32;

use super::super::{
    BatchLimits, BreakerConfig, ConcurrencyBounds, GateLimits, LaneLimits, PriorityLevel,
    RouteHealth, RouteKey, StartDecision,
};
use super::simulation::{
    MS, NO_LIMITS, Outcome, SECOND, Simulation, TestJob, at_ms, concurrency, rate,
};

const BREAKER: BreakerConfig = BreakerConfig {
    failure_threshold: NonZeroU32::new(5),
    cooldown_nanos: 15 * SECOND,
    max_wait_nanos: 15 * SECOND,
};

/// A simulation with a circuit breaker for lane `a`.
fn simulation(limits: impl Into<LaneLimits>) -> Simulation {
    let mut sim = Simulation::new(GateLimits::UNLIMITED);
    let limits = LaneLimits {
        breaker: BREAKER,
        ..limits.into()
    };
    sim.set_lane_limits("a", limits);
    sim
}

fn uses(job: &TestJob, proxy: &str) -> bool {
    job.proxy.as_deref() == Some(proxy)
}

/// The proxy `dead` refuses connections after 1 ms. Other routes respond after 10 ms.
fn dead_proxy(job: &TestJob) -> Outcome {
    if uses(job, "dead") {
        Outcome::Unreachable(MS)
    } else {
        Outcome::Done(10 * MS)
    }
}

#[test]
fn dead_proxy_delays_no_request_on_another_route() {
    let mut sim = simulation(concurrency(10));
    let batch = sim.add_batch(NO_LIMITS);
    for _ in 0..100 {
        sim.push_proxied(batch, "a", "dead", 10);
        sim.push_proxied(batch, "a", "good", 1);
        sim.push(batch, "a");
    }
    let mut dead_starts = Vec::new();
    let mut live_starts = Vec::new();
    let mut clock = 0;
    sim.run(|job| {
        clock += 1;
        let starts = if uses(job, "dead") {
            &mut dead_starts
        } else {
            &mut live_starts
        };
        starts.push(clock);
        dead_proxy(job)
    });
    assert_eq!(live_starts.len(), 200);
    let last_live = sim.starts[*live_starts.last().unwrap() - 1].at;
    assert!(last_live < at_ms(300), "{last_live:?}");
    assert!(dead_starts.len() < 20, "{}", dead_starts.len());
    assert_eq!(sim.unreachable.len(), 1_000 - dead_starts.len());
}

#[test]
fn each_route_has_a_breaker_that_a_response_on_another_does_not_close() {
    let mut sim = simulation(concurrency(1));
    let batch = sim.add_batch(NO_LIMITS);
    for _ in 0..5 {
        sim.push_proxied(batch, "a", "dead", 1);
        sim.push(batch, "a");
    }
    for _ in 0..10 {
        let (slot, job) = sim.start();
        let health = if uses(&job, "dead") {
            RouteHealth::Unreachable
        } else {
            RouteHealth::Healthy
        };
        sim.record_health(&slot, health);
        sim.schedule.settle(slot);
    }
    sim.push_proxied(batch, "a", "dead", 1);
    assert!(matches!(sim.next(), StartDecision::WaitUntil(at) if at == at_ms(15_000)));
    sim.push_proxied(batch, "b", "dead", 1);
    let (_, job) = sim.start();
    assert_eq!(
        &*job.lane, "b",
        "the proxy's other targets are not affected"
    );
    sim.push(batch, "a");
    let (_, job) = sim.start();
    assert_eq!(job.proxy, None);
}

#[test]
fn probe_of_one_route_is_alone_on_that_route_only() {
    let mut sim = simulation(GateLimits::UNLIMITED);
    let batch = sim.add_batch(NO_LIMITS);
    sim.push_proxied(batch, "a", "dead", 5);
    for (slot, _) in sim.start_all().0 {
        sim.record_health(&slot, RouteHealth::Unreachable);
        sim.schedule.settle(slot);
    }
    sim.push_proxied(batch, "a", "dead", 3);
    sim.now = at_ms(15_000);
    sim.push_many(batch, "a", 2);
    let (mut started, _) = sim.start_all();
    assert_eq!(started.len(), 3);
    let (probe, _) = started
        .iter_mut()
        .find(|(slot, _)| slot.is_probe())
        .unwrap();
    sim.schedule.end_wait_for_scout_or_probe(probe);
    assert_eq!(
        sim.start_all().0.len(),
        2,
        "those that waited for the probe"
    );
}

#[test]
fn routes_share_the_rate_and_the_concurrency_of_their_lane() {
    let mut sim = simulation(GateLimits {
        concurrency: 2,
        ..rate(10, 1)
    });
    let batch = sim.add_batch(NO_LIMITS);
    for proxy in ["p", "q"] {
        sim.push_proxied(batch, "a", proxy, 5);
    }
    sim.push_many(batch, "a", 5);
    sim.run(|_| Outcome::Done(50 * MS));
    let expected: Vec<_> = (0..15).map(|start| at_ms(100 * start)).collect();
    assert_eq!(sim.start_times(), expected);

    let mut sim = simulation(concurrency(2));
    let batch = sim.add_batch(NO_LIMITS);
    sim.push_proxied(batch, "a", "p", 5);
    sim.push_many(batch, "a", 5);
    sim.run(|_| Outcome::Done(50 * MS));
    assert_eq!((sim.max_in_flight, sim.now), (2, at_ms(250)));
}

#[test]
fn routes_share_the_limits_of_their_batch_per_lane() {
    for per_lane in [concurrency(1), rate(20, 1)] {
        let mut sim = simulation(GateLimits::UNLIMITED);
        let batch = sim.add_batch(BatchLimits {
            per_lane_limits: per_lane,
            ..NO_LIMITS
        });
        for proxy in ["p", "q", "r"] {
            sim.push_proxied(batch, "a", proxy, 3);
        }
        sim.push_many(batch, "a", 3);
        sim.run(|_| Outcome::Done(50 * MS));
        let expected: Vec<_> = (0..12).map(|start| at_ms(50 * start)).collect();
        assert_eq!(sim.start_times(), expected);
    }
}

#[test]
fn overload_on_one_route_lowers_only_its_adaptive_limit() {
    let adaptive = GateLimits {
        concurrency: 8,
        adaptive_bounds: Some(ConcurrencyBounds {
            min_limit: 1,
            max_limit: 100,
        }),
        ..GateLimits::UNLIMITED
    };
    let of_lane = (adaptive, NO_LIMITS);
    let of_batch = (
        GateLimits::UNLIMITED,
        BatchLimits {
            per_lane_limits: adaptive,
            ..NO_LIMITS
        },
    );
    for (lane, batch) in [of_lane, of_batch] {
        let mut sim = simulation(lane);
        let batch = sim.add_batch(batch);
        sim.push_proxied(batch, "a", "busy", 100);
        sim.push_many(batch, "a", 400);
        let (mut busy_in_flight, mut direct_in_flight) = (0, 0);
        for _ in 0..15 {
            let (started, _) = sim.start_all();
            let is_busy = |job: &TestJob| uses(job, "busy");
            busy_in_flight = started.iter().filter(|(_, job)| is_busy(job)).count();
            direct_in_flight = (started.len() - busy_in_flight).max(direct_in_flight);
            for (slot, job) in &started {
                let health = if is_busy(job) {
                    RouteHealth::Overloaded
                } else {
                    RouteHealth::Healthy
                };
                sim.record_health(slot, health);
            }
            for (slot, _) in started {
                sim.schedule.settle(slot);
            }
        }
        assert!(busy_in_flight <= 2, "{busy_in_flight}");
        assert!(direct_in_flight >= 32, "{direct_in_flight}");
    }
}

#[test]
fn routes_together_stay_within_the_largest_adaptive_limit() {
    let mut sim = simulation(GateLimits {
        concurrency: 4,
        adaptive_bounds: Some(ConcurrencyBounds {
            min_limit: 1,
            max_limit: 6,
        }),
        ..GateLimits::UNLIMITED
    });
    let batch = sim.add_batch(NO_LIMITS);
    sim.push_proxied(batch, "a", "p", 200);
    sim.push_many(batch, "a", 200);
    sim.run(|_| Outcome::Done(50 * MS));
    assert_eq!(sim.max_in_flight, 6);
    assert_eq!(sim.starts.len(), 400);
}

#[test]
fn batch_with_many_routes_gets_no_more_turns_in_a_lane() {
    let mut sim = simulation(rate(100, 1));
    let (rotating, direct) = (sim.add_batch(NO_LIMITS), sim.add_batch(NO_LIMITS));
    for proxy in 0..50 {
        sim.push_proxied(rotating, "a", &proxy.to_string(), 10);
    }
    sim.push_many(direct, "a", 100);
    sim.run(|_| Outcome::Done(MS));
    let first = &sim.starts[..200];
    let of_direct = first.iter().filter(|start| start.batch == direct).count();
    assert!((98..=100).contains(&of_direct), "{of_direct}");
}

#[test]
fn each_route_sends_its_own_scout() {
    let mut sim = simulation(LaneLimits {
        scout_timeout_nanos: 300 * MS,
        ..GateLimits::UNLIMITED.into()
    });
    let batch = sim.add_batch(NO_LIMITS);
    sim.push_proxied(batch, "a", "p", 3);
    sim.push_many(batch, "a", 3);
    let (mut started, next) = sim.start_all();
    assert_eq!(started.len(), 2);
    assert!(started.iter().all(|(slot, _)| slot.is_scout()));
    assert!(matches!(next, StartDecision::WaitUntil(at) if at == at_ms(300)));
    let (direct, _) = started
        .iter_mut()
        .find(|(_, job)| job.proxy.is_none())
        .unwrap();
    sim.schedule.end_wait_for_scout_or_probe(direct);
    let (rest, _) = sim.start_all();
    assert_eq!(rest.len(), 2);
    assert!(rest.iter().all(|(_, job)| job.proxy.is_none()));
}

#[test]
fn jobs_of_a_dead_proxy_end_at_once_even_while_their_lane_is_full() {
    let mut sim = simulation(concurrency(6));
    let (one, other) = (sim.add_batch(NO_LIMITS), sim.add_batch(NO_LIMITS));
    sim.push_proxied(one, "a", "dead", 5);
    let (dead, _) = sim.start_all();
    sim.push(one, "a");
    let (live, _) = sim.start();
    for batch in [other, one] {
        sim.push_many(batch, "a", 3);
        sim.push_proxied(batch, "a", "dead", 3);
    }
    assert!(
        matches!(sim.next(), StartDecision::WaitForChange),
        "the lane is full"
    );
    for (slot, _) in dead {
        sim.record_health(&slot, RouteHealth::Unreachable);
        sim.schedule.settle(slot);
    }
    let (mut started, _) = sim.start_all();
    assert_eq!(started.len(), 5, "the direct ones");
    sim.now = at_ms(15_000);
    for (slot, _) in started.drain(..2) {
        sim.schedule.settle(slot);
    }
    let (mut probes, _) = sim.start_all();
    let is_probe = |(slot, _): &(super::super::Slot, TestJob)| slot.is_probe();
    let probe = probes.iter().position(is_probe).unwrap();
    let (probe, _) = probes.remove(probe);
    sim.record_health(&probe, RouteHealth::Unreachable);
    assert!(
        matches!(sim.next(), StartDecision::WaitForChange),
        "the lane is full"
    );
    assert_eq!(sim.unreachable.len(), 5, "all but the probe");
    sim.schedule.settle(probe);
    sim.schedule.settle(live);
}

#[test]
fn higher_level_starts_first_among_the_routes_of_a_batch() {
    let mut sim = simulation(GateLimits::UNLIMITED);
    let batch = sim.add_batch(BatchLimits {
        per_lane_limits: concurrency(1),
        ..NO_LIMITS
    });
    sim.push_proxied(batch, "a", "p", 3);
    sim.push_many(batch, "a", 3);
    let high = RouteKey {
        lane_key: "a",
        proxy_key: Some("q"),
    };
    let (first, _) = sim.start();
    assert!(matches!(sim.next(), StartDecision::WaitForChange));
    for _ in 0..3 {
        sim.push_on_route(batch, high, PriorityLevel::High);
    }
    sim.schedule.settle(first);
    sim.run(|_| Outcome::Done(MS));
    let of_high: Vec<usize> = (0..sim.starts.len())
        .filter(|&start| sim.started_ids()[start] >= 6)
        .collect();
    assert_eq!(of_high, [1, 2, 3]);
}

#[test]
fn closing_holding_and_statistics_of_a_lane_include_all_routes() {
    let mut sim = simulation(concurrency(1));
    let batch = sim.add_batch(NO_LIMITS);
    sim.push_proxied(batch, "a", "p", 2);
    sim.push_proxied(batch, "a", "q", 3);
    sim.push_many(batch, "a", 4);
    let (slot, _) = sim.start();
    assert!(sim.schedule.hold_lane("a"));
    sim.schedule.settle(slot);
    assert!(matches!(sim.next(), StartDecision::WaitForChange));
    for stats in [
        sim.schedule.batch_stats(batch, sim.now),
        sim.schedule.overall_stats(sim.now),
    ] {
        let [load] = &*stats.busiest_lanes else {
            panic!("{:?}", stats.busiest_lanes);
        };
        assert_eq!(
            (&*load.lane_key, load.queued_count, load.in_flight_count),
            ("a", 8, 0)
        );
    }
    let batches = sim
        .schedule
        .batches_with_matching_ready_job_in_lane("a", |_| true);
    assert_eq!(batches, [batch]);
    assert_eq!(
        sim.schedule
            .take_matching_ready_jobs_of_lane("a", |job| uses(job, "q"))
            .len(),
        3
    );
    sim.schedule.release_lane("a");
    let (slot, _) = sim.start();
    assert_eq!(
        sim.schedule
            .close_lane_of_batch_and_take_queued_jobs(batch, "a")
            .len(),
        4
    );
    sim.schedule.settle(slot);
    assert_eq!(sim.schedule.queued_count(), 0);
}

#[test]
fn memory_follows_the_proxies_in_use() {
    let mut sim = simulation(GateLimits::UNLIMITED);
    let batch = sim.add_batch(NO_LIMITS);
    let mut max_items = 0;
    for session in 0..20_000u64 {
        sim.now = at_ms(session * 10);
        sim.push_proxied(batch, "a", &session.to_string(), 1);
        let (slot, _) = sim.start();
        let health = if session % 10 == 0 {
            RouteHealth::Unreachable
        } else {
            RouteHealth::Healthy
        };
        sim.record_health(&slot, health);
        sim.schedule.settle(slot);
        let schedule = &sim.schedule;
        max_items = max_items.max(
            schedule.routes.len() + schedule.queues.len() + schedule.eviction_candidates.len(),
        );
    }
    // Routes with a failure are kept for two cooldowns: a tenth of 3,000.
    assert!(max_items <= 1_000, "{max_items} items are kept");
}
