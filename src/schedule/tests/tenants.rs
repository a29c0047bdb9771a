//! Tests of tenants: batches that have limits in common, within the limits of the schedule.

use super::super::{BatchId, BatchLimits, BlockReason, GateLimits, StartDecision, TenantId, Time};
use super::gate_meter::check_rate;
use super::simulation::{
    MS, NO_LIMITS, Outcome, RecordedStart, SECOND, Simulation, at_ms, concurrency, rate,
};

/// Adds batches of one tenant, each with `jobs` jobs for a lane of its own.
fn add_tenant_batches(
    sim: &mut Simulation,
    tenant: TenantId,
    batches: usize,
    jobs: usize,
) -> Vec<BatchId> {
    let mut add_batch = |number: usize| {
        let batch = sim.add_tenant_batch(tenant, NO_LIMITS);
        sim.push_many(batch, &format!("{}-{number}", tenant.0), jobs);
        batch
    };
    (0..batches).map(&mut add_batch).collect()
}

fn starts_at(starts: &[RecordedStart], at: Time) -> usize {
    starts.iter().filter(|start| start.at == at).count()
}

#[test]
fn tenant_limits_its_batches_together_and_no_others() {
    let mut sim = Simulation::new(GateLimits::UNLIMITED);
    let tenant = sim.schedule.add_tenant(concurrency(3));
    add_tenant_batches(&mut sim, tenant, 4, 3);
    let other = sim.add_batch(NO_LIMITS);
    sim.push_many(other, "other", 20);
    sim.run(|_| Outcome::Done(10 * MS));
    let is_other = |start: &&RecordedStart| start.batch == other;
    let (others, own): (Vec<_>, Vec<_>) = sim.starts.iter().partition(is_other);
    assert_eq!((others.len(), own.len()), (20, 12));
    assert!(others.iter().all(|start| start.at == at_ms(0)));
    for round in 0..4 {
        let at = at_ms(10 * round);
        assert_eq!(own.iter().filter(|start| start.at == at).count(), 3);
    }
}

#[test]
fn schedule_limits_all_tenants_together() {
    let mut sim = Simulation::new(concurrency(4));
    let tenants = [3, 3].map(|limit| sim.schedule.add_tenant(concurrency(limit)));
    for tenant in tenants {
        add_tenant_batches(&mut sim, tenant, 2, 10);
    }
    sim.run(|_| Outcome::Done(10 * MS));
    assert_eq!(sim.max_in_flight, 4);
    assert_eq!(sim.now, at_ms(40 / 4 * 10));
}

/// The slots that a full tenant leaves go to the other tenant.
#[test]
fn no_slot_idles_while_another_tenant_may_start() {
    let mut sim = Simulation::new(concurrency(10));
    let [narrow, wide] = [2, 9].map(|limit| sim.schedule.add_tenant(concurrency(limit)));
    add_tenant_batches(&mut sim, narrow, 50, 4);
    add_tenant_batches(&mut sim, wide, 2, 400);
    sim.run(|_| Outcome::Done(10 * MS));
    // 200 starts of the narrow tenant take 1 s with 2 slots. The other 8 slots start 800.
    assert_eq!(sim.now, at_ms(1_000));
    for round in 0..100 {
        assert_eq!(
            starts_at(&sim.starts, at_ms(10 * round)),
            10,
            "in round {round}"
        );
    }
}

#[test]
fn parked_batches_of_a_tenant_are_woken_in_order() {
    let mut sim = Simulation::new(GateLimits::UNLIMITED);
    let tenant = sim.schedule.add_tenant(concurrency(1));
    let batches = add_tenant_batches(&mut sim, tenant, 5, 6);
    sim.run(|_| Outcome::Done(MS));
    let order: Vec<_> = sim.starts.iter().map(|start| start.batch).collect();
    assert!(order.chunks(5).all(|round| round == batches), "{order:?}");
}

