//! Adaptive concurrency limits against simulated servers.

use super::super::{BatchLimits, ConcurrencyBounds, GateLimits, RouteHealth, RouteObservation};
use super::simulated_servers::{OverloadBehavior, Server, ServerSimulation};
use super::simulation::{MS, NO_LIMITS, Simulation, at_ms, concurrency};

const BOUNDS: ConcurrencyBounds = ConcurrencyBounds {
    min_limit: 1,
    max_limit: usize::MAX,
};

fn adaptive(from: usize) -> GateLimits {
    GateLimits {
        adaptive_bounds: Some(BOUNDS),
        ..concurrency(from)
    }
}

fn simulation_of(server: Server, from: usize) -> ServerSimulation {
    ServerSimulation::new(vec![server], adaptive(from), NO_LIMITS)
}

/// The number of requests that succeed with the best fixed limit.
fn best_with_fixed_limit(server: &Server, seconds: u64) -> usize {
    let done = |limit| {
        let mut simulation =
            ServerSimulation::new(vec![server.clone()], concurrency(limit), NO_LIMITS);
        simulation.run_until(at_ms(seconds * 1000));
        simulation.servers[0].done
    };
    done(server.capacity).max(done(2 * server.capacity))
}

fn healthy(latency_ms: u64) -> RouteObservation {
    RouteObservation {
        health: RouteHealth::Healthy,
        response_head_latency_nanos: Some(latency_ms * MS),
    }
}

const OVERLOADED: RouteObservation = RouteObservation {
    health: RouteHealth::Overloaded,
    response_head_latency_nanos: None,
};

#[test]
fn adaptive_limit_does_nine_tenths_of_what_the_best_fixed_limit_does() {
    for overload in [
        OverloadBehavior::Queues,
        OverloadBehavior::RespondsBusy,
        OverloadBehavior::RefusesConnections,
    ] {
        for (capacity, noise) in [(4, 0), (4, 30), (16, 30), (64, 30)] {
            let server = Server::new(capacity, overload).with_noise(noise);
            let best = best_with_fixed_limit(&server, 20);
            for from in [1, 8, 128] {
                let mut simulation = simulation_of(server.clone(), from);
                simulation.run_until(at_ms(20_000));
                let Server { done, failed, .. } = simulation.servers[0];
                let case = format!(
                    "{overload:?}, capacity {capacity} ±{noise} %, from {from}: \
                     {done} of {best}, {failed} failed"
                );
                assert!(done * 10 >= best * 9, "{case}");
                // The limit is found by exceeding it, so some requests fail.
                assert!(failed * 20 <= done || failed < 700, "{case}");
            }
        }
    }
}

#[test]
fn each_host_gets_a_limit_of_its_own_capacity() {
    let servers = [
        Server::new(4, OverloadBehavior::Queues).with_service_time(20),
        Server::new(16, OverloadBehavior::RespondsBusy).with_service_time(100),
        Server::new(64, OverloadBehavior::Queues).with_service_time(50),
    ];
    let best: Vec<usize> = servers
        .iter()
        .map(|server| best_with_fixed_limit(server, 30))
        .collect();
    let mut simulation = ServerSimulation::new(servers.to_vec(), adaptive(8), NO_LIMITS);
    simulation.run_until(at_ms(30_000));
    for (lane, best) in best.into_iter().enumerate() {
        let Server { done, capacity, .. } = simulation.servers[lane];
        let limit = simulation.lane_limit(lane);
        assert!(
            done * 10 >= best * 9,
            "{done} of {best} with capacity {capacity}"
        );
        assert!(
            (capacity / 2..=2 * capacity).contains(&limit),
            "limit {limit} for capacity {capacity}"
        );
    }
}

#[test]
fn slow_host_does_not_lower_the_limit_of_a_fast_one() {
    let fast = || Server::new(64, OverloadBehavior::Queues).with_service_time(20);
    let slow = Server::new(1, OverloadBehavior::Queues).with_service_time(2_000);
    let mut alone = simulation_of(fast(), 8);
    let mut with_slow = ServerSimulation::new(vec![fast(), slow], adaptive(8), NO_LIMITS);
    alone.run_until(at_ms(20_000));
    with_slow.run_until(at_ms(20_000));
    assert_eq!(alone.servers[0].done, with_slow.servers[0].done);
    assert_eq!(alone.lane_limit(0), with_slow.lane_limit(0));
}

