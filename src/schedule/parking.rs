//! Parks queues and batches whose start was refused, and wakes them.
//!
//! A parked queue or batch is not checked until the gate that refused it may have opened. If the
//! gate of a batch may have opened, the batch becomes runnable at once. A lane, in contrast, may
//! have thousands of parked queues, one per batch. A lane that may have opened therefore wakes only
//! the queue that was parked first, and wakes the next queue after that one has been checked. A
//! *wake-up* moves a queue to the front of its batch's run queue. A free slot thus causes one
//! check, not thousands, and goes to the queue that has waited longest. Routes, shares and
//! [budgets](super::budget_queues) wake their queues in the same way, and a [tenant](super::tenant)
//! wakes its batches in the same way.
//!
//! A share (the part of a lane that one batch uses) has a queue per route. At most one of them is
//! parked on the lane. The others wait in the parking lot of the share until the lane has woken
//! that queue. A batch thus gets no more turns in a lane if it uses more proxies.

use std::collections::VecDeque;

use super::admission::Admission;
use super::run_state::RunState;
use super::timer::{EarliestTimer, TimerTarget};
use super::{Schedulable, Schedule};

/// The queues that one lane, route, budget, or share of a batch in a lane has refused, and the
/// timer that wakes them.
#[derive(Debug, Default)]
pub(super) struct ParkingLot {
    /// The slab indices of the queues, in the order in which they are woken.
    pub(super) parked_queues: VecDeque<usize>,
    pub(super) earliest_timer: EarliestTimer,
}

/// Identifies the parking lot of a lane, of a route, of a batch's share of a lane, or of a budget,
/// by slab index.
#[derive(Copy, Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum ParkingLotId {
    Lane(usize),
    Share(usize),
    Route(usize),
    Budget(usize),
}

impl<J: Schedulable> Schedule<J> {
    /// Adds a queue with a ready job to its batch's run queue.
    pub(super) fn make_queue_runnable(&mut self, queue: usize) {
        self.add_to_run_queue(queue, None);
        self.make_batch_runnable(self.queues[queue].batch);
    }

    /// Makes an idle batch runnable.
    pub(super) fn make_batch_runnable(&mut self, batch: usize) {
        let runnable = &mut self.batches[batch];
        if runnable.run_state == RunState::Idle {
            runnable.run_state = RunState::Runnable;
            if runnable.next_turn_virtual_time <= self.virtual_time {
                self.overdue_batches.push_back(batch);
            } else {
                self.runnable_batches.push_back(batch);
            }
        }
    }

    /// Makes a queue runnable if it is parked on its own concurrency limit. Called if that limit
    /// may have opened.
    pub(super) fn unpark_queue_from_own_limit(&mut self, queue: usize) {
        if self.queues[queue].run_state == RunState::ParkedOnOwnLimit {
            self.make_queue_runnable(queue);
        }
    }

    /// Makes a batch runnable if it is parked on its gate. Called if that gate may have opened.
    pub(super) fn unpark_batch(&mut self, batch: usize) {
        let unparked = &mut self.batches[batch];
        if unparked.run_state == RunState::ParkedOnOwnLimit {
            unparked.run_state = RunState::Idle;
            if !unparked.run_queue.is_empty() {
                self.make_batch_runnable(batch);
            }
        }
    }

    /// Returns the parking lot, unless its lane, share or route has been removed.
    pub(super) fn find_parking_lot_mut(&mut self, lot: ParkingLotId) -> Option<&mut ParkingLot> {
        Some(match lot {
            ParkingLotId::Lane(lane) => &mut self.lanes.get_mut(lane)?.parking_lot,
            ParkingLotId::Share(share) => &mut self.shares.get_mut(share)?.parking_lot,
            ParkingLotId::Route(route) => &mut self.routes.get_mut(route)?.parking_lot,
            ParkingLotId::Budget(budget) => &mut self.budgets.get_mut(budget)?.parking_lot,
        })
    }

