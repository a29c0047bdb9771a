//! The cost of a start in the schedule: the time of push, next start and settle together, and the
//! number of their allocations.

#![allow(unsafe_code, missing_docs)]

mod counting;

#[allow(dead_code, unused_imports, unreachable_pub)]
#[path = "../src/schedule/mod.rs"]
mod schedule;

use std::collections::VecDeque;
use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};

use counting::allocation_count;
use schedule::{
    BatchId, BatchLimits, GateLimits, GcraRate, RouteKey, Schedulable, Schedule, Slot,
    StartDecision, Time,
};

/// As large as the engine's job, which is a box.
struct BenchJob(usize);

impl Schedulable for BenchJob {
    fn is_abandoned(&self) -> bool {
        self.0 == usize::MAX
    }
}

fn direct_route(lane: &str) -> RouteKey<'_> {
    RouteKey {
        lane_key: lane,
        proxy_key: None,
    }
}

/// The number of requests in flight. A settle precedes each start, as in the engine.
const IN_FLIGHT: usize = 64;

/// A schedule in its steady state, with requests in flight and jobs queued for all lanes in turn.
struct SteadySchedule {
    schedule: Schedule<BenchJob>,
    batch: BatchId,
    per_lane: GateLimits,
    lane_keys: Vec<String>,
    turn: usize,
    now: Time,
    in_flight: VecDeque<(Slot, usize)>,
}

impl SteadySchedule {
    fn new(lanes: usize, overall: GateLimits, per_lane: GateLimits) -> Self {
        let mut schedule = Schedule::new(overall);
        let limits = BatchLimits {
            overall_limits: GateLimits::UNLIMITED,
            per_lane_limits: per_lane,
            deadline: None,
        };
        let batch = schedule.add_batch(limits);
        let lane_keys = (0..lanes)
            .map(|lane| format!("https://h{lane:06}.example.com"))
            .collect();
        let mut steady = Self {
            schedule,
            batch,
            per_lane,
            lane_keys,
            turn: 0,
            now: Time::default(),
            in_flight: VecDeque::with_capacity(2 * IN_FLIGHT),
        };
        for _ in 0..2 * lanes.max(IN_FLIGHT) {
            steady.push();
        }
        // Warms up every lane, so that each has allocated the memory it needs.
        for _ in 0..4 * lanes.max(IN_FLIGHT) {
            steady.step();
        }
        steady
    }

    fn push(&mut self) {
        // A large prime step, so that consecutive jobs are not adjacent in memory.
        self.turn = (self.turn + 61_813) % self.lane_keys.len();
        let (lane_key, limits) = (&self.lane_keys[self.turn], self.per_lane);
        self.schedule.push(
            self.batch,
            direct_route(lane_key),
            || limits,
            BenchJob(self.turn),
            self.now,
        );
    }

    fn step(&mut self) {
        self.push();
        if self.in_flight.len() >= IN_FLIGHT
            && let Some((slot, _)) = self.in_flight.pop_front()
        {
            self.schedule.settle(slot);
        }
        loop {
            match self.schedule.start_next_job(self.now) {
                StartDecision::Start(slot, job) => {
                    self.in_flight.push_back((slot, job.0));
                    break;
                }
                StartDecision::WaitUntil(at) => self.now = at,
                StartDecision::WaitForChange => match self.in_flight.pop_front() {
                    Some((slot, _)) => self.schedule.settle(slot),
                    None => break,
                },
            }
        }
        self.now = self.now.plus_nanos(1_000);
    }
}

fn bench_lanes(criterion: &mut Criterion) {
    let limited = GateLimits {
        concurrency: 4,
        rate: Some(GcraRate {
            emission_interval_nanos: 1_000_000,
            burst_tolerance_nanos: 9_000_000,
        }),
        ..GateLimits::UNLIMITED
    };
    let in_flight_limit = GateLimits {
        concurrency: IN_FLIGHT,
        rate: None,
        ..GateLimits::UNLIMITED
    };
    for (name, lanes, per_lane) in [
        ("1 lane", 1, GateLimits::UNLIMITED),
        ("1,000 lanes", 1_000, GateLimits::UNLIMITED),
        ("100,000 lanes", 100_000, GateLimits::UNLIMITED),
        ("1 lane, limited", 1, limited),
        ("1,000 lanes, limited", 1_000, limited),
        ("100,000 lanes, limited", 100_000, limited),
    ] {
        let mut steady = SteadySchedule::new(lanes, in_flight_limit, per_lane);
        let (before, steps) = (allocation_count(), 1_000_000);
        for _ in 0..steps {
            steady.step();
        }
        let allocations = allocation_count() - before;
        println!("{name}: {allocations} allocations in {steps} steps");
        criterion.bench_function(name, |bencher| {
            bencher.iter(|| black_box(&mut steady).step());
        });
    }
}

/// Each batch has one queue, and all of them are parked on the same lane.
fn bench_parked_queues(criterion: &mut Criterion) {
    let lane_limits = GateLimits {
        concurrency: 4,
        rate: None,
        ..GateLimits::UNLIMITED
    };
    for batches in [10, 10_000] {
        let mut schedule = Schedule::new(GateLimits::UNLIMITED);
        let limits = BatchLimits {
            overall_limits: GateLimits::UNLIMITED,
            per_lane_limits: GateLimits::UNLIMITED,
            deadline: None,
        };
        let ids: Vec<BatchId> = (0..batches).map(|_| schedule.add_batch(limits)).collect();
        let now = Time::default();
        let (mut turn, mut in_flight) = (0, VecDeque::new());
        for _ in 0..2 {
            for &batch in &ids {
                schedule.push(
                    batch,
                    direct_route("https://example.com"),
                    || lane_limits,
                    BenchJob(0),
                    now,
                );
            }
        }
        criterion.bench_function(&format!("{batches} batches at 1 busy lane"), |bencher| {
            bencher.iter(|| {
                turn = (turn + 1) % batches;
                schedule.push(
                    ids[turn],
                    direct_route("https://example.com"),
                    || lane_limits,
                    BenchJob(0),
                    now,
                );
                if let Some(slot) = in_flight.pop_front() {
                    schedule.settle(slot);
                }
                // The engine also starts jobs until none may start.
                while let StartDecision::Start(slot, job) = schedule.start_next_job(now) {
                    black_box(job.0);
                    in_flight.push_back(slot);
                }
            });
        });
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .without_plots();
    targets = bench_lanes, bench_parked_queues
}
criterion_main!(benches);
