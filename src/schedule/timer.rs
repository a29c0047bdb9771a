//! Timers and batch deadlines. A timer is set for the instant at which a backoff ends or a gate may
//! open.
//!
//! Timers are never cancelled. A timer that fires needlessly only causes a check.

use std::cmp::Reverse;

use super::parking::ParkingLotId;
use super::{Schedulable, Schedule, Time};

/// Obsolete timers are removed only if there are at least this many timers.
const MIN_TIMERS_BEFORE_SWEEP: usize = 64;

/// The job, parking lot or batch for which a timer fires, by its slab index.
#[derive(Copy, Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum TimerTarget {
    DelayedJob(usize),
    ParkingLot(ParkingLotId),
    Batch(usize),
    Tenant(usize),
}

/// The instant of the earliest timer of one target.
#[derive(Debug, Default)]
pub(super) struct EarliestTimer(Option<Time>);

impl EarliestTimer {
    /// Records `at` and returns true, unless a timer for `at` or an earlier instant is set. If the
    /// result is true, the caller must set the timer.
    pub(super) fn record_if_earlier(&mut self, at: Time) -> bool {
        let is_earlier = self.0.is_none_or(|set| at < set);
        if is_earlier {
            self.0 = Some(at);
        }
        is_earlier
    }

    fn is_set_at(&self, at: Time) -> bool {
        self.0 == Some(at)
    }

    fn clear_if_due(&mut self, now: Time) {
        self.0 = self.0.filter(|&at| at > now);
    }
}

impl<J: Schedulable> Schedule<J> {
    pub(super) fn set_timer(&mut self, at: Time, target: TimerTarget) {
        if self.timers.len() >= self.timer_sweep_threshold {
            self.remove_obsolete_timers();
        }
        self.last_timer_seq += 1;
        self.timers.push(Reverse((at, self.last_timer_seq, target)));
    }

    /// Removes obsolete timers: timers whose target no longer exists or has an earlier timer.
    ///
    /// Obsolete timers may be hours ahead, so they are removed whenever the number of timers has
    /// doubled since the last removal.
    fn remove_obsolete_timers(&mut self) {
        let mut timers = std::mem::take(&mut self.timers);
        timers.retain(|&Reverse((at, _, target))| match target {
            TimerTarget::DelayedJob(delayed) => self
                .delayed_jobs
                .get(delayed)
                .is_some_and(|delayed| delayed.not_before == at),
            TimerTarget::ParkingLot(lot) => self
                .find_parking_lot_mut(lot)
                .is_some_and(|lot| lot.earliest_timer.is_set_at(at)),
            TimerTarget::Batch(batch) => self
                .batches
                .get(batch)
                .is_some_and(|batch| batch.earliest_timer.is_set_at(at)),
            TimerTarget::Tenant(tenant) => self
                .tenants
                .get(tenant)
                .is_some_and(|tenant| tenant.earliest_timer.is_set_at(at)),
        });
        self.timers = timers;
        self.timer_sweep_threshold = MIN_TIMERS_BEFORE_SWEEP.max(2 * self.timers.len());
    }

    /// Returns the instant of the next timer or deadline.
    pub(super) fn next_timer_or_deadline(&self) -> Option<Time> {
        let timer = self.timers.peek().map(|Reverse((at, ..))| *at);
        let deadline = self.deadlines.first().map(|(at, _)| *at);
        timer.into_iter().chain(deadline).min()
    }

    /// Fires the timers and deadlines that are due.
    ///
    /// The slab index of a target may have been reused since the timer was set. Each target is
    /// therefore checked before it is changed.
    pub(super) fn fire_due_timers_and_deadlines(&mut self, now: Time) {
        while let Some(&Reverse((at, _, target))) = self.timers.peek()
            && at <= now
        {
            self.timers.pop();
            match target {
                TimerTarget::DelayedJob(delayed) => self.end_backoff_if_due(delayed, now),
                TimerTarget::ParkingLot(lot) => {
                    let gate = match lot {
                        ParkingLotId::Lane(lane) => {
                            self.lanes.get_mut(lane).map(|lane| &mut lane.gate)
                        }
                        ParkingLotId::Share(share) => {
                            self.shares.get_mut(share).map(|share| &mut share.gate)
                        }
                        ParkingLotId::Route(_) | ParkingLotId::Budget(_) => None,
                    };
                    if let Some(gate) = gate {
                        gate.make_up_for_late_timer(now);
                    }
                    if let Some(parking_lot) = self.find_parking_lot_mut(lot) {
                        parking_lot.earliest_timer.clear_if_due(now);
                        self.wake_next_queue_of_lot(lot);
                    }
                }
                TimerTarget::Batch(batch) => {
                    if let Some(woken) = self.batches.get_mut(batch) {
                        woken.earliest_timer.clear_if_due(now);
                        woken.gate.make_up_for_late_timer(now);
                        self.unpark_batch(batch);
                    }
                }
                TimerTarget::Tenant(tenant) => {
                    if let Some(opened) = self.tenants.get_mut(tenant) {
                        opened.earliest_timer.clear_if_due(now);
                        opened.gate.make_up_for_late_timer(now);
                        self.wake_next_batch_of_tenant(tenant);
                    }
                }
            }
        }
        while let Some(&(deadline, batch)) = self.deadlines.first()
            && deadline <= now
        {
            self.deadlines.pop_first();
            self.reject_queued_jobs_of_batch(batch);
        }
    }

    fn end_backoff_if_due(&mut self, delayed: usize, now: Time) {
        if self
            .delayed_jobs
            .get(delayed)
            .is_some_and(|delayed| delayed.not_before <= now)
        {
            self.make_delayed_job_ready(delayed);
        }
    }
}
