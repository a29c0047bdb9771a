//! Budgets: the instants at which costs are granted, settlements, and the jobs that never start.

use std::num::NonZeroU32;

use super::super::{
    BatchLimits, BlockReason, BreakerConfig, BudgetAnnouncement, BudgetScope, CostOutcome,
    GateLimits, RouteHealth, RouteObservation, StartDecision, Time, UnaffordableReason,
};
use super::budget_simulation::{BudgetSimulation, Costs, actual, per_second, total};
use super::simulation::{MS, NO_LIMITS, SECOND, at_ms, concurrency};

#[test]
fn request_waits_until_its_budget_covers_the_cost() {
    let mut sim = BudgetSimulation::new(&[per_second("tokens", 100, 50)]);
    let batch = sim.schedule.add_batch(NO_LIMITS);
    let first = sim.push(batch, "a", &[("tokens", 40)]);
    let second = sim.push(batch, "a", &[("tokens", 30)]);
    let third = sim.push(batch, "a", &[("tokens", 50)]);
    let _slot = sim.start(first);
    sim.wait_until_ms(200);
    let _slot = sim.start(second);
    sim.wait_until_ms(700);
    let _slot = sim.start(third);
    assert_eq!(sim.level("tokens"), 0);
}

#[test]
fn all_budgets_grant_together_or_none_is_charged() {
    let mut sim =
        BudgetSimulation::new(&[per_second("requests", 1, 5), per_second("tokens", 100, 100)]);
    let batch = sim.schedule.add_batch(NO_LIMITS);
    let first = sim.push(batch, "a", &[("tokens", 100)]);
    let second = sim.push(batch, "a", &[("tokens", 50)]);
    let _slot = sim.start(first);
    sim.wait_until_ms(500);
    assert_eq!(
        sim.level("requests"),
        4,
        "the waiting request charges nothing"
    );
    let _slot = sim.start(second);
    assert_eq!(sim.level("requests"), 3);
    assert_eq!(sim.level("tokens"), 0);
}

#[test]
fn request_without_cost_passes_requests_that_wait() {
    let mut sim = BudgetSimulation::new(&[per_second("tokens", 10, 10)]);
    let (batch, other) = (
        sim.schedule.add_batch(NO_LIMITS),
        sim.schedule.add_batch(NO_LIMITS),
    );
    let first = sim.push(batch, "a", &[("tokens", 10)]);
    sim.push(batch, "a", &[("tokens", 10)]);
    let free = sim.push(other, "a", &[]);
    let _slot = sim.start(first);
    let _slot = sim.start(free);
    sim.wait_until_ms(1_000);
}

#[test]
fn waiting_for_a_budget_holds_no_slot() {
    let mut sim = BudgetSimulation::new(&[per_second("tokens", 10, 10)]);
    let limits = BatchLimits {
        overall_limits: concurrency(1),
        ..NO_LIMITS
    };
    let batch = sim.schedule.add_batch(limits);
    let first = sim.push(batch, "a", &[("tokens", 10)]);
    sim.push(batch, "a", &[("tokens", 10)]);
    let elsewhere = sim.push(batch, "b", &[("tokens", 10)]);
    let (slot, _) = sim.start(first);
    sim.settle(slot, &CostOutcome::Unknown);
    let _slot = sim.start(elsewhere);
}

#[test]
fn settlement_charges_or_refunds_the_difference() {
    let mut sim = BudgetSimulation::new(&[per_second("tokens", 100, 100)]);
    let batch = sim.schedule.add_batch(NO_LIMITS);
    let cheaper = sim.push(batch, "a", &[("tokens", 60)]);
    let (slot, _) = sim.start(cheaper);
    sim.settle(slot, &CostOutcome::Actual(actual(&[("tokens", 20)])));
    assert_eq!(sim.level("tokens"), 80);
    let dearer = sim.push(batch, "a", &[("tokens", 10)]);
    let (slot, _) = sim.start(dearer);
    sim.settle(slot, &CostOutcome::Actual(actual(&[("tokens", 200)])));
    assert_eq!(sim.level("tokens"), -120);
    let next = sim.push(batch, "a", &[("tokens", 1)]);
    sim.wait_until_ms(1_210);
    let _slot = sim.start(next);
}

