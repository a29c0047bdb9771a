//! Reports the levels of all budgets.

use std::sync::Arc;

use super::budget::{Budget, BudgetScopeId};
use super::tenant::TenantId;
use super::{BatchId, Schedulable, Schedule, Slot, Time};

/// The jobs to which a budget applies.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum BudgetScope {
    /// All jobs.
    Overall,
    /// The jobs of one batch.
    Batch(BatchId),
    /// The jobs of one tenant.
    Tenant(TenantId),
    /// The jobs of the lane with this key.
    Lane(Arc<str>),
}

/// The level of one budget.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct BudgetLevel {
    pub(crate) name: Arc<str>,
    pub(crate) scope: BudgetScope,
    /// The number of units that may be charged now. Negative if the budget is in debt.
    pub(crate) level: i64,
    pub(crate) capacity: u64,
    /// The number of queues that the budget has refused. A queue holds the jobs of one batch for
    /// one route.
    pub(crate) parked_queue_count: usize,
    /// The number of ready jobs in these queues.
    pub(crate) waiting_job_count: usize,
}

/// The charge of one request on one budget.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct ChargedBudget {
    pub(crate) budget: BudgetLevel,
    /// The cost that was charged at the start.
    pub(crate) estimated_cost: u64,
}

impl<J: Schedulable> Schedule<J> {
    /// The levels of all budgets, in no particular order.
    pub(crate) fn budget_levels(&self, now: Time) -> Vec<BudgetLevel> {
        let budgets = self.budgets.iter();
        budgets
            .map(|(_, budget)| self.budget_level(budget, now))
            .collect()
    }

    /// The budgets that the request in `slot` has charged, and their levels.
    pub(crate) fn charged_budgets(&self, slot: &Slot, now: Time) -> Vec<ChargedBudget> {
        let charge = self.charge_of_start(slot);
        let entries = charge.iter().flat_map(|charge| &charge.0);
        entries
            .filter_map(|entry| {
                let budget = self.budgets.get(entry.budget)?;
                entry.is_charge_on(budget).then(|| ChargedBudget {
                    budget: self.budget_level(budget, now),
                    estimated_cost: entry.cost,
                })
            })
            .collect()
    }

    fn budget_level(&self, budget: &Budget, now: Time) -> BudgetLevel {
        let parked_queues = &budget.parking_lot.parked_queues;
        let ready_job_count = |&queue: &usize| self.queues[queue].ready_jobs.len();
        BudgetLevel {
            name: Arc::clone(&budget.name),
            scope: match budget.scope {
                BudgetScopeId::Overall => BudgetScope::Overall,
                BudgetScopeId::Tenant(tenant) => BudgetScope::Tenant(TenantId(tenant)),
                BudgetScopeId::Lane(lane) => {
                    BudgetScope::Lane(Arc::clone(&self.lanes[lane].lane_key))
                }
                BudgetScopeId::Batch(index) => BudgetScope::Batch(BatchId {
                    index,
                    batch_serial: self.batches[index].batch_serial,
                }),
            },
            level: budget.level(now),
            capacity: budget.capacity(),
            parked_queue_count: parked_queues.len(),
            waiting_job_count: parked_queues.iter().map(ready_job_count).sum(),
        }
    }
}
