//! Reports the levels of all budgets.

use std::sync::Arc;

use super::budget::BudgetScopeId;
use super::tenant::TenantId;
use super::{BatchId, Schedulable, Schedule, Time};

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
}

impl<J: Schedulable> Schedule<J> {
    /// The levels of all budgets, in no particular order.
    pub(crate) fn budget_levels(&self, now: Time) -> Vec<BudgetLevel> {
        let scope = |scope| match scope {
            BudgetScopeId::Overall => BudgetScope::Overall,
            BudgetScopeId::Tenant(tenant) => BudgetScope::Tenant(TenantId(tenant)),
            BudgetScopeId::Lane(lane) => BudgetScope::Lane(Arc::clone(&self.lanes[lane].lane_key)),
            BudgetScopeId::Batch(index) => BudgetScope::Batch(BatchId {
                index,
                batch_serial: self.batches[index].batch_serial,
            }),
        };
        let budgets = self.budgets.iter().map(|(_, budget)| BudgetLevel {
            name: Arc::clone(&budget.name),
            scope: scope(budget.scope),
            level: budget.level(now),
            capacity: budget.capacity(),
            parked_queue_count: budget.parking_lot.parked_queues.len(),
        });
        budgets.collect()
    }
}
