//! An adaptive limit finds out what a server can use.

use super::super::{BatchLimits, ConcurrencyBounds, GateLimits, Health, HostObservation};
use super::simulated_servers::{Over, Server, World};
use super::simulation::{MS, NO_LIMITS, Sim, at_most, at_ms};

const BOUNDS: ConcurrencyBounds = ConcurrencyBounds {
    min: 1,
    max: usize::MAX,
};

fn adaptive(from: usize) -> GateLimits {
    GateLimits {
        adaptive: Some(BOUNDS),
        ..at_most(from)
    }
}

fn one(server: Server, from: usize) -> World {
    World::new(vec![server], adaptive(from), NO_LIMITS)
}

/// How much was done with the best fixed number.
fn best_of(server: &Server, seconds: u64) -> usize {
    let done = |limit| {
        let mut world = World::new(vec![server.clone()], at_most(limit), NO_LIMITS);
        world.run_until(at_ms(seconds * 1000));
        world.servers[0].done
    };
    done(server.capacity).max(done(2 * server.capacity))
}

fn well(latency_ms: u64) -> HostObservation {
    HostObservation {
        health: Health::Healthy,
        latency: Some(latency_ms * MS),
    }
}

const STRAINED: HostObservation = HostObservation {
    health: Health::Overloaded,
    latency: None,
};

#[test]
fn nine_tenths_of_the_best_fixed_number_are_done() {
    for over in [Over::Queues, Over::Busy, Over::Refuses] {
        for (capacity, noise) in [(4, 0), (4, 30), (16, 30), (64, 30)] {
            let server = Server::new(capacity, over).noisy(noise);
            let best = best_of(&server, 20);
            for from in [1, 8, 128] {
                let mut world = one(server.clone(), from);
                world.run_until(at_ms(20_000));
                let Server { done, failed, .. } = world.servers[0];
                let case = format!(
                    "{over:?}, {capacity} at once ±{noise} %, from {from}: {done} of {best}, {failed} failed"
                );
                assert!(done * 10 >= best * 9, "{case}");
                // The few that it takes to find out.
                assert!(failed * 20 <= done || failed < 700, "{case}");
            }
        }
    }
}

#[test]
fn hosts_of_different_capacity_each_get_their_own() {
    let servers = [
        Server::new(4, Over::Queues).taking(20),
        Server::new(16, Over::Busy).taking(100),
        Server::new(64, Over::Queues).taking(50),
    ];
    let best: Vec<usize> = servers.iter().map(|server| best_of(server, 30)).collect();
    let mut world = World::new(servers.to_vec(), adaptive(8), NO_LIMITS);
    world.run_until(at_ms(30_000));
    for (lane, best) in best.into_iter().enumerate() {
        let Server { done, capacity, .. } = world.servers[lane];
        let limit = world.limit_of(lane);
        assert!(done * 10 >= best * 9, "{done} of {best} by {capacity}");
        assert!(
            (capacity / 2..=2 * capacity).contains(&limit),
            "{limit} of {capacity}"
        );
    }
}

#[test]
fn a_slow_host_does_not_lower_a_fast_one() {
    let fast = || Server::new(64, Over::Queues).taking(20);
    let slow = Server::new(1, Over::Queues).taking(2_000);
    let mut alone = one(fast(), 8);
    let mut beside = World::new(vec![fast(), slow], adaptive(8), NO_LIMITS);
    alone.run_until(at_ms(20_000));
    beside.run_until(at_ms(20_000));
    assert_eq!(alone.servers[0].done, beside.servers[0].done);
    assert_eq!(alone.limit_of(0), beside.limit_of(0));
}

#[test]
fn it_comes_to_the_same_from_below_and_from_above() {
    for over in [Over::Queues, Over::Busy] {
        for from in [1, 8, 64, 200] {
            let mut world = one(Server::new(16, over), from);
            world.run_until(at_ms(60_000));
            let limit = world.limit_of(0);
            assert!(
                (8..=32).contains(&limit),
                "{limit} from {from}, over: {over:?}"
            );
        }
    }
}

#[test]
fn all_that_fail_of_what_was_in_flight_are_one_decrease() {
    let mut sim = Sim::new(GateLimits::UNLIMITED);
    sim.limit_lane("a", adaptive(64));
    let batch = sim.batch(NO_LIMITS);
    sim.push_many(batch, "a", 500);
    let (in_flight, _) = sim.start_all();
    assert_eq!(in_flight.len(), 64);
    for (slot, _) in in_flight {
        sim.schedule.record_observation(&slot, STRAINED, sim.now);
        sim.schedule.settle(slot);
    }
    assert_eq!(sim.start_all().0.len(), 48, "three quarters, once");
}

#[test]
fn a_few_failures_are_the_hosts_own() {
    let server = Server::new(64, Over::Queues).noisy(30).failing(2);
    let best = best_of(&server, 20);
    let mut world = one(server, 8);
    world.run_until(at_ms(20_000));
    assert!(
        world.servers[0].done * 10 >= best * 9,
        "{} of {best}",
        world.servers[0].done
    );
}

#[test]
fn a_limit_that_is_not_in_use_does_not_grow() {
    let whole = BatchLimits {
        overall: at_most(6),
        ..NO_LIMITS
    };
    let server = Server::new(64, Over::Queues);
    let mut world = World::new(vec![server], adaptive(8), whole);
    world.run_until(at_ms(10_000));
    assert_eq!(world.limit_of(0), 8);
}

