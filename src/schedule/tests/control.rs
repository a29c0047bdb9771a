//! A batch that is steered: exact cases, and the model's part of the random walks.

use super::super::{BatchId, BlockReason, GateLimits, GcraRate, StartDecision};
use super::gate_meter::some_limits;
use super::model::{Model, Pair};
use super::simulation::{MS, NO_LIMITS, SECOND, Sim, at_most, at_ms, rate};

impl Model {
    fn some_batch(&self, which: usize) -> Option<BatchId> {
        let count = self.batches.len().max(1);
        self.batches.get(which % count).map(|(batch, _)| *batch)
    }

    pub(super) fn is_closed(&self, pair: Pair) -> bool {
        self.closed.contains(&pair.0) || self.closed_pairs.contains(&pair)
    }

    pub(super) fn hold(&mut self, which: usize) -> Result<(), String> {
        if let Some(batch) = self.some_batch(which) {
            if self.held.remove(&batch) {
                self.sim.schedule.release_batch(batch);
            } else {
                self.held.insert(batch);
                self.sim.schedule.hold_batch(batch);
            }
        }
        Ok(())
    }

    pub(super) fn set_limits(&mut self, which: usize) -> Result<(), String> {
        let limits = some_limits(&mut self.random);
        if let Some(batch) = self.some_batch(which) {
            let meter = self.per_batch.get_mut(&batch).ok_or("no such batch")?;
            meter.change(limits)?;
            let schedule = &mut self.sim.schedule;
            schedule.set_batch_concurrency(batch, limits.concurrency);
            schedule.set_batch_rate(batch, limits.rate);
        }
        Ok(())
    }

    pub(super) fn close_lane(&mut self, which: usize, lane: usize) -> Result<(), String> {
        let Some(batch) = self.some_batch(which) else {
            return Ok(());
        };
        self.closed_pairs.insert((batch, lane));
        let given_back = self.sim.schedule.close_lane(batch, &self.names[lane]);
        self.give_back(given_back, |waited| waited.pair() == (batch, lane))
    }

    pub(super) fn close(&mut self, which: usize) -> Result<(), String> {
        let Some(batch) = self.some_batch(which) else {
            return Ok(());
        };
        self.closed.insert(batch);
        let given_back = self.sim.schedule.close_batch(batch);
        self.give_back(given_back, |waited| waited.batch == batch)
    }

    /// What the schedule says of each batch adds up to what there is.
    pub(super) fn check_census(&self) -> Result<(), String> {
        let now = self.sim.now;
        let mut sum = 0;
        for &(batch, _) in &self.batches {
            let waiting = self
                .waiting
                .values()
                .filter(|one| one.batch == batch)
                .count();
            let in_flight = self
                .in_flight
                .iter()
                .filter(|(slot, ..)| slot.batch() == batch);
            let in_flight = in_flight.count();
            let census = self.sim.schedule.batch_stats(batch, now);
            if (census.total_queued(), census.in_flight) != (waiting, in_flight) {
                return Err(format!(
                    "{census:?}: {waiting} wait, {in_flight} are in flight"
                ));
            }
            let paused = match self.held.contains(&batch) {
                true => waiting - census.queued_for(BlockReason::Backoff),
                false => 0,
            };
            if census.queued_for(BlockReason::BatchPaused) != paused {
                return Err(format!("{census:?}: {paused} are paused"));
            }
            if census
                .busiest_lanes
                .iter()
                .map(|load| load.queued)
                .sum::<usize>()
                > waiting
            {
                return Err(format!("{census:?}: more than {waiting} wait"));
            }
            sum += waiting;
        }
        let census = self.sim.schedule.stats(now);
        match (census.total_queued(), census.in_flight) == (sum, self.in_flight.len()) {
            true => Ok(()),
            false => Err(format!("{census:?}: {sum} wait in all")),
        }
    }
}

#[test]
fn a_held_batch_starts_nothing_and_leaves_the_limits_to_others() {
    let mut sim = Sim::new(at_most(2));
    let (held, other) = (sim.batch(NO_LIMITS), sim.batch(NO_LIMITS));
    sim.push_many(held, "a", 4);
    sim.push_many(other, "a", 2);
    let (slot, _) = sim.start();
    assert_eq!(slot.batch(), held);
    sim.schedule.hold_batch(held);
    sim.schedule.hold_batch(held);
    assert_eq!(sim.start().0.batch(), other);
    sim.schedule.settle(slot);
    assert_eq!(sim.start().0.batch(), other);
    assert!(matches!(sim.next(), StartDecision::Idle));
    assert_eq!(
        sim.schedule
            .batch_stats(held, sim.now)
            .queued_for(BlockReason::BatchPaused),
        3
    );
    sim.schedule.release_batch(held);
    assert!(
        matches!(sim.next(), StartDecision::Idle),
        "both slots are taken"
    );
}

