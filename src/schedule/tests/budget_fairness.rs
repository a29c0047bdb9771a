//! The order in which budgets serve requests: no request is overtaken forever, and a request delays
//! no request that does not need what it waits for.

use fastrand::Rng;

use super::super::{BatchId, BatchLimits, BudgetConfig, CostOutcome, StartDecision, Time};
use super::budget_simulation::{BudgetSimulation, Costs, per_second, total};
use super::simulation::{MS, NO_LIMITS, SECOND, at_ms, concurrency};

#[test]
fn large_request_is_not_overtaken_by_small_ones_of_its_lane() {
    let mut sim = BudgetSimulation::new(&[per_second("tokens", 100, 100)]);
    let (small, large) = (
        sim.schedule.add_batch(NO_LIMITS),
        sim.schedule.add_batch(NO_LIMITS),
    );
    let first = sim.push(small, "a", &[("tokens", 60)]);
    let _slot = sim.start(first);
    let waiting = sim.push(large, "a", &[("tokens", 100)]);
    sim.wait_until_ms(600);
    sim.now = at_ms(300);
    let second = sim.push(small, "a", &[("tokens", 10)]);
    let elsewhere = sim.push(small, "b", &[("tokens", 10)]);
    let _slot = sim.start(elsewhere);
    sim.wait_until_ms(600);
    let _slot = sim.start(waiting);
    sim.wait_until_ms(700);
    let _slot = sim.start(second);
}

#[test]
fn request_that_waits_for_its_lane_delays_no_other_lane_at_a_shared_budget() {
    let mut sim = BudgetSimulation::new(&[per_second("tokens", 10, 100)]);
    sim.schedule
        .add_overall_budgets(&[per_second("requests", 10, 2)]);
    let batch = sim.schedule.add_batch(NO_LIMITS);
    let first = sim.push(batch, "a", &[("tokens", 100)]);
    sim.push(batch, "a", &[("tokens", 100)]);
    let elsewhere: Vec<usize> = (0..3).map(|_| sim.push(batch, "b", &[])).collect();
    let _slot = sim.start(first);
    let _slot = sim.start(elsewhere[0]);
    sim.wait_until_ms(100);
    let _slot = sim.start(elsewhere[1]);
    sim.wait_until_ms(200);
    let _slot = sim.start(elsewhere[2]);
    sim.wait_until_ms(10_000);
}

#[test]
fn large_request_is_not_overtaken_by_other_lanes_at_a_shared_budget() {
    let mut sim = BudgetSimulation::new(&[]);
    sim.schedule
        .add_overall_budgets(&[per_second("tokens", 100, 100)]);
    let batch = sim.schedule.add_batch(NO_LIMITS);
    let first = sim.push(batch, "a", &[("tokens", 50)]);
    let large = sim.push(batch, "b", &[("tokens", 100)]);
    let small = sim.push(batch, "c", &[("tokens", 1)]);
    let free = sim.push(batch, "d", &[]);
    let _slot = sim.start(first);
    let _slot = sim.start(free);
    sim.wait_until_ms(500);
    let _slot = sim.start(large);
    sim.wait_until_ms(510);
    let _slot = sim.start(small);
}

#[test]
fn request_that_waits_for_its_batch_leaves_other_batches_the_rest_of_the_lane() {
    let mut sim = BudgetSimulation::new(&[per_second("tokens", 100, 100)]);
    let slow = sim.schedule.add_batch(NO_LIMITS);
    sim.schedule
        .add_batch_budgets(slow, &[per_second("requests", 1, 1)]);
    let fast = sim.schedule.add_batch(NO_LIMITS);
    let first = sim.push(slow, "a", &[("tokens", 40)]);
    let second = sim.push(slow, "a", &[("tokens", 40)]);
    let _slot = sim.start(first);
    let ids: Vec<usize> = (0..10)
        .map(|_| sim.push(fast, "a", &[("tokens", 20)]))
        .collect();
    // 60 units are left, and 40 of them are reserved.
    let _slot = sim.start(ids[0]);
    for (id, ms) in ids[1..5].iter().zip([200, 400, 600, 800]) {
        sim.wait_until_ms(ms);
        let _slot = sim.start(*id);
    }
    sim.wait_until_ms(1_000);
    let (next, last) = (sim.start_next().1.id, sim.start_next().1.id);
    assert!([next, last].contains(&second) && [next, last].contains(&ids[5]));
}