#[test]
fn request_that_stated_no_cost_is_charged_its_actual_cost() {
    let mut sim = BudgetSimulation::new(&[per_second("tokens", 100, 100)]);
    let batch = sim.schedule.add_batch(NO_LIMITS);
    let first = sim.push(batch, "a", &[]);
    let (slot, _) = sim.start(first);
    sim.settle(slot, &CostOutcome::Actual(actual(&[("tokens", 30)])));
    assert_eq!(sim.level("tokens"), 70);
}

#[test]
fn unsent_request_gets_everything_back_and_an_unknown_cost_nothing() {
    let budgets = [per_second("requests", 1, 5), per_second("tokens", 1, 100)];
    let mut sim = BudgetSimulation::new(&budgets);
    let batch = sim.schedule.add_batch(NO_LIMITS);
    let unsent = sim.push(batch, "a", &[("tokens", 60)]);
    let (slot, _) = sim.start(unsent);
    sim.settle(slot, &CostOutcome::Unsent);
    assert_eq!((sim.level("requests"), sim.level("tokens")), (5, 100));
    let unknown = sim.push(batch, "a", &[("tokens", 60)]);
    let (slot, _) = sim.start(unknown);
    sim.settle(slot, &CostOutcome::Unknown);
    assert_eq!((sim.level("requests"), sim.level("tokens")), (4, 40));
    let unreported = sim.push(batch, "a", &[("tokens", 30)]);
    let (slot, _) = sim.start(unreported);
    sim.settle(slot, &CostOutcome::Actual(actual(&[("requests", 1)])));
    assert_eq!((sim.level("requests"), sim.level("tokens")), (3, 10));
}

#[test]
fn costs_are_settled_only_once() {
    let mut sim = BudgetSimulation::new(&[per_second("tokens", 1, 100)]);
    let batch = sim.schedule.add_batch(NO_LIMITS);
    let first = sim.push(batch, "a", &[("tokens", 60)]);
    let (slot, _) = sim.start(first);
    let outcome = CostOutcome::Actual(actual(&[("tokens", 50)]));
    for _ in 0..2 {
        sim.schedule.settle_costs(&slot, &outcome, sim.now);
    }
    sim.schedule.settle(slot);
    assert_eq!(sim.level("tokens"), 50);
}

#[test]
fn refund_wakes_the_request_that_waits_for_it() {
    let mut sim = BudgetSimulation::new(&[per_second("tokens", 10, 100)]);
    let batch = sim.schedule.add_batch(NO_LIMITS);
    let first = sim.push(batch, "a", &[("tokens", 100)]);
    let second = sim.push(batch, "a", &[("tokens", 50)]);
    let (slot, _) = sim.start(first);
    sim.wait_until_ms(5_000);
    sim.now = at_ms(1_000);
    sim.settle(slot, &CostOutcome::Actual(actual(&[("tokens", 60)])));
    let _slot = sim.start(second);
    assert_eq!(sim.level("tokens"), 0);
}

#[test]
fn cost_above_the_capacity_ends_the_request_at_once() {
    let mut sim = BudgetSimulation::new(&[per_second("tokens", 100, 50), total("cents", 10)]);
    let batch = sim.schedule.add_batch(NO_LIMITS);
    let first = sim.push(batch, "a", &[("tokens", 50)]);
    let too_large = sim.push(batch, "a", &[("tokens", 51)]);
    let too_dear = sim.push(batch, "a", &[("cents", 11)]);
    let second = sim.push(batch, "a", &[]);
    sim.take_ended();
    let expected = [
        (
            too_large,
            "tokens".into(),
            UnaffordableReason::AboveCapacity,
        ),
        (too_dear, "cents".into(), UnaffordableReason::Exhausted),
    ];
    assert_eq!(sim.unaffordable, expected);
    assert_eq!(sim.schedule.queued_count(), 2);
    let _slot = sim.start(first);
    let _slot = sim.start(second);
}