#[test]
fn a_held_batch_is_resumed_in_its_order_and_asks_for_no_inputs_meanwhile() {
    let mut sim = Sim::new(at_most(2));
    let batch = sim.batch(NO_LIMITS);
    sim.limit_lane("b", at_most(1));
    sim.push_many(batch, "b", 2);
    sim.schedule.hold_batch(batch);
    assert!(matches!(sim.next(), StartDecision::Idle));
    assert!(!sim.schedule.is_host_limited(batch, sim.now));
    sim.schedule.release_batch(batch);
    let (slot, first) = sim.start();
    assert!(matches!(sim.next(), StartDecision::Idle));
    assert!(sim.schedule.is_host_limited(batch, sim.now));
    // Held again before it was looked at: its jobs are in the line of their lane.
    sim.schedule.hold_batch(batch);
    assert!(!sim.schedule.is_host_limited(batch, sim.now));
    sim.schedule.settle(slot);
    assert!(matches!(sim.next(), StartDecision::Idle));
    sim.schedule.release_batch(batch);
    assert_eq!((first.id, sim.start().1.id), (0, 1));
}

#[test]
fn a_new_pace_counts_what_was_started_and_holds_from_the_next_start() {
    let mut sim = Sim::new(GateLimits::UNLIMITED);
    let limits = super::super::BatchLimits {
        overall: rate(1, 2),
        ..NO_LIMITS
    };
    let batch = sim.batch(limits);
    sim.push_many(batch, "a", 6);
    let (_, next) = sim.start_all();
    assert!(matches!(next, StartDecision::WaitUntil(at) if at == at_ms(1000)));
    let pace = GcraRate {
        emission_interval: SECOND / 10,
        burst_tolerance: 0,
    };
    sim.schedule.set_batch_rate(batch, Some(pace));
    // A burst was spent: one emission_interval of the new pace from now, not one second.
    assert!(matches!(sim.next(), StartDecision::WaitUntil(at) if at == at_ms(100)));
    sim.now = at_ms(100);
    let (started, next) = sim.start_all();
    assert_eq!(started.len(), 1);
    assert!(matches!(next, StartDecision::WaitUntil(at) if at == at_ms(200)));
    sim.schedule.set_batch_rate(batch, None);
    assert_eq!(sim.start_all().0.len(), 3);
}

#[test]
fn what_comes_back_to_a_closed_batch_is_given_back() {
    let mut sim = Sim::new(GateLimits::UNLIMITED);
    let (closed, other) = (sim.batch(NO_LIMITS), sim.batch(NO_LIMITS));
    for batch in [closed, other] {
        sim.push(batch, "a");
    }
    let (slot, job) = sim.start();
    let (backs_off, again) = sim.start();
    assert!(sim.settle_again(backs_off, again, at_ms(50)));
    sim.push(closed, "b");
    let given_back = sim.schedule.close_batch(closed);
    assert_eq!(given_back.len(), 1);
    assert!(sim.schedule.is_closed(closed, None) && !sim.schedule.is_closed(other, None));
    assert!(!sim.settle_again(slot, job, at_ms(10)));
    sim.push(closed, "c");
    assert!(matches!(sim.next(), StartDecision::WaitUntil(at) if at == at_ms(50)));
    assert_eq!(sim.refused.len(), 1);
}

#[test]
fn a_closed_lane_is_closed_for_its_batch_alone_and_for_what_is_led_there() {
    let mut sim = Sim::new(GateLimits::UNLIMITED);
    let (of, other) = (sim.batch(NO_LIMITS), sim.batch(NO_LIMITS));
    sim.push(of, "b");
    let (slot, job) = sim.start();
    for batch in [of, other] {
        sim.push(batch, "a");
    }
    assert_eq!(sim.schedule.close_lane(of, "a").len(), 1);
    assert!(sim.schedule.is_closed(of, Some("a")) && !sim.schedule.is_closed(of, Some("b")));
    let now = sim.now;
    let led = sim
        .schedule
        .requeue_in_lane(&slot, "a", || GateLimits::UNLIMITED, job, now);
    sim.schedule.settle(slot);
    assert!(led.is_err());
    assert_eq!(sim.start().0.batch(), other);
    sim.now = sim.now.plus_nanos(MS);
    sim.push(of, "a");
    assert!(matches!(sim.next(), StartDecision::Idle));
    assert!(sim.schedule.take_rejected().is_empty() && sim.refused.len() == 1);
    assert!(sim.refused.iter().all(|(_, id)| !sim.ids().contains(id)));
}