#[test]
fn large_request_is_not_overtaken_while_an_older_one_reserves_the_budget() {
    let mut sim = BudgetSimulation::new(&[per_second("tokens", 100, 100)]);
    let batches = [0, 1, 2].map(|_| sim.schedule.add_batch(NO_LIMITS));
    sim.schedule
        .add_batch_budgets(batches[0], &[per_second("requests", 1, 1)]);
    let first = sim.push(batches[0], "a", &[("tokens", 40)]);
    let oldest = sim.push(batches[0], "a", &[("tokens", 40)]);
    let _slot = sim.start(first);
    sim.wait_until_ms(1_000);
    sim.now = at_ms(0);
    let large = sim.push(batches[1], "a", &[("tokens", 60)]);
    sim.wait_until_ms(400);
    sim.now = at_ms(0);
    // 60 units are left, and 40 of them are reserved.
    let small = sim.push(batches[2], "a", &[("tokens", 10)]);
    let _slot = sim.start_at_ms(large, 400);
    let _slot = sim.start_at_ms(small, 500);
    let _slot = sim.start_at_ms(oldest, 1_000);
}

#[test]
fn held_batch_delays_no_other_batch() {
    let mut sim = BudgetSimulation::new(&[per_second("tokens", 100, 100)]);
    let (held, other) = (
        sim.schedule.add_batch(NO_LIMITS),
        sim.schedule.add_batch(NO_LIMITS),
    );
    let first = sim.push(other, "a", &[("tokens", 60)]);
    let _slot = sim.start(first);
    let large = sim.push(held, "a", &[("tokens", 100)]);
    sim.wait_until_ms(600);
    sim.now = at_ms(0);
    let small = sim.push(other, "a", &[("tokens", 40)]);
    sim.schedule.hold_batch(held);
    let _slot = sim.start(small);
    let next = sim.push(other, "a", &[("tokens", 10)]);
    assert!(matches!(sim.next(), StartDecision::WaitUntil(_)));
    sim.schedule.release_batch(held);
    // The large request has kept its turn.
    let _slot = sim.start_at_ms(large, 1_000);
    let _slot = sim.start_at_ms(next, 1_100);
}

#[test]
fn request_whose_lane_is_held_reserves_no_shared_budget() {
    let mut sim = BudgetSimulation::new(&[]);
    sim.schedule
        .add_overall_budgets(&[per_second("tokens", 100, 100)]);
    let batch = sim.schedule.add_batch(NO_LIMITS);
    let first = sim.push(batch, "b", &[("tokens", 60)]);
    let _slot = sim.start(first);
    let large = sim.push(batch, "a", &[("tokens", 100)]);
    let small = sim.push(batch, "b", &[("tokens", 50)]);
    sim.wait_until_ms(600);
    assert!(sim.schedule.hold_lane("a"));
    let _slot = sim.start(small);
    sim.schedule.release_lane("a");
    let _slot = sim.start_at_ms(large, 1_100);
}

/// How the first request in the line of a budget leaves without a start.
#[derive(Copy, Clone, Debug)]
enum Departure {
    Abandoned,
    LaneClosed,
    BatchClosed,
    BatchRemoved,
    JobsTaken,
    TakenFromLane,
}