#[test]
fn free_slot_of_a_tenant_wakes_one_of_many_parked_batches() {
    let mut sim = Simulation::new(GateLimits::UNLIMITED);
    let tenant = sim.schedule.add_tenant(concurrency(1));
    add_tenant_batches(&mut sim, tenant, 5_000, 1);
    let (mut slot, _) = sim.start();
    assert!(matches!(sim.next(), StartDecision::WaitForChange));
    for left in (0..4_999).rev() {
        sim.schedule.settle(slot);
        let schedule = &sim.schedule;
        let runnable = schedule.overdue_batches.len() + schedule.runnable_batches.len();
        let parked = schedule.tenants[tenant.0].parked_batches.len();
        assert_eq!((runnable, parked), (1, left));
        slot = sim.start().0;
        assert!(matches!(sim.next(), StartDecision::WaitForChange));
    }
    sim.schedule.settle(slot);
}

#[test]
fn rate_of_a_tenant_is_reached_and_not_exceeded_beside_busy_batches() {
    for (batches, burst) in [(1, 1), (20, 1), (20, 5), (400, 1)] {
        let mut sim = Simulation::new(concurrency(10));
        let limits = rate(50, burst);
        let tenant = sim.schedule.add_tenant(limits);
        add_tenant_batches(&mut sim, tenant, batches, 400 / batches);
        let busy = sim.add_batch(NO_LIMITS);
        sim.push_many(busy, "busy", 2_000);
        let mut random = fastrand::Rng::with_seed(7);
        sim.run_until(at_ms(4_000), |_| Outcome::Done(random.u64(30..70) * MS));
        let is_tenants = |start: &&RecordedStart| start.batch != busy;
        let own: Vec<_> = sim.starts.iter().filter(is_tenants).collect();
        let times: Vec<_> = own.iter().map(|start| start.at).collect();
        let slack = 2 * limits.rate.unwrap().emission_interval_nanos;
        check_rate(&times, limits.rate.unwrap(), slack).unwrap();
        assert!(
            own.len() >= 195,
            "{} starts, where 200 are allowed",
            own.len()
        );
    }
}

#[test]
fn rate_of_a_tenant_spaces_the_starts_of_all_its_batches() {
    let mut sim = Simulation::new(GateLimits::UNLIMITED);
    let tenant = sim.schedule.add_tenant(rate(10, 2));
    let batches = add_tenant_batches(&mut sim, tenant, 3, 2);
    let (started, next) = sim.start_all();
    assert_eq!(started.len(), 2);
    assert!(matches!(next, StartDecision::WaitUntil(at) if at == at_ms(100)));
    let reason = |sim: &Simulation, batch| {
        let stats = sim.schedule.batch_stats(batch, sim.now);
        stats.queued_count_for_reason(BlockReason::Rate)
    };
    let waiting = batches.iter().map(|&batch| reason(&sim, batch));
    assert_eq!(waiting.sum::<usize>(), 4);
    sim.run(|_| Outcome::Done(MS));
    let expected = [0, 0, 100, 200, 300, 400].map(at_ms);
    assert_eq!(sim.start_times(), expected);
}

#[test]
fn block_reason_of_a_full_tenant_is_concurrency() {
    let mut sim = Simulation::new(GateLimits::UNLIMITED);
    let tenant = sim.schedule.add_tenant(concurrency(1));
    let [running, waiting] = [0; 2].map(|_| sim.add_tenant_batch(tenant, NO_LIMITS));
    sim.push(running, "a");
    let _slot = sim.start();
    sim.push(waiting, "b");
    assert!(
        !sim.schedule
            .is_batch_blocked_only_by_hosts(waiting, sim.now)
    );
    assert!(matches!(sim.next(), StartDecision::WaitForChange));
    let stats = sim.schedule.batch_stats(waiting, sim.now);
    assert_eq!(stats.queued_count_for_reason(BlockReason::Concurrency), 1);
    assert!(
        !sim.schedule
            .is_batch_blocked_only_by_hosts(waiting, sim.now)
    );
}