#[test]
fn exhausted_total_ends_all_requests_that_wait_for_it() {
    let mut sim = BudgetSimulation::new(&[total("cents", 10)]);
    sim.lane_limits.gate_limits = concurrency(1);
    let (batch, other) = (
        sim.schedule.add_batch(NO_LIMITS),
        sim.schedule.add_batch(NO_LIMITS),
    );
    let first = sim.push(batch, "a", &[("cents", 6)]);
    let waiting = sim.push(batch, "a", &[("cents", 6)]);
    let small = sim.push(batch, "a", &[("cents", 1)]);
    let free = sim.push(batch, "a", &[]);
    let parked = sim.push(other, "a", &[("cents", 2)]);
    let (slot, _) = sim.start(first);
    sim.assert_idle();
    assert!(sim.unaffordable.is_empty(), "the first may be refunded");
    sim.settle(slot, &CostOutcome::Actual(actual(&[("cents", 10)])));
    let mut ended: Vec<_> = sim.unaffordable.drain(..).collect();
    ended.sort_by_key(|&(id, ..)| id);
    let reason = UnaffordableReason::Exhausted;
    assert_eq!(
        ended,
        [waiting, small, parked].map(|id| (id, "cents".into(), reason))
    );
    let _slot = sim.start(free);
    let late = sim.push(batch, "a", &[("cents", 1)]);
    sim.take_ended();
    assert_eq!(sim.unaffordable, [(late, "cents".into(), reason)]);
    assert_eq!(sim.schedule.queued_count(), 0);
}

#[test]
fn request_beyond_a_total_waits_for_settlements_that_may_refund() {
    let mut sim = BudgetSimulation::new(&[total("cents", 10)]);
    let batch = sim.schedule.add_batch(NO_LIMITS);
    let first = sim.push(batch, "a", &[("cents", 4)]);
    let second = sim.push(batch, "a", &[("cents", 4)]);
    let third = sim.push(batch, "a", &[("cents", 4)]);
    let fourth = sim.push(batch, "a", &[("cents", 4)]);
    let (slot, _) = sim.start(first);
    let (other, _) = sim.start(second);
    sim.assert_idle();
    sim.settle(slot, &CostOutcome::Actual(actual(&[("cents", 1)])));
    let (third_slot, _) = sim.start(third);
    sim.assert_idle();
    sim.settle(other, &CostOutcome::Unknown);
    sim.assert_idle();
    assert!(sim.unaffordable.is_empty(), "the third may be refunded");
    sim.settle(third_slot, &CostOutcome::Unknown);
    sim.assert_idle();
    let reason = UnaffordableReason::Exhausted;
    assert_eq!(sim.unaffordable, [(fourth, "cents".into(), reason)]);
    assert_eq!(sim.level("cents"), 1);
}

#[test]
fn repeat_with_a_carried_charge_pays_nothing() {
    let mut sim = BudgetSimulation::new(&[per_second("tokens", 100, 100)]);
    let batch = sim.schedule.add_batch(NO_LIMITS);
    let first = sim.push(batch, "a", &[("tokens", 80)]);
    let (slot, mut job) = sim.start(first);
    job.carried_charge = sim.schedule.take_charge(&slot);
    sim.schedule.requeue(&slot, job, sim.now, sim.now).unwrap();
    sim.schedule.settle(slot);
    let (slot, job) = sim.start(first);
    assert!(job.carried_charge.is_none());
    assert_eq!(sim.level("tokens"), 20);
    sim.settle(slot, &CostOutcome::Actual(actual(&[("tokens", 30)])));
    assert_eq!(sim.level("tokens"), 70);
}

#[test]
fn carried_charge_of_a_job_that_ends_is_settled() {
    let mut sim = BudgetSimulation::new(&[total("cents", 10)]);
    let batch = sim.schedule.add_batch(NO_LIMITS);
    let first = sim.push(batch, "a", &[("cents", 8)]);
    let (slot, _) = sim.start(first);
    let charge = sim.schedule.take_charge(&slot).unwrap();
    sim.schedule.settle(slot);
    sim.push(batch, "a", &[("cents", 8)]);
    sim.assert_idle();
    sim.schedule.settle_charge_as_estimated(charge);
    sim.assert_idle();
    assert_eq!(sim.unaffordable.len(), 1);
}