#[test]
fn request_that_leaves_delays_no_other() {
    for departure in [
        Departure::Abandoned,
        Departure::LaneClosed,
        Departure::BatchClosed,
        Departure::BatchRemoved,
        Departure::JobsTaken,
        Departure::TakenFromLane,
    ] {
        let mut sim = BudgetSimulation::new(&[per_second("tokens", 100, 100)]);
        let (leaving, other) = (
            sim.schedule.add_batch(NO_LIMITS),
            sim.schedule.add_batch(NO_LIMITS),
        );
        let first = sim.push(other, "a", &[("tokens", 50)]);
        let _slot = sim.start(first);
        let (large, abandoned) = sim.push_job(leaving, "a", &[("tokens", 100)]);
        sim.wait_until_ms(500);
        sim.now = at_ms(0);
        let small = sim.push(other, "a", &[("tokens", 10)]);
        sim.wait_until_ms(500);
        sim.now = at_ms(0);
        let schedule = &mut sim.schedule;
        let left = match departure {
            Departure::Abandoned => {
                abandoned.set(true);
                schedule.note_abandoned_job_and_remove_if_many(leaving)
            }
            Departure::LaneClosed => {
                schedule.close_lane_of_batch_and_take_queued_jobs(leaving, "a")
            }
            Departure::BatchClosed => schedule.close_batch_and_take_queued_jobs(leaving),
            Departure::BatchRemoved => schedule.remove_batch(leaving),
            Departure::JobsTaken => schedule.take_queued_jobs_of_batch(leaving),
            Departure::TakenFromLane => {
                schedule.take_matching_ready_jobs_of_lane("a", |job| job.id == large)
            }
        };
        let _slot = sim.start(small);
        let left: Vec<usize> = left.iter().map(|job| job.id).chain(sim.rejected).collect();
        assert_eq!(left, [large], "{departure:?}");
    }
}

#[test]
fn requests_of_one_budget_start_in_the_order_of_their_refusal() {
    let mut sim = BudgetSimulation::new(&[]);
    sim.schedule
        .add_overall_budgets(&[per_second("tokens", 100, 10)]);
    let mut ids = Vec::new();
    for number in 0..6 {
        let batch = sim.schedule.add_batch(NO_LIMITS);
        ids.push(sim.push(batch, &format!("lane {}", number % 3), &[("tokens", 10)]));
    }
    let mut started = Vec::new();
    while sim.schedule.queued_count() > 0 {
        match sim.next() {
            StartDecision::Start(_, job) => started.push((job.id, sim.now)),
            StartDecision::WaitUntil(at) => sim.now = at,
            StartDecision::WaitForChange => panic!("{started:?}"),
        }
    }
    let expected: Vec<(usize, Time)> = ids.into_iter().zip((0..).map(|n| at_ms(100 * n))).collect();
    assert_eq!(started, expected);
}

/// Lanes and batches with endless small requests, and now and then a large one.
struct Crowd {
    sim: BudgetSimulation,
    batches: Vec<BatchId>,
    random: Rng,
}

const LANES: usize = 3;
const SMALL: Costs = &[("tokens", 7)];
const LARGE: Costs = &[("tokens", 100)];

impl Crowd {
    fn new(seed: u64, lane: bool, batch: bool, overall: bool) -> Self {
        let budgets = |is_present: bool, tokens: u64, requests: u64| -> Vec<BudgetConfig> {
            let both = [
                per_second("tokens", tokens, 100),
                per_second("requests", requests, 5),
            ];
            if is_present { both.into() } else { Vec::new() }
        };
        let mut sim = BudgetSimulation::new(&budgets(lane, 100, 20));
        sim.schedule.add_overall_budgets(&budgets(overall, 200, 30));
        let limits = BatchLimits {
            overall_limits: concurrency(4),
            ..NO_LIMITS
        };
        let batches: Vec<_> = (0..3).map(|_| sim.schedule.add_batch(limits)).collect();
        for &id in &batches {
            sim.schedule.add_batch_budgets(id, &budgets(batch, 120, 25));
        }
        let random = Rng::with_seed(seed);
        Self {
            sim,
            batches,
            random,
        }
    }

    fn push(&mut self, costs: Costs) -> usize {
        let batch = self.batches[self.random.usize(..self.batches.len())];
        let lane = self.random.usize(..LANES).to_string();
        self.sim.push(batch, &lane, costs)
    }