    /// Wakes the first queue in a parking lot whose batch is not parked. Queues of parked batches
    /// before it return to their run queues without a wake-up.
    pub(super) fn wake_next_queue_of_lot(&mut self, lot: ParkingLotId) {
        loop {
            let popped = match lot {
                ParkingLotId::Share(share) => self.pop_queue_from_share(share),
                ParkingLotId::Lane(_) | ParkingLotId::Route(_) | ParkingLotId::Budget(_) => {
                    self.pop_queue_from_lot_without_share(lot)
                }
            };
            let Some(queue) = popped else {
                return;
            };
            // All queues of a share (a batch's part of a lane) belong to one batch. The last parked
            // queue has no other queue to wake next, so it takes its turn after the other queues of
            // the batch.
            let is_last_of_share = matches!(lot, ParkingLotId::Share(_))
                && self
                    .find_parking_lot_mut(lot)
                    .is_none_or(|lot| lot.parked_queues.is_empty());
            let batch = self.queues[queue].batch;
            if self.batches[batch].is_parked() {
                self.make_queue_runnable(queue);
                self.yield_lane_turn_to_share(queue, lot);
            } else if is_last_of_share {
                return self.make_queue_runnable(queue);
            } else {
                self.add_to_run_queue(queue, Some(lot));
                return self.make_batch_runnable(batch);
            }
        }
    }

    /// Removes the first queue from the parking lot of a lane, route or budget. In a lane, another
    /// queue of the same batch is removed instead if it has a job of a higher priority.
    fn pop_queue_from_lot_without_share(&mut self, lot: ParkingLotId) -> Option<usize> {
        let queue = self.find_parking_lot_mut(lot)?.parked_queues.pop_front()?;
        let share = self.queues[queue].share;
        let is_alone = self.shares[share].parking_lot.parked_queues.is_empty();
        if is_alone || !matches!(lot, ParkingLotId::Lane(_)) {
            return Some(queue);
        }
        self.shares[share]
            .parking_lot
            .parked_queues
            .push_front(queue);
        let highest = self.pop_queue_from_share(share)?;
        self.queues[queue].run_state = RunState::ParkedInLot(ParkingLotId::Share(share));
        self.shares[share].queue_with_lane_turn = Some(highest);
        Some(highest)
    }

    /// Removes the queue with the highest-priority job from the parking lot of a share (a batch's
    /// part of a lane). Of several such queues, removes the first.
    fn pop_queue_from_share(&mut self, share: usize) -> Option<usize> {
        let parked = &mut self.shares[share].parking_lot.parked_queues;
        let level = |&queue: &usize| self.queues[queue].ready_jobs.highest_level();
        // The order is reversed, because `max_by_key` returns the last of several maxima.
        let (index, _) = parked
            .iter()
            .enumerate()
            .rev()
            .max_by_key(|(_, queue)| level(queue))?;
        parked.remove(index)
    }

    /// Makes the queues of a route runnable that are parked on its lane. Although the lane refuses
    /// starts, they must be checked, because the route rejects their jobs.
    pub(super) fn unpark_queues_of_rejecting_route(&mut self, route: usize) {
        let rejecting = &self.routes[route];
        let (lane, proxy) = (rejecting.lane, rejecting.proxy_key.clone());
        let parked = std::mem::take(&mut self.lanes[lane].parking_lot.parked_queues);
        let (rejected, kept): (VecDeque<usize>, VecDeque<usize>) = parked
            .into_iter()
            .partition(|&queue| self.queues[queue].route == route);
        // A queue of the route may also be parked on its batch's share of the lane, behind another
        // queue.
        let behind_others: Vec<usize> = kept
            .iter()
            .filter_map(|&queue| {
                let share = self.queues[queue].share;
                let queue = self.shares[share].queues.index_of(proxy.as_deref())?;
                let lot = RunState::ParkedInLot(ParkingLotId::Share(share));
                (self.queues[queue].run_state == lot).then_some(queue)
            })
            .collect();
        self.lanes[lane].parking_lot.parked_queues = kept;
        for queue in rejected {
            self.make_queue_runnable(queue);
            self.yield_lane_turn_to_share(queue, ParkingLotId::Lane(lane));
        }
        for queue in behind_others {
            self.remove_queue_from_lot(queue);
            self.make_queue_runnable(queue);
        }
        let budgets = self.budgets.iter();
        let parked_at_budgets: Vec<usize> = budgets
            .flat_map(|(_, budget)| budget.parking_lot.parked_queues.iter().copied())
            .filter(|&queue| self.queues[queue].route == route)
            .collect();
        for queue in parked_at_budgets {
            self.unpark_queue_from_budget(queue);
        }
    }