/// The lane is full, but a batch whose tenant is full pulls no inputs for other hosts.
#[test]
fn batch_of_a_full_tenant_is_not_blocked_only_by_hosts() {
    let mut sim = Simulation::new(GateLimits::UNLIMITED);
    sim.set_lane_limits("a", concurrency(1));
    let tenant = sim.schedule.add_tenant(concurrency(2));
    let [one, other] = [0; 2].map(|_| sim.add_tenant_batch(tenant, NO_LIMITS));
    sim.push_many(one, "a", 2);
    let _slot = sim.start();
    assert!(matches!(sim.next(), StartDecision::WaitForChange));
    assert!(sim.schedule.is_batch_blocked_only_by_hosts(one, sim.now));
    sim.push(other, "b");
    let (slot, _) = sim.start();
    assert!(!sim.schedule.is_batch_blocked_only_by_hosts(one, sim.now));
    sim.schedule.settle(slot);
    assert!(sim.schedule.is_batch_blocked_only_by_hosts(one, sim.now));
}

/// The tenant wakes a batch that cannot use the slot, so another batch must be woken instead.
#[test]
fn woken_batch_that_cannot_start_forwards_the_wakeup_of_its_tenant() {
    type End = fn(&mut Simulation, BatchId);
    let ends: [(&str, End); 4] = [
        ("removed", |sim, batch| {
            sim.schedule.remove_batch(batch);
        }),
        ("held", |sim, batch| sim.schedule.hold_batch(batch)),
        ("emptied", |sim, batch| {
            sim.schedule.take_queued_jobs_of_batch(batch);
        }),
        ("closed", |sim, batch| {
            sim.schedule.close_batch_and_take_queued_jobs(batch);
        }),
    ];
    for (name, end) in ends {
        for is_woken in [false, true] {
            let mut sim = Simulation::new(GateLimits::UNLIMITED);
            let tenant = sim.schedule.add_tenant(concurrency(1));
            let batches = add_tenant_batches(&mut sim, tenant, 3, 1);
            let (slot, _) = sim.start();
            assert!(matches!(sim.next(), StartDecision::WaitForChange));
            if is_woken {
                sim.schedule.settle(slot);
                end(&mut sim, batches[1]);
            } else {
                end(&mut sim, batches[1]);
                sim.schedule.settle(slot);
            }
            assert_eq!(sim.start().0.batch_id(), batches[2], "{name}");
        }
    }
}

/// The rate of the tenant grants nothing before the deadline of the first parked batch.
#[test]
fn batch_is_rejected_at_once_if_its_deadline_passes_before_the_tenant_opens() {
    let mut sim = Simulation::new(GateLimits::UNLIMITED);
    let tenant = sim.schedule.add_tenant(rate(1, 1));
    let until = |deadline| BatchLimits {
        deadline: Some(at_ms(deadline)),
        ..NO_LIMITS
    };
    let first = sim.add_tenant_batch(tenant, until(5_000));
    let late = sim.add_tenant_batch(tenant, until(1_500));
    let last = sim.add_tenant_batch(tenant, until(9_000));
    sim.push_many(first, "a", 2);
    sim.push_many(late, "b", 2);
    sim.push(last, "c");
    sim.run(|_| Outcome::Done(MS));
    assert_eq!(sim.start_times(), [0, 1_000, 2_000, 3_000].map(at_ms));
    let order: Vec<_> = sim.starts.iter().map(|start| start.batch).collect();
    assert_eq!(order, [first, late, last, first]);
    assert_eq!(sim.rejected, [(at_ms(1_000), 3)]);
}

/// The tenant is full when its batches are parked, so no timer is set for its rate.
#[test]
fn rejected_batch_forwards_the_wakeup_of_its_tenant() {
    let mut sim = Simulation::new(GateLimits::UNLIMITED);
    let tenant = sim.schedule.add_tenant(GateLimits {
        concurrency: 1,
        ..rate(1, 1)
    });
    let [first, last] = [0; 2].map(|_| sim.add_tenant_batch(tenant, NO_LIMITS));
    let late = sim.add_tenant_batch(
        tenant,
        BatchLimits {
            deadline: Some(at_ms(500)),
            ..NO_LIMITS
        },
    );
    for batch in [first, late, last] {
        sim.push(batch, "a");
    }
    let (slot, _) = sim.start();
    assert!(matches!(sim.next(), StartDecision::WaitUntil(at) if at == at_ms(500)));
    sim.now = at_ms(100);
    sim.schedule.settle(slot);
    assert!(matches!(sim.next(), StartDecision::WaitUntil(at) if at == at_ms(500)));
    assert_eq!(sim.rejected, [(at_ms(100), 1)]);
    sim.now = at_ms(500);
    assert!(matches!(sim.next(), StartDecision::WaitUntil(at) if at == at_ms(1_000)));
    sim.now = at_ms(1_000);
    assert_eq!(sim.start().0.batch_id(), last);
}