#[test]
fn retry_pays_again() {
    let mut sim = BudgetSimulation::new(&[per_second("requests", 1, 5)]);
    let batch = sim.schedule.add_batch(NO_LIMITS);
    let first = sim.push(batch, "a", &[]);
    for level in [4, 3] {
        let (slot, job) = sim.start(first);
        assert_eq!(sim.level("requests"), level);
        sim.schedule
            .settle_costs(&slot, &CostOutcome::Unknown, sim.now);
        sim.schedule.requeue(&slot, job, sim.now, sim.now).unwrap();
        sim.schedule.settle(slot);
    }
}

fn announcement(remaining: u64, reset_after_nanos: Option<u64>) -> BudgetAnnouncement<'static> {
    BudgetAnnouncement {
        budget_name: "tokens",
        limit: Some(100),
        remaining,
        reset_after_nanos,
    }
}

#[test]
fn announcement_lowers_the_level_but_never_raises_it() {
    let mut sim = BudgetSimulation::new(&[per_second("tokens", 100, 100)]);
    let batch = sim.schedule.add_batch(NO_LIMITS);
    let ids: Vec<usize> = (0..3)
        .map(|_| sim.push(batch, "a", &[("tokens", 10)]))
        .collect();
    let [(first, _), (second, _), (third, _)] = [0, 1, 2].map(|index| sim.start(ids[index]));
    assert_eq!(sim.level("tokens"), 70);
    let full = announcement(90, Some(SECOND));
    assert!(
        sim.schedule
            .apply_budget_announcement(&first, &full, sim.now)
    );
    assert_eq!(sim.level("tokens"), 70);
    // The server had not received the third request.
    let low = announcement(40, Some(SECOND));
    assert!(
        sim.schedule
            .apply_budget_announcement(&second, &low, sim.now)
    );
    assert_eq!(sim.level("tokens"), 30);
    let older = announcement(0, Some(SECOND));
    assert!(
        sim.schedule
            .apply_budget_announcement(&first, &older, sim.now)
    );
    assert_eq!(sim.level("tokens"), 30, "an older response has no effect");
    let unknown = BudgetAnnouncement {
        budget_name: "requests",
        ..full
    };
    assert!(
        !sim.schedule
            .apply_budget_announcement(&third, &unknown, sim.now)
    );
    for slot in [first, second, third] {
        sim.schedule.settle(slot);
    }
}

#[test]
fn window_that_the_server_resets_soon_permits_only_the_rest() {
    let mut sim = BudgetSimulation::new(&[per_second("tokens", 100, 100)]);
    let batch = sim.schedule.add_batch(NO_LIMITS);
    let first = sim.push(batch, "a", &[("tokens", 10)]);
    let second = sim.push(batch, "a", &[("tokens", 5)]);
    let third = sim.push(batch, "a", &[("tokens", 6)]);
    let (slot, _) = sim.start(first);
    // At its own rate, the budget would refill 92 units in 920 ms.
    let window = announcement(8, Some(300 * MS));
    assert!(
        sim.schedule
            .apply_budget_announcement(&slot, &window, sim.now)
    );
    let _slot = sim.start(second);
    sim.wait_until_ms(300);
    let _slot = sim.start(third);
}

#[test]
fn reset_of_a_server_that_refills_continuously_delays_nothing() {
    let mut sim = BudgetSimulation::new(&[per_second("tokens", 100, 100)]);
    let batch = sim.schedule.add_batch(NO_LIMITS);
    let first = sim.push(batch, "a", &[("tokens", 10)]);
    let second = sim.push(batch, "a", &[("tokens", 5)]);
    let (slot, _) = sim.start(first);
    let empty = announcement(0, Some(SECOND));
    assert!(
        sim.schedule
            .apply_budget_announcement(&slot, &empty, sim.now)
    );
    sim.wait_until_ms(50);
    let _slot = sim.start(second);
}