    /// Lets the next queue of the same batch take its turn in the lane. Does nothing unless `lot`
    /// is the parking lot of a lane.
    fn yield_lane_turn_to_share(&mut self, queue: usize, lot: ParkingLotId) {
        if let ParkingLotId::Lane(_) = lot {
            let share = self.queues[queue].share;
            self.shares[share].queue_with_lane_turn = None;
            self.wake_next_queue_of_lot(ParkingLotId::Share(share));
        }
    }

    /// Wakes the next queue in a parking lot. Called after the queue that the lot woke last was
    /// checked, or if that queue is not going to be checked.
    pub(super) fn forward_wakeup(&mut self, queue: usize, lot: ParkingLotId) {
        self.wake_next_queue_of_lot(lot);
        self.yield_lane_turn_to_share(queue, lot);
    }

    /// Passes the wake-ups of the queues of a batch on to other queues in the same parking lots.
    /// Called if the batch is not going to be checked.
    pub(super) fn forward_wakeups_of_batch(&mut self, batch: usize) {
        while let Some((queue, lot)) = self.pop_woken_queue(batch) {
            self.add_to_run_queue(queue, None);
            self.forward_wakeup(queue, lot);
        }
    }

    pub(super) fn park_or_reject_batch(&mut self, batch: usize, refusal: Admission) {
        let parked = &mut self.batches[batch];
        if let Admission::RefusedUntil(at) = refusal {
            if parked.deadline.is_some_and(|deadline| deadline <= at) {
                parked.run_state = RunState::Idle;
                return self.reject_queued_jobs_of_batch(batch);
            }
            if parked.earliest_timer.record_if_earlier(at) {
                self.set_timer(at, TimerTarget::Batch(batch));
            }
        }
        self.batches[batch].run_state = RunState::ParkedOnOwnLimit;
        self.forward_wakeups_of_batch(batch);
    }

    /// Parks a queue that a lane, route or share (a batch's part of a lane) has refused. A queue
    /// that the same parking lot has just woken is parked at the front.
    pub(super) fn park_or_reject_queue(
        &mut self,
        queue: usize,
        refused_by: ParkingLotId,
        refusal: Admission,
        woken_by: Option<ParkingLotId>,
    ) {
        if self.reject_ready_jobs_if_deadline_passes_first(queue, refusal) {
            return;
        }
        if self.queues[queue].budgets.is_some() && !self.is_refused_only_by_concurrency(refused_by)
        {
            self.end_reservations(queue);
        }
        let parked = &mut self.queues[queue];
        let mut lot = refused_by;
        if let ParkingLotId::Lane(_) = refused_by {
            let share = &mut self.shares[parked.share];
            if *share.queue_with_lane_turn.get_or_insert(queue) != queue {
                lot = ParkingLotId::Share(parked.share);
            }
        }
        parked.run_state = RunState::ParkedInLot(lot);
        if let Some(parking_lot) = self.find_parking_lot_mut(lot) {
            if woken_by == Some(lot) {
                parking_lot.parked_queues.push_front(queue);
            } else {
                parking_lot.parked_queues.push_back(queue);
            }
        }
        self.set_timer_of_lot(refused_by, refusal);
    }

