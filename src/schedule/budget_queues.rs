//! Checks the budgets of a queue before a start, and determines the order in which a budget serves
//! queues.
//!
//! A queue has the budgets of its lane, of its batch, of its tenant and of the schedule. They are
//! checked in this order, after all gates have granted a start. A queue that a budget refuses is
//! parked in the lot of that budget. The queue gets a [`Ticket`], which it keeps until its first
//! job starts or is removed. Three rules ensure that small costs do not overtake a large one
//! forever, and that a queue is not delayed by a cost that it does not compete with:
//!
//! - A lot is ordered by ticket. While a queue is parked in a lot, the budget refuses all queues
//!   with younger tickets.
//! - A refused queue *reserves* its cost on the refusing budget, on the other budgets of the same
//!   scope, and on those of narrower scopes. Another queue starts only if the level also covers the
//!   oldest reservation that is older than its own ticket. A reservation charges nothing: the
//!   budget is refilled as before, and costs that leave enough for the reservation are granted.
//! - A refused queue reserves nothing on a wider scope. A request that waits for the tokens of its
//!   host delays no other host at a budget that all hosts share.
//!
//! A budget refuses the queue with the oldest ticket only because its level is too low, never
//! because of another queue. So the queue starts once the levels cover its costs and all gates
//! grant the start.
//!
//! If a gate or a route refuses the queue meanwhile, its reservations end. They remain only if a
//! lane or a share refuses because of its concurrency limit. A held batch has no reservations. In
//! all these cases, the queue keeps its ticket.

use super::admission::Admission;
use super::budget::{Budget, Ticket};
use super::parking::ParkingLotId;
use super::priority::{JobFreshness, PriorityLevel};
use super::run_state::RunState;
use super::{Schedulable, Schedule, Time};

/// The refusal of a start by a budget.
pub(super) struct BudgetRefusal {
    /// The slab index of the budget.
    pub(super) budget: usize,
    pub(super) admission: Admission,
}

impl<J: Schedulable> Schedule<J> {
    /// The first budget that refuses the first job of a queue.
    fn check_budgets(&self, queue: usize, now: Time) -> Option<BudgetRefusal> {
        let checked = &self.queues[queue];
        let budgets = checked.budgets.as_deref()?;
        let job = checked.ready_jobs.front()?;
        if job.has_carried_charge() {
            return None;
        }
        budgets.indices.iter().find_map(|&index| {
            let budget = &self.budgets[index];
            let cost = budget.cost_of(job);
            if cost == 0 {
                return None;
            }
            let admission = if self.has_older_queue_parked(budget, budgets.ticket) {
                Admission::RefusedUntilEvent
            } else {
                budget.check(budgets.ticket, cost, now)
            };
            (admission != Admission::Granted).then_some(BudgetRefusal {
                budget: index,
                admission,
            })
        })
    }

    fn has_older_queue_parked(&self, budget: &Budget, ticket: Ticket) -> bool {
        let first = budget.parking_lot.parked_queues.front();
        first.is_some_and(|&first| self.ticket_of(first) < ticket)
    }

    pub(super) fn ticket_of(&self, queue: usize) -> Ticket {
        let budgets = self.queues[queue].budgets.as_deref();
        budgets.map_or(Ticket::NONE, |budgets| budgets.ticket)
    }

    /// Charges the first job of a queue if all its budgets grant the start. Otherwise parks the
    /// queue, or removes first jobs that can never start. Returns true if the job was charged.
    #[inline(never)]
    pub(super) fn charge_front_job_or_park(&mut self, queue: usize, now: Time) -> bool {
        if self.remove_unaffordable_front_jobs(queue) {
            self.return_to_run_queue(queue);
            return false;
        }
        if let Some(refusal) = self.check_budgets(queue, now) {
            self.park_queue_at_budget_or_reject_front_job(queue, refusal);
            return false;
        }
        self.charge_front_job(queue, now);
        self.drop_ticket(queue);
        true
    }

    /// Lets a queue have another turn after its first job was removed.
    fn return_to_run_queue(&mut self, queue: usize) {
        if self.queues[queue].ready_jobs.is_empty() {
            self.set_queue_idle(queue);
        } else {
            self.add_to_run_queue(queue, None);
        }
    }

    /// Parks a queue that a budget has refused. If the deadline of the batch passes first, only the
    /// first job is rejected, because the next one may cost less.
    fn park_queue_at_budget_or_reject_front_job(&mut self, queue: usize, refusal: BudgetRefusal) {
        let BudgetRefusal { budget, admission } = refusal;
        if self.does_deadline_pass_first(queue, admission) {
            self.reject_front_job(queue);
            return self.return_to_run_queue(queue);
        }
        self.reserve_budgets(queue, budget);
        let lot = ParkingLotId::Budget(budget);
        self.queues[queue].run_state = RunState::ParkedInLot(lot);
        let ticket = self.ticket_of(queue);
        let parked = &self.budgets[budget].parking_lot.parked_queues;
        let position = parked.partition_point(|&other| self.ticket_of(other) < ticket);
        let parked = &mut self.budgets[budget].parking_lot.parked_queues;
        parked.insert(position, queue);
        self.set_timer_of_lot(lot, admission);
    }