#[test]
fn removed_tenant_limits_its_batches_until_they_end() {
    let mut sim = Simulation::new(GateLimits::UNLIMITED);
    let tenant = sim.schedule.add_tenant(concurrency(1));
    let batches = add_tenant_batches(&mut sim, tenant, 2, 2);
    sim.schedule.remove_tenant(tenant);
    let (slot, _) = sim.start();
    assert!(matches!(sim.next(), StartDecision::WaitForChange));
    sim.schedule.remove_batch(batches[0]);
    sim.schedule.remove_batch(batches[1]);
    assert_eq!(sim.schedule.tenants.len(), 1, "a slot is in flight");
    sim.schedule.settle(slot);
    assert!(sim.schedule.tenants.is_empty() && sim.schedule.batches.is_empty());
}

#[test]
fn a_million_tenants_leave_nothing_behind() {
    let mut sim = Simulation::new(GateLimits::UNLIMITED);
    let hour = 3_600 * SECOND;
    let mut max_items = 0;
    let slow = GateLimits {
        rate: rate(1, 1).rate,
        ..concurrency(2)
    };
    for turn in 0..1_000_000u64 {
        let tenant = sim.schedule.add_tenant(slow);
        let batch = sim.add_tenant_batch(tenant, NO_LIMITS);
        sim.push_many(batch, "a", 2);
        let (slot, _) = sim.start();
        assert!(matches!(sim.next(), StartDecision::WaitUntil(_)));
        if turn.is_multiple_of(2) {
            sim.schedule.remove_tenant(tenant);
        }
        assert_eq!(sim.schedule.remove_batch(batch).len(), 1);
        sim.schedule.settle(slot);
        if !turn.is_multiple_of(2) {
            sim.schedule.remove_tenant(tenant);
        }
        sim.now = sim.now.plus_nanos(hour / 1_000_000);
        sim.starts.clear();
        let schedule = &sim.schedule;
        max_items =
            max_items.max(schedule.tenants.len() + schedule.timers.len() + schedule.batches.len());
    }
    assert!(sim.schedule.tenants.is_empty() && sim.schedule.batches.is_empty());
    assert!(max_items <= 200, "{max_items} items are kept");
}

#[test]
fn sweep_keeps_the_timers_of_tenants() {
    let mut sim = Simulation::new(GateLimits::UNLIMITED);
    for _ in 0..300 {
        let tenant = sim.schedule.add_tenant(rate(10, 1));
        add_tenant_batches(&mut sim, tenant, 2, 2);
    }
    sim.run(|_| Outcome::Done(MS));
    assert_eq!((sim.starts.len(), sim.schedule.queued_count), (1_200, 0));
    assert_eq!(sim.starts.last().unwrap().at, at_ms(300));
}

#[test]
fn limits_of_a_batch_can_change_while_it_is_parked_at_its_tenant() {
    let mut sim = Simulation::new(GateLimits::UNLIMITED);
    let tenant = sim.schedule.add_tenant(concurrency(2));
    let [one, other] = [0; 2].map(|_| sim.add_tenant_batch(tenant, NO_LIMITS));
    sim.push_many(one, "a", 2);
    sim.push_many(other, "b", 3);
    sim.schedule.set_batch_concurrency(one, 2);
    let (started, _) = sim.start_all();
    let in_flight = [one, other].map(|batch| sim.schedule.in_flight(batch));
    assert_eq!((started.len(), in_flight), (2, [1, 1]));
    sim.schedule.set_batch_concurrency(other, 1);
    sim.schedule.set_batch_rate(other, rate(1, 1).rate);
    assert!(matches!(sim.next(), StartDecision::WaitForChange));
    sim.schedule.set_batch_concurrency(other, 5);
    sim.schedule.set_batch_rate(other, None);
    assert!(matches!(sim.next(), StartDecision::WaitForChange));
    for (slot, _) in started {
        sim.schedule.settle(slot);
    }
    assert_eq!(sim.start_all().0.len(), 2);
}