    /// Sets a timer for the instant at which a refusal ends, if that is known.
    pub(super) fn set_timer_of_lot(&mut self, lot: ParkingLotId, refusal: Admission) {
        if let Admission::RefusedUntil(at) | Admission::RefusedUntilEventOrInstant(at) = refusal
            && let Some(parking_lot) = self.find_parking_lot_mut(lot)
            && parking_lot.earliest_timer.record_if_earlier(at)
        {
            self.set_timer(at, TimerTarget::ParkingLot(lot));
        }
    }

    /// Whether a lane or a share refuses starts only because of its concurrency limit.
    fn is_refused_only_by_concurrency(&self, refused_by: ParkingLotId) -> bool {
        let gate = match refused_by {
            ParkingLotId::Lane(lane) => &self.lanes[lane].gate,
            ParkingLotId::Share(share) => &self.shares[share].gate,
            ParkingLotId::Route(_) | ParkingLotId::Budget(_) => return false,
        };
        gate.is_limit_reached() && !gate.has_holds()
    }

    /// Whether a queue is parked in `lot` and is woken next. A queue that a lane, route or share
    /// has woken returns to the front of its lot. A queue that a budget has woken may have to wait
    /// behind other queues, because its first job is another one now.
    pub(super) fn is_first_in_lot(&self, queue: usize, lot: ParkingLotId) -> bool {
        self.queues[queue].run_state == RunState::ParkedInLot(lot)
            && match lot {
                ParkingLotId::Budget(budget) => {
                    self.budgets[budget].parking_lot.parked_queues.front() == Some(&queue)
                }
                ParkingLotId::Lane(_) | ParkingLotId::Share(_) | ParkingLotId::Route(_) => true,
            }
    }

    /// Removes a queue from the parking lot in which it is parked.
    pub(super) fn remove_queue_from_lot(&mut self, queue: usize) {
        if let RunState::ParkedInLot(lot) = self.queues[queue].run_state
            && let Some(parking_lot) = self.find_parking_lot_mut(lot)
        {
            parking_lot.parked_queues.retain(|&parked| parked != queue);
        }
    }

    /// Rejects the ready jobs of a queue if the deadline of their batch passes before `refusal`
    /// ends. Returns true if the jobs were rejected.
    fn reject_ready_jobs_if_deadline_passes_first(
        &mut self,
        queue: usize,
        refusal: Admission,
    ) -> bool {
        let deadline_passes_first = self.does_deadline_pass_first(queue, refusal);
        if deadline_passes_first {
            self.reject_ready_jobs_of_queue(queue);
            self.set_queue_idle(queue);
        }
        deadline_passes_first
    }

    /// Whether a refusal certainly lasts until the deadline of a queue's batch.
    pub(super) fn does_deadline_pass_first(&self, queue: usize, refusal: Admission) -> bool {
        let Admission::RefusedUntil(at) = refusal else {
            return false;
        };
        let deadline = self.batches[self.queues[queue].batch].deadline;
        deadline.is_some_and(|deadline| deadline <= at)
    }

    /// Marks a queue as idle because it has no ready job. Makes the queue an eviction candidate if
    /// it also has no other job.
    pub(super) fn set_queue_idle(&mut self, queue: usize) {
        self.queues[queue].run_state = RunState::Idle;
        self.add_eviction_candidate_if_idle(queue);
    }

    /// Empties the run queue of a batch. Called if the queues of the batch have no ready jobs.
    pub(super) fn clear_run_queue(&mut self, batch: usize) {
        self.forward_wakeups_of_batch(batch);
        while let Some((queue, _)) = self.pop_runnable_queue(batch) {
            self.set_queue_idle(queue);
        }
    }
}
