//! Adds and removes budgets, and finds the budgets of a queue.

use std::collections::VecDeque;

use super::budget::{Budget, BudgetConfig, BudgetScopeId, Ticket};
use super::charge::Charge;
use super::state::Batch;
use super::{BatchId, Schedulable, Schedule, Time};

/// The budgets of a queue.
pub(super) struct QueueBudgets {
    /// The slab indices of the budgets, in ascending order of their scopes.
    pub(super) indices: Box<[usize]>,
    /// [`Ticket::NONE`] unless a budget has refused the first job of the queue.
    pub(super) ticket: Ticket,
    /// Whether the queue has a reservation on any budget.
    pub(super) has_reservations: bool,
    /// Whether any of the budgets is a total.
    pub(super) has_total: bool,
    /// The charges of the requests in flight, by the sequence numbers of their starts, which
    /// ascend.
    pub(super) charges: VecDeque<(u64, Charge)>,
}

impl QueueBudgets {
    /// The position of the charge of a request in flight. `None` if it has been taken.
    pub(super) fn find_charge(&self, start_seq: u64) -> Option<usize> {
        // Most requests end in the order of their starts.
        match self.charges.front() {
            Some(&(oldest, _)) if oldest == start_seq => Some(0),
            _ => {
                let by_start = |&(other, _): &(u64, Charge)| other.cmp(&start_seq);
                self.charges.binary_search_by(by_start).ok()
            }
        }
    }
}

impl<J: Schedulable> Schedule<J> {
    /// Adds budgets that apply to all jobs. Called once, before the first push.
    pub(crate) fn add_overall_budgets(&mut self, configs: &[BudgetConfig]) {
        self.overall_budgets = self.add_budgets(BudgetScopeId::Overall, configs);
    }

    /// Adds budgets that apply to the jobs of a batch. Called once, before the first push to the
    /// batch.
    pub(crate) fn add_batch_budgets(&mut self, batch: BatchId, configs: &[BudgetConfig]) {
        if self.find_live_batch(batch).is_some() {
            let scope = BudgetScopeId::Batch(batch.index);
            self.batches[batch.index].budgets = self.add_budgets(scope, configs);
        }
    }

    /// Adds budgets and returns their slab indices.
    pub(super) fn add_budgets(
        &mut self,
        scope: BudgetScopeId,
        configs: &[BudgetConfig],
    ) -> Box<[usize]> {
        let add = |config: &BudgetConfig| {
            self.last_budget_serial += 1;
            let budget = Budget::new(self.last_budget_serial, scope, config);
            self.budgets.insert(budget)
        };
        configs.iter().map(add).collect()
    }

    pub(super) fn remove_budgets(&mut self, budgets: &[usize]) {
        for &budget in budgets {
            self.budgets.remove(budget);
        }
    }

    /// Whether new budgets would behave the same.
    pub(super) fn are_budgets_pristine(&self, budgets: &[usize], now: Time) -> bool {
        let is_pristine = |&budget: &usize| self.budgets[budget].is_pristine(now);
        budgets.iter().all(is_pristine)
    }

    /// The budgets of a new queue. `None` if there are none.
    pub(super) fn budgets_of_new_queue(
        &self,
        batch: usize,
        lane: usize,
    ) -> Option<Box<QueueBudgets>> {
        let lane = self.lanes[lane].budgets.iter();
        let indices = lane.chain(self.budgets_of_batch(&self.batches[batch]));
        let indices: Box<[usize]> = indices.copied().collect();
        if indices.is_empty() {
            return None;
        }
        let has_total = indices.iter().any(|&index| self.budgets[index].is_total());
        Some(Box::new(QueueBudgets {
            indices,
            ticket: Ticket::NONE,
            has_reservations: false,
            has_total,
            charges: VecDeque::new(),
        }))
    }

    /// The budgets of a batch, of its tenant and of the schedule, in ascending order of their
    /// scopes.
    pub(super) fn budgets_of_batch<'a>(
        &'a self,
        batch: &'a Batch,
    ) -> impl Iterator<Item = &'a usize> {
        let tenant = self.tenant_of(batch).into_iter();
        let of_tenant = tenant.flat_map(|tenant| &tenant.budgets);
        batch
            .budgets
            .iter()
            .chain(of_tenant)
            .chain(&self.overall_budgets)
    }

    /// Whether a queue is parked at a budget that applies to all lanes of a batch.
    pub(super) fn has_queue_parked_at_budget_of_batch(&self, batch: &Batch) -> bool {
        self.budgets_of_batch(batch)
            .any(|&budget| !self.budgets[budget].parking_lot.parked_queues.is_empty())
    }
}
