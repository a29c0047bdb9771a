//! What retries a host may be sent.

use fastrand::Rng;

use super::super::retry_budget::RetryBudgetState;
use super::super::{GateLimits, LaneLimits, RetryBudgetConfig, StartDecision, Time};
use super::simulation::{MS, NO_LIMITS, SECOND, Sim, at_ms};

const INCOME: RetryBudgetConfig = RetryBudgetConfig {
    retry_percent: 20,
    min_per_second: 10,
};

fn budgeted(income: RetryBudgetConfig) -> Sim {
    let mut sim = Sim::new(GateLimits::UNLIMITED);
    let limits = LaneLimits {
        retry_budget: Some(income),
        ..GateLimits::UNLIMITED.into()
    };
    sim.limit_lane("a", limits);
    sim
}

#[test]
fn it_begins_full_and_fills_by_ten_a_second_and_a_fifth_of_the_fresh_starts() {
    let mut sim = budgeted(INCOME);
    let batch = sim.batch(NO_LIMITS);
    sim.push(batch, "a");
    let (slot, job) = sim.start();
    let payer = slot.lane_id();
    let pays = |sim: &mut Sim| {
        (0..1_000)
            .take_while(|_| sim.schedule.withdraw_retry(payer, sim.now))
            .count()
    };
    assert_eq!(
        pays(&mut sim),
        100,
        "and what a start adds to a full one is lost"
    );
    sim.now = at_ms(999);
    assert_eq!(pays(&mut sim), 9);
    sim.now = at_ms(1_000);
    assert_eq!(pays(&mut sim), 1);
    sim.push_many(batch, "a", 50);
    sim.start_all();
    assert_eq!(pays(&mut sim), 10);
    sim.now = at_ms(100_000);
    assert_eq!(pays(&mut sim), 100, "ten seconds' worth are saved");
    // One that comes again earns nothing.
    for _ in 0..10 {
        assert!(
            sim.schedule
                .requeue(&slot, job.clone(), sim.now, sim.now)
                .is_ok()
        );
    }
    assert_eq!(sim.start_all().0.len(), 10);
    assert_eq!(pays(&mut sim), 0);
}

#[test]
fn it_is_shared_by_the_batches_of_a_host_and_not_by_hosts() {
    let mut sim = budgeted(INCOME);
    let (one, other) = (sim.batch(NO_LIMITS), sim.batch(NO_LIMITS));
    sim.push(one, "a");
    sim.push(other, "a");
    sim.push(other, "b");
    let (started, _) = sim.start_all();
    let payers: Vec<_> = started.iter().map(|(slot, _)| slot.lane_id()).collect();
    for turn in 0..100 {
        assert!(sim.schedule.withdraw_retry(payers[turn % 2], sim.now));
    }
    assert!(!sim.schedule.withdraw_retry(payers[0], sim.now));
    assert!(!sim.schedule.withdraw_retry(payers[1], sim.now));
    assert!(
        (0..1_000).all(|_| sim.schedule.withdraw_retry(payers[2], sim.now)),
        "b has none"
    );
}

#[test]
fn a_spent_budget_is_remembered_while_it_would_not_be_full() {
    let mut sim = budgeted(INCOME);
    let batch = sim.batch(NO_LIMITS);
    sim.push(batch, "a");
    let (slot, _) = sim.start();
    while sim.schedule.withdraw_retry(slot.lane_id(), sim.now) {}
    sim.schedule.settle(slot);
    let crowd = |sim: &mut Sim| {
        for lane in 0..50 {
            sim.push(batch, &format!("{lane} at {:?}", sim.now));
            while let StartDecision::Start(slot, _) = sim.next() {
                sim.schedule.settle(slot);
            }
        }
    };
    sim.now = at_ms(9_900);
    crowd(&mut sim);
    assert!(sim.schedule.lane_by_key.contains_key("a"));
    sim.now = at_ms(10_000);
    crowd(&mut sim);
    assert!(!sim.schedule.lane_by_key.contains_key("a"));
}

/// The same told all at once: what came, what it was spent on, and never more than can be saved.
struct Purse {
    income: RetryBudgetConfig,
    retries: f64,
    at: Time,
}

impl Purse {
    fn most(&self) -> f64 {
        (10.0 * f64::from(self.income.min_per_second)).max(10.0)
    }

    fn gets(&mut self, retries: f64) {
        self.retries = (self.retries + retries).min(self.most());
    }

    fn waits(&mut self, now: Time) {
        let seconds = now.nanos_since(self.at) as f64 / SECOND as f64;
        self.gets(seconds * f64::from(self.income.min_per_second));
        self.at = now;
    }
}

#[test]
fn no_walk_spends_what_is_not_there_or_is_refused_what_is() {
    for seed in 0..2_000 {
        let mut random = Rng::with_seed(seed);
        let income = RetryBudgetConfig {
            retry_percent: random.u32(0..150),
            min_per_second: random.u32(0..50),
        };
        let mut budget = RetryBudgetState::new(Some(income));
        let mut purse = Purse {
            income,
            retries: 0.0,
            at: Time::default(),
        };
        purse.retries = purse.most();
        let mut now = Time::default();
        for _ in 0..500 {
            match random.u8(..4) {
                0 => {
                    budget.deposit();
                    purse.gets(f64::from(income.retry_percent) / 100.0);
                }
                1 => now = now.plus_nanos(random.u64(..200 * MS)),
                _ => {
                    purse.waits(now);
                    let pays = budget.withdraw(now);
                    let doubtful = (purse.retries - 1.0).abs() < 1e-6;
                    assert!(
                        doubtful || pays == (purse.retries >= 1.0),
                        "seed {seed} at {now:?}"
                    );
                    if pays {
                        purse.retries -= 1.0;
                    }
                }
            }
        }
    }
}

#[test]
fn the_largest_income_does_not_overflow() {
    let most = RetryBudgetConfig {
        retry_percent: u32::MAX,
        min_per_second: u32::MAX,
    };
    let mut budget = RetryBudgetState::new(Some(most));
    for second in 0..100 {
        budget.deposit();
        assert!(budget.withdraw(at_ms(second * 1_000_000)));
    }
}
