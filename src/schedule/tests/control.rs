//! Tests of pausing, changing and closing running batches, and these actions of the model in random
//! walks.

use super::super::{
    BatchId, BatchLimits, BlockReason, GateLimits, GcraRate, RouteKey, StartDecision,
};
use super::gate_meter::random_limits;
use super::model::{BatchLanePair, Model};
use super::simulation::{MS, NO_LIMITS, SECOND, Simulation, at_ms, concurrency, rate};

impl Model {
    fn select_batch(&self, selector: usize) -> Option<BatchId> {
        let count = self.batches.len().max(1);
        self.batches.get(selector % count).map(|(batch, _)| *batch)
    }

    pub(super) fn is_pair_closed(&self, pair: BatchLanePair) -> bool {
        self.closed.contains(&pair.0) || self.closed_pairs.contains(&pair)
    }

    pub(super) fn toggle_hold(&mut self, selector: usize) -> Result<(), String> {
        if let Some(batch) = self.select_batch(selector) {
            if self.held.remove(&batch) {
                self.sim.schedule.release_batch(batch);
            } else {
                self.held.insert(batch);
                self.sim.schedule.hold_batch(batch);
            }
        }
        Ok(())
    }

    pub(super) fn set_limits(&mut self, selector: usize) -> Result<(), String> {
        let limits = random_limits(&mut self.random);
        if let Some(batch) = self.select_batch(selector) {
            let meter = self.batch_meters.get_mut(&batch).ok_or("no such batch")?;
            meter.change_limits(limits)?;
            let schedule = &mut self.sim.schedule;
            schedule.set_batch_concurrency(batch, limits.concurrency);
            schedule.set_batch_rate(batch, limits.rate);
        }
        Ok(())
    }

    pub(super) fn close_lane_of_batch_and_take_queued_jobs(
        &mut self,
        selector: usize,
        lane: usize,
    ) -> Result<(), String> {
        let Some(batch) = self.select_batch(selector) else {
            return Ok(());
        };
        self.closed_pairs.insert((batch, lane));
        let returned = self
            .sim
            .schedule
            .close_lane_of_batch_and_take_queued_jobs(batch, &self.lane_keys[lane]);
        self.remove_returned(returned, |queued| queued.pair() == (batch, lane))
    }

    pub(super) fn close_batch_and_take_queued_jobs(
        &mut self,
        selector: usize,
    ) -> Result<(), String> {
        let Some(batch) = self.select_batch(selector) else {
            return Ok(());
        };
        self.closed.insert(batch);
        let returned = self.sim.schedule.close_batch_and_take_queued_jobs(batch);
        self.remove_returned(returned, |queued| queued.batch == batch)
    }

    /// Checks the schedule's statistics of each batch and of all together.
    pub(super) fn check_stats(&self) -> Result<(), String> {
        let now = self.sim.now;
        let mut total_queued_count = 0;
        for &(batch, _) in &self.batches {
            let queued = self
                .queued
                .values()
                .filter(|queued| queued.batch == batch)
                .count();
            let in_flight = self
                .in_flight
                .iter()
                .filter(|(slot, ..)| slot.batch_id() == batch)
                .count();
            let stats = self.sim.schedule.batch_stats(batch, now);
            if (stats.total_queued_count(), stats.in_flight_count) != (queued, in_flight) {
                return Err(format!("{stats:?}: {queued} queued, {in_flight} in flight"));
            }
            let paused = if self.held.contains(&batch) {
                queued - stats.queued_count_for_reason(BlockReason::Backoff)
            } else {
                0
            };
            if stats.queued_count_for_reason(BlockReason::BatchPaused) != paused {
                return Err(format!("{stats:?}: {paused} paused"));
            }
            let queued_in_busiest = stats.busiest_lanes.iter().map(|load| load.queued_count);
            if queued_in_busiest.sum::<usize>() > queued {
                return Err(format!("{stats:?}: {queued} queued"));
            }
            total_queued_count += queued;
        }
        let stats = self.sim.schedule.overall_stats(now);
        if (stats.total_queued_count(), stats.in_flight_count)
            == (total_queued_count, self.in_flight.len())
        {
            Ok(())
        } else {
            Err(format!("{stats:?}: {total_queued_count} queued in all"))
        }
    }
}

#[test]
fn held_batch_starts_nothing_and_leaves_the_slots_to_others() {
    let mut sim = Simulation::new(concurrency(2));
    let (held, other) = (sim.add_batch(NO_LIMITS), sim.add_batch(NO_LIMITS));
    sim.push_many(held, "a", 4);
    sim.push_many(other, "a", 2);
    let (slot, _) = sim.start();
    assert_eq!(slot.batch_id(), held);
    sim.schedule.hold_batch(held);
    sim.schedule.hold_batch(held);
    assert_eq!(sim.start().0.batch_id(), other);
    sim.schedule.settle(slot);
    assert_eq!(sim.start().0.batch_id(), other);
    assert!(matches!(sim.next(), StartDecision::WaitForChange));
    let stats = sim.schedule.batch_stats(held, sim.now);
    assert_eq!(stats.queued_count_for_reason(BlockReason::BatchPaused), 3);
    sim.schedule.release_batch(held);
    assert!(
        matches!(sim.next(), StartDecision::WaitForChange),
        "both slots are taken"
    );
}

