//! What a start costs in the schedule: push, next and settle together, and how often they allocate.

#![allow(unsafe_code, missing_docs)]

mod counting;

#[allow(dead_code, unused_imports, unreachable_pub)]
#[path = "../src/schedule/mod.rs"]
mod schedule;

use std::collections::VecDeque;
use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};

use counting::allocations;
use schedule::{
    BatchId, BatchLimits, GateLimits, GcraRate, Schedulable, Schedule, Slot, StartDecision, Time,
};

/// As wide as the engine's, which is a box.
struct OneJob(usize);

impl Schedulable for OneJob {
    fn is_abandoned(&self) -> bool {
        self.0 == usize::MAX
    }
}

/// As many on the wire as this, so that a start follows a settle as in the engine.
const IN_FLIGHT: usize = 64;

/// A schedule in its steady state: some in flight, and some queued in turn for each of the lanes.
struct Steady {
    schedule: Schedule<OneJob>,
    batch: BatchId,
    per_lane: GateLimits,
    names: Vec<String>,
    turn: usize,
    now: Time,
    in_flight: VecDeque<(Slot, usize)>,
}

impl Steady {
    fn new(lanes: usize, overall: GateLimits, per_lane: GateLimits) -> Self {
        let mut schedule = Schedule::new(overall);
        let limits = BatchLimits {
            overall: GateLimits::UNLIMITED,
            per_lane,
            deadline: None,
        };
        let batch = schedule.add_batch(limits);
        let names = (0..lanes)
            .map(|lane| format!("https://h{lane:06}.example.com"))
            .collect();
        let mut steady = Self {
            schedule,
            batch,
            per_lane,
            names,
            turn: 0,
            now: Time::default(),
            in_flight: VecDeque::with_capacity(2 * IN_FLIGHT),
        };
        for _ in 0..2 * lanes.max(IN_FLIGHT) {
            steady.push();
        }
        // Every lane has been through it all, so that each has the memory it needs.
        for _ in 0..4 * lanes.max(IN_FLIGHT) {
            steady.step();
        }
        steady
    }

    fn push(&mut self) {
        // A prime step, so that neighbours in time are none in memory.
        self.turn = (self.turn + 61_813) % self.names.len();
        let (lane, limits) = (&self.names[self.turn], self.per_lane);
        self.schedule
            .push(self.batch, lane, || limits, OneJob(self.turn), self.now);
    }

    fn step(&mut self) {
        self.push();
        if self.in_flight.len() >= IN_FLIGHT
            && let Some((slot, _)) = self.in_flight.pop_front()
        {
            self.schedule.settle(slot);
        }
        loop {
            match self.schedule.next_start(self.now) {
                StartDecision::Start(slot, job) => {
                    self.in_flight.push_back((slot, job.0));
                    break;
                }
                StartDecision::WaitUntil(at) => self.now = at,
                StartDecision::Idle => match self.in_flight.pop_front() {
                    Some((slot, _)) => self.schedule.settle(slot),
                    None => break,
                },
            }
        }
        self.now = self.now.plus_nanos(1_000);
    }
}

fn bench(criterion: &mut Criterion) {
    let paced = GateLimits {
        concurrency: 4,
        rate: Some(GcraRate {
            emission_interval: 1_000_000,
            burst_tolerance: 9_000_000,
        }),
        ..GateLimits::UNLIMITED
    };
    let unpaced = GateLimits {
        concurrency: IN_FLIGHT,
        rate: None,
        ..GateLimits::UNLIMITED
    };
    for (name, lanes, per_lane) in [
        ("1 lane", 1, GateLimits::UNLIMITED),
        ("1,000 lanes", 1_000, GateLimits::UNLIMITED),
        ("100,000 lanes", 100_000, GateLimits::UNLIMITED),
        ("1 lane, limited", 1, paced),
        ("1,000 lanes, limited", 1_000, paced),
        ("100,000 lanes, limited", 100_000, paced),
    ] {
        let mut steady = Steady::new(lanes, unpaced, per_lane);
        let (before, steps) = (allocations(), 1_000_000);
        for _ in 0..steps {
            steady.step();
        }
        let allocations = allocations() - before;
        println!("{name}: {allocations} allocations in {steps} steps");
        criterion.bench_function(name, |bencher| {
            bencher.iter(|| black_box(&mut steady).step());
        });
    }
}

/// Each batch has one queue in the line before the one lane.
fn crowd(criterion: &mut Criterion) {
    let one = GateLimits {
        concurrency: 4,
        rate: None,
        ..GateLimits::UNLIMITED
    };
    for batches in [10, 10_000] {
        let mut schedule = Schedule::new(GateLimits::UNLIMITED);
        let limits = BatchLimits {
            overall: GateLimits::UNLIMITED,
            per_lane: GateLimits::UNLIMITED,
            deadline: None,
        };
        let ids: Vec<BatchId> = (0..batches).map(|_| schedule.add_batch(limits)).collect();
        let now = Time::default();
        let (mut turn, mut in_flight) = (0, VecDeque::new());
        for _ in 0..2 {
            for &batch in &ids {
                schedule.push(batch, "https://example.com", || one, OneJob(0), now);
            }
        }
        criterion.bench_function(&format!("{batches} batches at 1 busy lane"), |bencher| {
            bencher.iter(|| {
                turn = (turn + 1) % batches;
                schedule.push(ids[turn], "https://example.com", || one, OneJob(0), now);
                if let Some(slot) = in_flight.pop_front() {
                    schedule.settle(slot);
                }
                // As the engine does: until nothing more may start.
                while let StartDecision::Start(slot, job) = schedule.next_start(now) {
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
    targets = bench, crowd
}
criterion_main!(benches);