#[test]
fn limit_converges_from_below_and_from_above() {
    for overload in [OverloadBehavior::Queues, OverloadBehavior::RespondsBusy] {
        for from in [1, 8, 64, 200] {
            let mut simulation = simulation_of(Server::new(16, overload), from);
            simulation.run_until(at_ms(60_000));
            let limit = simulation.lane_limit(0);
            assert!(
                (8..=32).contains(&limit),
                "limit {limit} from {from}, overload: {overload:?}"
            );
        }
    }
}

#[test]
fn failures_of_one_round_are_one_decrease() {
    let mut sim = Simulation::new(GateLimits::UNLIMITED);
    sim.set_lane_limits("a", adaptive(64));
    let batch = sim.add_batch(NO_LIMITS);
    sim.push_many(batch, "a", 500);
    let (in_flight, _) = sim.start_all();
    assert_eq!(in_flight.len(), 64);
    for (slot, _) in in_flight {
        sim.schedule
            .record_exchange_outcome(&slot, OVERLOADED, sim.now);
        sim.schedule.settle(slot);
    }
    assert_eq!(sim.start_all().0.len(), 48, "three quarters, once");
}

#[test]
fn few_failures_do_not_lower_the_limit() {
    let server = Server::new(64, OverloadBehavior::Queues)
        .with_noise(30)
        .with_failures(2);
    let best = best_with_fixed_limit(&server, 20);
    let mut simulation = simulation_of(server, 8);
    simulation.run_until(at_ms(20_000));
    assert!(
        simulation.servers[0].done * 10 >= best * 9,
        "{} of {best}",
        simulation.servers[0].done
    );
}

#[test]
fn limit_that_is_not_in_use_does_not_grow() {
    let limits = BatchLimits {
        overall_limits: concurrency(6),
        ..NO_LIMITS
    };
    let server = Server::new(64, OverloadBehavior::Queues);
    let mut simulation = ServerSimulation::new(vec![server], adaptive(8), limits);
    simulation.run_until(at_ms(10_000));
    assert_eq!(simulation.lane_limit(0), 8);
}

#[test]
fn limit_rises_when_the_host_gains_capacity() {
    for overload in [OverloadBehavior::Queues, OverloadBehavior::RespondsBusy] {
        let mut simulation = simulation_of(Server::new(4, overload).with_noise(30), 8);
        simulation.run_until(at_ms(20_000));
        let before = simulation.lane_limit(0);
        assert!(before < 16, "{before}");
        simulation.servers[0].capacity = 64;
        simulation.run_until(at_ms(40_000));
        let done = simulation.servers[0].done;
        simulation.run_until(at_ms(50_000));
        let done = simulation.servers[0].done - done;
        assert!(done * 10 >= 64 * 20 * 10 * 9, "{done} in 10 s");
    }
}

#[test]
fn limit_falls_when_the_host_loses_capacity() {
    for overload in [OverloadBehavior::Queues, OverloadBehavior::RespondsBusy] {
        let mut simulation = simulation_of(Server::new(64, overload).with_noise(30), 8);
        simulation.run_until(at_ms(10_000));
        simulation.servers[0].capacity = 4;
        simulation.run_until(at_ms(10_000 + 240_000));
        let limit = simulation.lane_limit(0);
        assert!(limit <= 12, "limit {limit}, overload: {overload:?}");
    }
}

#[test]
fn permanently_slower_host_is_not_throttled() {
    for slower in [3, 10] {
        let mut simulation =
            simulation_of(Server::new(16, OverloadBehavior::Queues).with_noise(30), 8);
        simulation.run_until(at_ms(10_000));
        simulation.servers[0].service_time *= slower;
        simulation.run_until(at_ms(30_000));
        let done = simulation.servers[0].done;
        simulation.run_until(at_ms(90_000));
        let done = simulation.servers[0].done - done;
        let best = 16 * 20 * 60 / slower as usize;
        assert!(
            done * 10 >= best * 9,
            "{done} of {best}, {slower} times slower"
        );
    }
}

#[test]
fn latency_noise_does_not_lower_the_limit() {
    let bounds = ConcurrencyBounds {
        max_limit: 50,
        ..BOUNDS
    };
    let limits = GateLimits {
        adaptive_bounds: Some(bounds),
        ..concurrency(8)
    };
    let server = Server::new(10_000, OverloadBehavior::Queues).with_noise(30);
    let mut simulation = ServerSimulation::new(vec![server], limits, NO_LIMITS);
    simulation.run_until(at_ms(2_000));
    for second in 2..60 {
        simulation.run_until(at_ms(second * 1000));
        assert_eq!(simulation.lane_limit(0), 50, "after {second} s");
    }
}

