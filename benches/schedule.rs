//! The cost of a start in the schedule: the time of push, next start and settle together, and the
//! number of their allocations.

#![allow(unsafe_code, missing_docs)]

mod counting;

#[allow(dead_code, unused_imports, unreachable_pub)]
#[path = "../src/schedule/mod.rs"]
mod schedule;

use std::collections::VecDeque;
use std::hint::black_box;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};

use counting::allocation_count;
use schedule::{
    BatchId, BatchLimits, BudgetConfig, BudgetKind, BudgetRate, GateLimits, GcraRate, LaneLimits,
    RouteKey, Schedulable, Schedule, Slot, StartDecision, Time,
};

/// As large as the engine's job, which is a box.
struct BenchJob(usize);

impl Schedulable for BenchJob {
    fn is_abandoned(&self) -> bool {
        self.0 == usize::MAX
    }

    fn stated_cost(&self, budget_name: &str) -> Option<u64> {
        (budget_name == "tokens").then_some(1_800)
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
    lane_limits: LaneLimits,
    lane_keys: Vec<String>,
    turn: usize,
    now: Time,
    in_flight: VecDeque<(Slot, usize)>,
}

impl SteadySchedule {
    fn new(
        lanes: usize,
        overall: GateLimits,
        per_lane: GateLimits,
        budgets: Option<Arc<[BudgetConfig]>>,
    ) -> Self {
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
            lane_limits: LaneLimits {
                budgets,
                ..per_lane.into()
            },
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
        let (lane_key, limits) = (&self.lane_keys[self.turn], &self.lane_limits);
        self.schedule.push(
            self.batch,
            direct_route(lane_key),
            || limits.clone(),
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

    fn bench(&mut self, name: &str, criterion: &mut Criterion) {
        let (before, steps) = (allocation_count(), 1_000_000);
        for _ in 0..steps {
            self.step();
        }
        let allocations = allocation_count() - before;
        println!("{name}: {allocations} allocations in {steps} steps");
        criterion.bench_function(name, |bencher| {
            bencher.iter(|| black_box(&mut *self).step());
        });
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
        SteadySchedule::new(lanes, in_flight_limit, per_lane, None).bench(name, criterion);
    }
}

/// Each lane has two budgets. They grant every cost at once, or refuse the cost of each request
/// once before they grant it.
fn bench_budgets(criterion: &mut Criterion) {
    let in_flight_limit = GateLimits {
        concurrency: IN_FLIGHT,
        ..GateLimits::UNLIMITED
    };
    let budget = |name: &str, per_minute: u64, default_cost: u64| BudgetConfig {
        name: name.into(),
        kind: BudgetKind::Rate(BudgetRate {
            units: NonZeroU64::MIN.saturating_add(per_minute),
            period_nanos: NonZeroU64::MIN.saturating_add(60_000_000_000),
            capacity: per_minute / 10,
        }),
        default_cost,
    };
    for (name, lanes, requests, tokens) in [
        (
            "1 lane, 2 ample budgets",
            1,
            1_000_000_000_000,
            1_000_000_000_000,
        ),
        (
            "1,000 lanes, 2 ample budgets",
            1_000,
            1_000_000_000_000,
            1_000_000_000_000,
        ),
        ("1 lane, 2 scarce budgets", 1, 600, 200_000),
        ("1,000 lanes, 2 scarce budgets", 1_000, 600, 200_000),
    ] {
        let budgets = [budget("requests", requests, 1), budget("tokens", tokens, 0)];
        let budgets = Some(budgets.into());
        SteadySchedule::new(lanes, in_flight_limit, GateLimits::UNLIMITED, budgets)
            .bench(name, criterion);
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
    targets = bench_lanes, bench_budgets, bench_parked_queues
}
criterion_main!(benches);