    /// Gives a refused queue a ticket if it has none. Reserves the cost of its first job on its
    /// budgets in the scope of the refusing budget and in narrower scopes.
    fn reserve_budgets(&mut self, queue: usize, refused_by: usize) {
        let refusing_scope = self.budgets[refused_by].scope;
        let refused = &mut self.queues[queue];
        let (Some(budgets), Some(job)) =
            (refused.budgets.as_deref_mut(), refused.ready_jobs.front())
        else {
            return;
        };
        if budgets.ticket == Ticket::NONE {
            self.last_ticket_number += 1;
            budgets.ticket = Ticket::new(self.last_ticket_number);
        }
        budgets.has_reservations = true;
        let mut ended = Vec::new();
        for &index in &budgets.indices {
            let budget = &mut self.budgets[index];
            let cost = budget.cost_of(job);
            if cost > 0 && budget.scope <= refusing_scope {
                budget.reserve(budgets.ticket, cost);
            } else if budget.end_reservation(budgets.ticket) {
                ended.push(index);
            }
        }
        for index in ended {
            self.wake_next_queue_of_budget(index);
        }
    }

    /// Ends the reservations of a queue. The queue keeps its ticket.
    #[inline(never)]
    pub(super) fn end_reservations(&mut self, queue: usize) {
        let Some(budgets) = self.queues[queue].budgets.as_deref_mut() else {
            return;
        };
        if !std::mem::take(&mut budgets.has_reservations) {
            return;
        }
        for position in 0..budgets.indices.len() {
            let Some(budgets) = self.queues[queue].budgets.as_deref() else {
                return;
            };
            let index = budgets.indices[position];
            if self.budgets[index].end_reservation(budgets.ticket) {
                self.wake_next_queue_of_budget(index);
            }
        }
    }

    /// Takes the ticket of a queue whose first job has started or was removed. A queue that is
    /// parked in the lot of a budget is checked again.
    #[inline(never)]
    pub(super) fn drop_ticket(&mut self, queue: usize) {
        if self.ticket_of(queue) == Ticket::NONE {
            return;
        }
        self.end_reservations(queue);
        self.unpark_queue_from_budget(queue);
        if let Some(budgets) = self.queues[queue].budgets.as_deref_mut() {
            budgets.ticket = Ticket::NONE;
        }
    }

    /// The queues of a batch that have a ticket.
    pub(super) fn queues_with_ticket(&self, batch: usize) -> Vec<usize> {
        if self.budgets.is_empty() {
            return Vec::new();
        }
        let shares = self.batches[batch].share_by_lane.values();
        let queues = shares.flat_map(|&share| self.shares[share].queues.indices());
        queues
            .filter(|&queue| self.ticket_of(queue) != Ticket::NONE)
            .collect()
    }

    /// Ends the reservations of all queues of a batch, and takes the queues out of the lots of
    /// budgets. Called when the batch is held.
    pub(super) fn end_reservations_of_batch(&mut self, batch: usize) {
        for queue in self.queues_with_ticket(batch) {
            self.end_reservations(queue);
            self.unpark_queue_from_budget(queue);
        }
    }

    /// Wakes the queues of a batch that are first in the lot of a budget with an abandoned job. It
    /// is rejected, and no longer delays other queues.
    pub(super) fn wake_queues_blocked_by_abandoned_jobs(&mut self, batch: usize) {
        let is_abandoned = |&queue: &usize| {
            let queue = &self.queues[queue];
            queue.batch == batch && queue.ready_jobs.front().is_some_and(J::is_abandoned)
        };
        let budgets = self.budgets.iter().filter(|(_, budget)| {
            let first = budget.parking_lot.parked_queues.front();
            first.is_some_and(is_abandoned)
        });
        let budgets: Vec<usize> = budgets.map(|(index, _)| index).collect();
        for budget in budgets {
            self.wake_next_queue_of_budget(budget);
        }
    }

    /// Ends the reservations of a queue if a job is going to be pushed in front of its first job,
    /// for which they were made. A queue that is parked in the lot of a budget is checked again.
    pub(super) fn end_reservations_before_push(
        &mut self,
        queue: usize,
        level: PriorityLevel,
        freshness: JobFreshness,
    ) {
        let target = &self.queues[queue];
        if self.ticket_of(queue) != Ticket::NONE
            && target.ready_jobs.would_be_first(level, freshness)
        {
            self.end_reservations(queue);
            self.unpark_queue_from_budget(queue);
        }
    }

    /// Makes a queue runnable if it is parked in the lot of a budget.
    pub(super) fn unpark_queue_from_budget(&mut self, queue: usize) {
        let RunState::ParkedInLot(ParkingLotId::Budget(budget)) = self.queues[queue].run_state
        else {
            return;
        };
        self.remove_queue_from_lot(queue);
        if self.queues[queue].ready_jobs.is_empty() {
            self.set_queue_idle(queue);
        } else {
            self.make_queue_runnable(queue);
        }
        self.wake_next_queue_of_budget(budget);
    }

    pub(super) fn wake_next_queue_of_budget(&mut self, budget: usize) {
        let lot = ParkingLotId::Budget(budget);
        if self
            .find_parking_lot_mut(lot)
            .is_some_and(|lot| !lot.parked_queues.is_empty())
        {
            self.wake_next_queue_of_lot(lot);
        }
    }
}