#[test]
fn request_that_would_miss_its_deadline_is_rejected_at_once() {
    let mut sim = BudgetSimulation::new(&[per_second("tokens", 10, 10)]);
    let limits = BatchLimits {
        deadline: Some(at_ms(900)),
        ..NO_LIMITS
    };
    let batch = sim.schedule.add_batch(limits);
    let first = sim.push(batch, "a", &[("tokens", 10)]);
    let second = sim.push(batch, "a", &[("tokens", 10)]);
    let (slot, _) = sim.start(first);
    // The first request may be refunded.
    sim.wait_until_ms(900);
    assert!(sim.next_rejected().contains(&second));
    sim.settle(slot, &CostOutcome::Unknown);
    sim.now = Time::default();
    let third = sim.push(batch, "b", &[("tokens", 10)]);
    let fourth = sim.push(batch, "b", &[("tokens", 10)]);
    let (slot, _) = sim.start(third);
    sim.settle(slot, &CostOutcome::Unknown);
    assert!(sim.next_rejected().contains(&fourth), "no event can help");
}

#[test]
fn request_that_waits_for_a_budget_ends_when_its_host_is_unreachable() {
    let mut sim = BudgetSimulation::new(&[per_second("tokens", 10, 10)]);
    sim.lane_limits.breaker = BreakerConfig {
        failure_threshold: NonZeroU32::new(1),
        cooldown_nanos: SECOND,
        max_wait_nanos: 0,
    };
    let batch = sim.schedule.add_batch(NO_LIMITS);
    let first = sim.push(batch, "a", &[("tokens", 10)]);
    let second = sim.push(batch, "a", &[("tokens", 10)]);
    let (slot, _) = sim.start(first);
    sim.wait_until_ms(1_000);
    sim.now = at_ms(10);
    let observation = RouteObservation {
        health: RouteHealth::Unreachable,
        response_head_latency_nanos: None,
    };
    sim.schedule
        .record_exchange_outcome(&slot, observation, sim.now);
    sim.settle(slot, &CostOutcome::Unknown);
    assert!(!matches!(sim.next(), StartDecision::Start(..)));
    let unreachable = sim.schedule.take_unreachable_jobs();
    let ids: Vec<usize> = unreachable.iter().map(|job| job.id).collect();
    assert_eq!(ids, [second]);
}

#[test]
fn lane_with_a_debt_or_a_used_total_is_not_forgotten() {
    let mut sim = BudgetSimulation::new(&[per_second("tokens", 100, 100), total("cents", 10)]);
    let batch = sim.schedule.add_batch(NO_LIMITS);
    for lane in ["debt", "total", "full"] {
        let costs: Costs = match lane {
            "debt" => &[("tokens", 10)],
            "total" => &[("cents", 5)],
            _ => &[],
        };
        let id = sim.push(batch, lane, costs);
        let (slot, _) = sim.start(id);
        let costs = if lane == "debt" { 1_000 } else { 0 };
        sim.settle(slot, &CostOutcome::Actual(actual(&[("tokens", costs)])));
    }
    sim.now = at_ms(9_000);
    for new_lane in 0..20 {
        let id = sim.push(batch, &format!("new {new_lane}"), &[]);
        let (slot, _) = sim.start(id);
        sim.settle(slot, &CostOutcome::Unknown);
    }
    let is_kept = |lane: &str| sim.schedule.find_lane_id(lane).is_some();
    assert_eq!(["debt", "total", "full"].map(is_kept), [true, true, false]);
    let lanes = sim.schedule.lanes.len();
    assert_eq!(sim.schedule.budgets.len(), 2 * lanes);
}