    /// Runs for `seconds`, and returns the longest wait of a large request in seconds.
    fn longest_wait_of_large(&mut self, seconds: u64) -> u64 {
        let end = Time::from_nanos(seconds * SECOND);
        let (mut large, mut longest) = (None, 0);
        let mut in_flight = std::collections::BTreeMap::new();
        for _ in 0..60 {
            self.push(SMALL);
        }
        while self.sim.now < end {
            if large.is_none() {
                large = Some((self.push(LARGE), self.sim.now));
            }
            match self.sim.next() {
                StartDecision::Start(slot, job) => {
                    if let Some((id, pushed_at)) = large
                        && id == job.id
                    {
                        longest = longest.max(self.sim.now.nanos_since(pushed_at) / SECOND);
                        large = None;
                    } else {
                        self.push(SMALL);
                    }
                    let end = self.sim.now.plus_nanos(self.random.u64(1..300) * MS);
                    in_flight.insert((end, job.id), slot);
                }
                decision => {
                    let wake_up = match decision {
                        StartDecision::WaitUntil(at) => at,
                        _ => Time::MAX,
                    };
                    match in_flight.first_key_value() {
                        Some((&(end, id), _)) if end <= wake_up => {
                            self.sim.now = end;
                            let slot = in_flight.remove(&(end, id)).unwrap();
                            self.sim.settle(slot, &CostOutcome::Unknown);
                        }
                        _ => self.sim.now = wake_up,
                    }
                }
            }
        }
        longest.max(large.map_or(0, |(_, at)| self.sim.now.nanos_since(at) / SECOND))
    }
}

/// The queue of the large request holds about seven small ones. Each of at most nine queues has one
/// turn before, and a turn takes less than a second of refill.
#[test]
fn large_request_starts_in_bounded_time_whatever_budgets_there_are() {
    for scopes in 1_u64..8 {
        for seed in 0..3 {
            let mut crowd = Crowd::new(seed, scopes & 1 > 0, scopes & 2 > 0, scopes & 4 > 0);
            let wait = crowd.longest_wait_of_large(200);
            assert!(
                wait < 15,
                "{wait} s with the scopes {scopes:b} and seed {seed}"
            );
        }
    }
}

#[test]
fn batch_that_waits_for_a_shared_budget_reads_no_more_inputs() {
    let mut sim = BudgetSimulation::new(&[per_second("tokens", 10, 10)]);
    sim.schedule
        .add_overall_budgets(&[per_second("requests", 1, 2)]);
    let batch = sim.schedule.add_batch(NO_LIMITS);
    let first = sim.push(batch, "a", &[("tokens", 10)]);
    sim.push(batch, "a", &[("tokens", 10)]);
    let _slot = sim.start(first);
    sim.wait_until_ms(1_000);
    assert!(sim.schedule.is_batch_blocked_only_by_hosts(batch, sim.now));
    let _slot = sim.start_next();
    for _ in 0..2 {
        sim.push(batch, "b", &[]);
    }
    let _slot = sim.start_next();
    sim.wait_until_ms(2_000);
    assert!(!sim.schedule.is_batch_blocked_only_by_hosts(batch, sim.now));
}

#[test]
fn unaffordable_requests_of_a_total_delay_no_other_budget() {
    let mut sim = BudgetSimulation::new(&[per_second("tokens", 100, 100), total("cents", 1)]);
    let batch = sim.schedule.add_batch(NO_LIMITS);
    let first = sim.push(batch, "a", &[("tokens", 10), ("cents", 1)]);
    let second = sim.push(batch, "a", &[("tokens", 90), ("cents", 1)]);
    let third = sim.push(batch, "a", &[("tokens", 10)]);
    let (slot, _) = sim.start(first);
    sim.assert_idle();
    sim.settle(slot, &CostOutcome::Unknown);
    let _slot = sim.start(third);
    assert_eq!(sim.unaffordable[0].0, second);
}