#[test]
fn held_batch_is_not_host_limited_and_continues_in_order() {
    let mut sim = Simulation::new(concurrency(2));
    let batch = sim.add_batch(NO_LIMITS);
    sim.set_lane_limits("b", concurrency(1));
    sim.push_many(batch, "b", 2);
    sim.schedule.hold_batch(batch);
    assert!(matches!(sim.next(), StartDecision::WaitForChange));
    assert!(!sim.schedule.is_batch_blocked_only_by_hosts(batch, sim.now));
    sim.schedule.release_batch(batch);
    let (slot, first) = sim.start();
    assert!(matches!(sim.next(), StartDecision::WaitForChange));
    assert!(sim.schedule.is_batch_blocked_only_by_hosts(batch, sim.now));
    // The batch is held while its queue is parked on the lane.
    sim.schedule.hold_batch(batch);
    assert!(!sim.schedule.is_batch_blocked_only_by_hosts(batch, sim.now));
    sim.schedule.settle(slot);
    assert!(matches!(sim.next(), StartDecision::WaitForChange));
    sim.schedule.release_batch(batch);
    assert_eq!((first.id, sim.start().1.id), (0, 1));
}

#[test]
fn new_batch_rate_counts_earlier_starts_and_applies_to_the_next() {
    let mut sim = Simulation::new(GateLimits::UNLIMITED);
    let batch = sim.add_batch(BatchLimits {
        overall_limits: rate(1, 2),
        ..NO_LIMITS
    });
    sim.push_many(batch, "a", 6);
    let (_, next) = sim.start_all();
    assert!(matches!(next, StartDecision::WaitUntil(at) if at == at_ms(1000)));
    let ten_per_second = GcraRate {
        emission_interval_nanos: SECOND / 10,
        burst_tolerance_nanos: 0,
    };
    sim.schedule.set_batch_rate(batch, Some(ten_per_second));
    // The wait from now is one interval of the new rate, not of the old rate.
    assert!(matches!(sim.next(), StartDecision::WaitUntil(at) if at == at_ms(100)));
    sim.now = at_ms(100);
    let (started, next) = sim.start_all();
    assert_eq!(started.len(), 1);
    assert!(matches!(next, StartDecision::WaitUntil(at) if at == at_ms(200)));
    sim.schedule.set_batch_rate(batch, None);
    assert_eq!(sim.start_all().0.len(), 3);
}

#[test]
fn closed_batch_accepts_neither_fresh_nor_requeued_jobs() {
    let mut sim = Simulation::new(GateLimits::UNLIMITED);
    let (closed, other) = (sim.add_batch(NO_LIMITS), sim.add_batch(NO_LIMITS));
    for batch in [closed, other] {
        sim.push(batch, "a");
    }
    let (slot, job) = sim.start();
    let (other_slot, other_job) = sim.start();
    assert!(sim.settle_and_requeue(other_slot, other_job, at_ms(50)));
    sim.push(closed, "b");
    let returned = sim.schedule.close_batch_and_take_queued_jobs(closed);
    assert_eq!(returned.len(), 1);
    assert!(
        sim.schedule.is_batch_or_lane_closed(closed, None)
            && !sim.schedule.is_batch_or_lane_closed(other, None)
    );
    assert!(!sim.settle_and_requeue(slot, job, at_ms(10)));
    sim.push(closed, "c");
    assert!(matches!(sim.next(), StartDecision::WaitUntil(at) if at == at_ms(50)));
    assert_eq!(sim.rejected.len(), 1);
}

#[test]
fn closed_lane_is_closed_for_one_batch_only_and_for_redirects_to_it() {
    let mut sim = Simulation::new(GateLimits::UNLIMITED);
    let (batch, other) = (sim.add_batch(NO_LIMITS), sim.add_batch(NO_LIMITS));
    sim.push(batch, "b");
    let (slot, job) = sim.start();
    for batch in [batch, other] {
        sim.push(batch, "a");
    }
    assert_eq!(
        sim.schedule
            .close_lane_of_batch_and_take_queued_jobs(batch, "a")
            .len(),
        1
    );
    assert!(sim.schedule.is_batch_or_lane_closed(batch, Some("a")));
    assert!(!sim.schedule.is_batch_or_lane_closed(batch, Some("b")));
    let limits = || GateLimits::UNLIMITED;
    let redirected =
        sim.schedule
            .requeue_on_route(&slot, RouteKey::direct("a"), limits, job, sim.now);
    sim.schedule.settle(slot);
    assert!(redirected.is_err());
    assert_eq!(sim.start().0.batch_id(), other);
    sim.now = sim.now.plus_nanos(MS);
    sim.push(batch, "a");
    assert!(matches!(sim.next(), StartDecision::WaitForChange));
    assert!(sim.schedule.take_rejected_jobs().is_empty() && sim.rejected.len() == 1);
    assert!(
        sim.rejected
            .iter()
            .all(|(_, id)| !sim.started_ids().contains(id))
    );
}