#[test]
fn limit_recovers_after_an_outage() {
    let mut simulation = simulation_of(Server::new(32, OverloadBehavior::Queues), 8);
    simulation.run_until(at_ms(10_000));
    simulation.servers[0].capacity = 0;
    simulation.servers[0].overload_behavior = OverloadBehavior::RefusesConnections;
    simulation.run_until(at_ms(15_000));
    assert_eq!(simulation.lane_limit(0), 1);
    simulation.servers[0].capacity = 32;
    simulation.servers[0].overload_behavior = OverloadBehavior::Queues;
    simulation.run_until(at_ms(25_000));
    assert!(
        simulation.lane_limit(0) >= 32,
        "{}",
        simulation.lane_limit(0)
    );
}

#[test]
fn limit_stays_within_its_bounds() {
    for (bounds, capacity, expected) in [
        (
            ConcurrencyBounds {
                min_limit: 6,
                max_limit: 9,
            },
            1,
            6,
        ),
        (
            ConcurrencyBounds {
                min_limit: 6,
                max_limit: 9,
            },
            100,
            9,
        ),
    ] {
        let limits = GateLimits {
            adaptive_bounds: Some(bounds),
            ..concurrency(8)
        };
        let server = Server::new(capacity, OverloadBehavior::RespondsBusy);
        let mut simulation = ServerSimulation::new(vec![server], limits, NO_LIMITS);
        simulation.run_until(at_ms(5_000));
        assert_eq!(simulation.lane_limit(0), expected);
        assert!(simulation.servers[0].max_in_flight <= 9);
    }
}

#[test]
fn raised_limit_starts_queued_jobs_before_the_slot_is_settled() {
    for is_lane_limit in [true, false] {
        let mut sim = Simulation::new(GateLimits::UNLIMITED);
        let mut limits = NO_LIMITS;
        if is_lane_limit {
            sim.set_lane_limits("a", adaptive(16));
        } else {
            limits.per_lane_limits = adaptive(16);
        }
        let batch = sim.add_batch(limits);
        sim.push_many(batch, "a", 100);
        let mut last = None;
        for (slot, _) in sim.start_all().0 {
            if let Some(slot) = last.replace(slot) {
                sim.schedule
                    .record_exchange_outcome(&slot, healthy(50), sim.now);
                sim.schedule.settle(slot);
                let _in_flight = sim.start();
            }
        }
        assert_eq!(sim.start_all().0.len(), 0, "the limit is fully used");
        if let Some(slot) = last {
            sim.schedule
                .record_exchange_outcome(&slot, healthy(50), sim.now);
        }
        assert_eq!(sim.start_all().0.len(), 16, "the slot is not settled");
    }
}

#[test]
fn batch_limit_per_host_is_adaptive_too() {
    let limits = BatchLimits {
        per_lane_limits: adaptive(8),
        ..NO_LIMITS
    };
    let servers = vec![
        Server::new(4, OverloadBehavior::RespondsBusy),
        Server::new(32, OverloadBehavior::RespondsBusy),
    ];
    let mut simulation = ServerSimulation::new(servers, GateLimits::UNLIMITED, limits);
    simulation.run_until(at_ms(30_000));
    for server in &simulation.servers {
        let best = server.capacity * 20 * 30;
        assert!(server.done * 10 >= best * 9, "{} of {best}", server.done);
        assert!(server.failed * 20 < server.done, "{}", server.failed);
    }
}

#[test]
fn learned_limit_is_kept_for_a_minute() {
    let mut sim = Simulation::new(GateLimits::UNLIMITED);
    sim.set_lane_limits("a", adaptive(16));
    let batch = sim.add_batch(NO_LIMITS);
    sim.push_many(batch, "a", 16);
    for (slot, _) in sim.start_all().0 {
        sim.schedule
            .record_exchange_outcome(&slot, OVERLOADED, sim.now);
        sim.schedule.settle(slot);
    }
    let use_other_lanes = |sim: &mut Simulation, at: u64| {
        sim.now = at_ms(at);
        for other in 0..4 {
            sim.push(batch, &format!("other-{at}-{other}"));
            let (slot, _) = sim.start();
            sim.schedule.settle(slot);
        }
        sim.schedule.lane_by_key.contains_key("a")
    };
    assert!(use_other_lanes(&mut sim, 59_000));
    assert!(!use_other_lanes(&mut sim, 60_000));
}