#[test]
fn budgets_of_a_batch_end_with_the_batch() {
    let mut sim = BudgetSimulation::new(&[]);
    let limited = sim.schedule.add_batch(NO_LIMITS);
    sim.schedule
        .add_batch_budgets(limited, &[total("cents", 10)]);
    let other = sim.schedule.add_batch(NO_LIMITS);
    let first = sim.push(limited, "a", &[("cents", 10)]);
    let unlimited = sim.push(other, "a", &[("cents", 99)]);
    sim.push(limited, "b", &[("cents", 10)]);
    let (slot, _) = sim.start(first);
    let _slot = sim.start(unlimited);
    sim.assert_idle();
    assert_eq!(sim.schedule.remove_batch(limited).len(), 1);
    assert_eq!(sim.schedule.budgets.len(), 1, "a request is in flight");
    sim.settle(slot, &CostOutcome::Unknown);
    assert!(sim.schedule.budgets.is_empty());
}

#[test]
fn budget_of_a_tenant_applies_to_its_batches_and_ends_with_it() {
    let mut sim = BudgetSimulation::new(&[]);
    let tenant = sim.schedule.add_tenant(GateLimits::UNLIMITED);
    sim.schedule
        .add_tenant_budgets(tenant, &[per_second("tokens", 10, 10)]);
    let batches = [0, 1, 2].map(|_| sim.schedule.add_batch(NO_LIMITS));
    sim.schedule.add_batch_to_tenant(batches[0], tenant);
    sim.schedule.add_batch_to_tenant(batches[1], tenant);
    let first = sim.push(batches[0], "a", &[("tokens", 10)]);
    let second = sim.push(batches[1], "b", &[("tokens", 5)]);
    let other = sim.push(batches[2], "a", &[("tokens", 99)]);
    let (first_slot, _) = sim.start(first);
    let _slot = sim.start(other);
    sim.wait_until_ms(500);
    let levels = sim.schedule.budget_levels(sim.now);
    assert_eq!(levels[0].scope, BudgetScope::Tenant(tenant));
    let (slot, _) = sim.start(second);
    sim.settle(slot, &CostOutcome::Unknown);
    sim.schedule.remove_tenant(tenant);
    sim.schedule.remove_batch(batches[1]);
    sim.schedule.remove_batch(batches[0]);
    assert_eq!(sim.schedule.budgets.len(), 1, "a request is in flight");
    sim.settle(first_slot, &CostOutcome::Unknown);
    assert!(sim.schedule.budgets.is_empty());
}

#[test]
fn reports_name_each_budget_and_what_waits_for_it() {
    let mut sim = BudgetSimulation::new(&[per_second("tokens", 10, 20)]);
    sim.schedule.add_overall_budgets(&[total("cents", 7)]);
    let batch = sim.schedule.add_batch(NO_LIMITS);
    sim.schedule
        .add_batch_budgets(batch, &[per_second("requests", 1, 5)]);
    let first = sim.push(batch, "a", &[("tokens", 20), ("cents", 3)]);
    for _ in 0..2 {
        sim.push(batch, "a", &[("tokens", 5)]);
    }
    let _slot = sim.start(first);
    sim.wait_until_ms(500);
    sim.now = at_ms(100);
    let mut levels: Vec<_> = sim
        .schedule
        .budget_levels(sim.now)
        .into_iter()
        .map(|level| {
            let (name, parked) = (level.name.to_string(), level.parked_queue_count);
            (name, level.scope, level.level, level.capacity, parked)
        })
        .collect();
    levels.sort_by(|a, b| a.0.cmp(&b.0));
    let expected = [
        ("cents", BudgetScope::Overall, 4, 7, 0),
        ("requests", BudgetScope::Batch(batch), 4, 5, 0),
        ("tokens", BudgetScope::Lane("a".into()), 1, 20, 1),
    ];
    let owned = expected.map(|(name, scope, level, capacity, parked)| {
        (name.to_string(), scope, level, capacity, parked)
    });
    assert_eq!(levels, owned);
    let stats = sim.schedule.batch_stats(batch, sim.now);
    assert_eq!(stats.queued_count_for_reason(BlockReason::Budget), 2);
    let [busiest] = &stats.busiest_lanes[..] else {
        panic!("one lane is busy");
    };
    assert_eq!(busiest.block_reason, BlockReason::Budget);
    assert_eq!(busiest.blocking_budget.as_deref(), Some("tokens"));
}