#[test]
fn a_host_that_becomes_faster_gets_more() {
    for over in [Over::Queues, Over::Busy] {
        let mut world = one(Server::new(4, over).noisy(30), 8);
        world.run_until(at_ms(20_000));
        let before = world.limit_of(0);
        assert!(before < 16, "{before}");
        world.servers[0].capacity = 64;
        world.run_until(at_ms(40_000));
        let done = world.servers[0].done;
        world.run_until(at_ms(50_000));
        let done = world.servers[0].done - done;
        assert!(done * 10 >= 64 * 20 * 10 * 9, "{done} in 10 s");
    }
}

#[test]
fn a_host_that_takes_less_gets_less() {
    for over in [Over::Queues, Over::Busy] {
        let mut world = one(Server::new(64, over).noisy(30), 8);
        world.run_until(at_ms(10_000));
        world.servers[0].capacity = 4;
        world.run_until(at_ms(10_000 + 240_000));
        let limit = world.limit_of(0);
        assert!(limit <= 12, "{limit}, over: {over:?}");
    }
}

#[test]
fn a_host_that_is_slower_for_good_is_not_throttled_for_it() {
    for slower in [3, 10] {
        let mut world = one(Server::new(16, Over::Queues).noisy(30), 8);
        world.run_until(at_ms(10_000));
        world.servers[0].service *= slower;
        world.run_until(at_ms(30_000));
        let done = world.servers[0].done;
        world.run_until(at_ms(90_000));
        let done = world.servers[0].done - done;
        let best = 16 * 20 * 60 / slower as usize;
        assert!(done * 10 >= best * 9, "{done} of {best}, {slower} × slower");
    }
}

#[test]
fn noise_does_not_lower_it() {
    let bounds = ConcurrencyBounds { max: 50, ..BOUNDS };
    let limits = GateLimits {
        adaptive: Some(bounds),
        ..at_most(8)
    };
    let server = Server::new(10_000, Over::Queues).noisy(30);
    let mut world = World::new(vec![server], limits, NO_LIMITS);
    world.run_until(at_ms(2_000));
    for second in 2..60 {
        world.run_until(at_ms(second * 1000));
        assert_eq!(world.limit_of(0), 50, "after {second} s");
    }
}

#[test]
fn a_host_that_was_down_gets_back_what_it_had() {
    let mut world = one(Server::new(32, Over::Queues), 8);
    world.run_until(at_ms(10_000));
    world.servers[0].capacity = 0;
    world.servers[0].over = Over::Refuses;
    world.run_until(at_ms(15_000));
    assert_eq!(world.limit_of(0), 1);
    world.servers[0].capacity = 32;
    world.servers[0].over = Over::Queues;
    world.run_until(at_ms(25_000));
    assert!(world.limit_of(0) >= 32, "{}", world.limit_of(0));
}

#[test]
fn it_stays_within_its_bounds() {
    for (bounds, capacity, expected) in [
        (ConcurrencyBounds { min: 6, max: 9 }, 1, 6),
        (ConcurrencyBounds { min: 6, max: 9 }, 100, 9),
    ] {
        let limits = GateLimits {
            adaptive: Some(bounds),
            ..at_most(8)
        };
        let server = Server::new(capacity, Over::Busy);
        let mut world = World::new(vec![server], limits, NO_LIMITS);
        world.run_until(at_ms(5_000));
        assert_eq!(world.limit_of(0), expected);
        assert!(world.servers[0].most_in_flight <= 9);
    }
}

#[test]
fn what_waits_for_the_limit_starts_as_it_grows() {
    for of_lane in [true, false] {
        let mut sim = Sim::new(GateLimits::UNLIMITED);
        let mut limits = NO_LIMITS;
        match of_lane {
            true => sim.limit_lane("a", adaptive(16)),
            false => limits.per_lane = adaptive(16),
        }
        let batch = sim.batch(limits);
        sim.push_many(batch, "a", 100);
        let mut last = None;
        for (slot, _) in sim.start_all().0 {
            if let Some(slot) = last.replace(slot) {
                sim.schedule.record_observation(&slot, well(50), sim.now);
                sim.schedule.settle(slot);
                let _in_flight = sim.start();
            }
        }
        assert_eq!(sim.start_all().0.len(), 0, "all of it is in use");
        if let Some(slot) = last {
            sim.schedule.record_observation(&slot, well(50), sim.now);
        }
        assert_eq!(sim.start_all().0.len(), 16, "before it is settled");
    }
}

#[test]
fn a_batch_learns_for_itself_what_a_host_can_use() {
    let limits = BatchLimits {
        per_lane: adaptive(8),
        ..NO_LIMITS
    };
    let servers = vec![Server::new(4, Over::Busy), Server::new(32, Over::Busy)];
    let mut world = World::new(servers, GateLimits::UNLIMITED, limits);
    world.run_until(at_ms(30_000));
    for server in &world.servers {
        let best = server.capacity * 20 * 30;
        assert!(server.done * 10 >= best * 9, "{} of {best}", server.done);
        assert!(server.failed * 20 < server.done, "{}", server.failed);
    }
}

#[test]
fn what_was_learned_is_kept_for_a_minute() {
    let mut sim = Sim::new(GateLimits::UNLIMITED);
    sim.limit_lane("a", adaptive(16));
    let batch = sim.batch(NO_LIMITS);
    sim.push_many(batch, "a", 16);
    for (slot, _) in sim.start_all().0 {
        sim.schedule.record_observation(&slot, STRAINED, sim.now);
        sim.schedule.settle(slot);
    }
    let others = |sim: &mut Sim, at: u64| {
        sim.now = at_ms(at);
        for other in 0..4 {
            sim.push(batch, &format!("other-{at}-{other}"));
            let (slot, _) = sim.start();
            sim.schedule.settle(slot);
        }
        sim.schedule.lane_by_key.contains_key("a")
    };
    assert!(others(&mut sim, 59_000));
    assert!(!others(&mut sim, 60_000));
}
