//! Tests of the retry budget of a lane.

use fastrand::Rng;

use super::super::retry_budget::RetryBudgetState;
use super::super::{GateLimits, LaneLimits, RetryBudgetConfig, StartDecision, Time};
use super::simulation::{MS, NO_LIMITS, SECOND, Simulation, at_ms};

const CONFIG: RetryBudgetConfig = RetryBudgetConfig {
    retry_percent: 20,
    min_retries_per_second: 10,
};

/// A simulation with a retry budget for lane `a`.
fn simulation(config: RetryBudgetConfig) -> Simulation {
    let mut sim = Simulation::new(GateLimits::UNLIMITED);
    let limits = LaneLimits {
        retry_budget: Some(config),
        ..GateLimits::UNLIMITED.into()
    };
    sim.set_lane_limits("a", limits);
    sim
}

#[test]
fn budget_starts_full_and_receives_ten_per_second_and_a_fifth_of_the_fresh_starts() {
    let mut sim = simulation(CONFIG);
    let batch = sim.add_batch(NO_LIMITS);
    sim.push(batch, "a");
    let (slot, job) = sim.start();
    let lane = slot.lane_id();
    let withdraw_all = |sim: &mut Simulation| {
        (0..1_000)
            .take_while(|_| sim.schedule.try_withdraw_retry_from_lane(lane, sim.now))
            .count()
    };
    assert_eq!(
        withdraw_all(&mut sim),
        100,
        "the deposit of the start exceeds the capacity"
    );
    sim.now = at_ms(999);
    assert_eq!(withdraw_all(&mut sim), 9);
    sim.now = at_ms(1_000);
    assert_eq!(withdraw_all(&mut sim), 1);
    sim.push_many(batch, "a", 50);
    sim.start_all();
    assert_eq!(withdraw_all(&mut sim), 10);
    sim.now = at_ms(100_000);
    assert_eq!(withdraw_all(&mut sim), 100, "the deposits of ten seconds");
    // Requeued jobs deposit nothing.
    for _ in 0..10 {
        let requeued = sim.schedule.requeue(&slot, job.clone(), sim.now, sim.now);
        assert!(requeued.is_ok());
    }
    assert_eq!(sim.start_all().0.len(), 10);
    assert_eq!(withdraw_all(&mut sim), 0);
}

#[test]
fn budget_is_shared_by_the_batches_of_a_lane_and_not_by_lanes() {
    let mut sim = simulation(CONFIG);
    let (one, other) = (sim.add_batch(NO_LIMITS), sim.add_batch(NO_LIMITS));
    sim.push(one, "a");
    sim.push(other, "a");
    sim.push(other, "b");
    let (started, _) = sim.start_all();
    let lanes: Vec<_> = started.iter().map(|(slot, _)| slot.lane_id()).collect();
    for turn in 0..100 {
        assert!(
            sim.schedule
                .try_withdraw_retry_from_lane(lanes[turn % 2], sim.now)
        );
    }
    assert!(!sim.schedule.try_withdraw_retry_from_lane(lanes[0], sim.now));
    assert!(!sim.schedule.try_withdraw_retry_from_lane(lanes[1], sim.now));
    assert!(
        (0..1_000).all(|_| sim.schedule.try_withdraw_retry_from_lane(lanes[2], sim.now)),
        "lane b has no budget"
    );
}

#[test]
fn lane_with_an_exhausted_budget_is_kept_until_the_budget_would_be_full() {
    let mut sim = simulation(CONFIG);
    let batch = sim.add_batch(NO_LIMITS);
    sim.push(batch, "a");
    let (slot, _) = sim.start();
    while sim
        .schedule
        .try_withdraw_retry_from_lane(slot.lane_id(), sim.now)
    {}
    sim.schedule.settle(slot);
    let use_other_lanes = |sim: &mut Simulation| {
        for lane in 0..50 {
            sim.push(batch, &format!("{lane} at {:?}", sim.now));
            while let StartDecision::Start(slot, _) = sim.next() {
                sim.schedule.settle(slot);
            }
        }
    };
    sim.now = at_ms(9_900);
    use_other_lanes(&mut sim);
    assert!(sim.schedule.lane_by_key.contains_key("a"));
    sim.now = at_ms(10_000);
    use_other_lanes(&mut sim);
    assert!(!sim.schedule.lane_by_key.contains_key("a"));
}

/// A model of a retry budget that calculates in floating point.
struct BudgetModel {
    config: RetryBudgetConfig,
    /// The balance, in retries.
    balance: f64,
    refilled_at: Time,
}

impl BudgetModel {
    fn capacity(&self) -> f64 {
        (10.0 * f64::from(self.config.min_retries_per_second)).max(10.0)
    }

    fn deposit(&mut self, retries: f64) {
        self.balance = (self.balance + retries).min(self.capacity());
    }

    fn refill(&mut self, now: Time) {
        let seconds = now.nanos_since(self.refilled_at) as f64 / SECOND as f64;
        self.deposit(seconds * f64::from(self.config.min_retries_per_second));
        self.refilled_at = now;
    }
}

#[test]
fn random_deposits_and_withdrawals_agree_with_the_model() {
    for seed in 0..2_000 {
        let mut random = Rng::with_seed(seed);
        let config = RetryBudgetConfig {
            retry_percent: random.u32(0..150),
            min_retries_per_second: random.u32(0..50),
        };
        let mut budget = RetryBudgetState::new(Some(config));
        let mut model = BudgetModel {
            config,
            balance: 0.0,
            refilled_at: Time::default(),
        };
        model.balance = model.capacity();
        let mut now = Time::default();
        for _ in 0..500 {
            match random.u8(..4) {
                0 => {
                    budget.deposit_for_fresh_request();
                    model.deposit(f64::from(config.retry_percent) / 100.0);
                }
                1 => now = now.plus_nanos(random.u64(..200 * MS)),
                _ => {
                    model.refill(now);
                    let is_covered = budget.try_withdraw_retry(now);
                    let is_rounding_doubtful = (model.balance - 1.0).abs() < 1e-6;
                    assert!(
                        is_rounding_doubtful || is_covered == (model.balance >= 1.0),
                        "seed {seed} at {now:?}"
                    );
                    if is_covered {
                        model.balance -= 1.0;
                    }
                }
            }
        }
    }
}

#[test]
fn largest_config_does_not_overflow() {
    let largest = RetryBudgetConfig {
        retry_percent: u32::MAX,
        min_retries_per_second: u32::MAX,
    };
    let mut budget = RetryBudgetState::new(Some(largest));
    for second in 0..100 {
        budget.deposit_for_fresh_request();
        assert!(budget.try_withdraw_retry(at_ms(second * 1_000_000)));
    }
}
