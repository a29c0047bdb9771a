//! Charges the budgets of a start, and settles the charge once the actual cost is known.
//!
//! The cost of a start is an estimate. It is charged at the start, on every budget of the job's
//! queue. When the exchange (one request and its response) has ended, the charge is settled: all
//! units return if the request was not sent, the difference to the actual cost is charged or
//! refunded if that is known, and nothing changes otherwise.

use std::sync::Arc;

use slab::Slab;

use super::budget::{Budget, BudgetAnnouncement, BudgetScopeId};
use super::state::Queue;
use super::{Schedulable, Schedule, Slot, Time};

/// The charge of one start, on every budget of its queue.
#[derive(Debug)]
#[must_use]
pub(crate) struct Charge(pub(super) Box<[ChargeEntry]>);

/// The charge of one start on one budget.
#[derive(Debug)]
pub(super) struct ChargeEntry {
    /// The slab index of the budget.
    pub(super) budget: usize,
    budget_serial: u64,
    pub(super) cost: u64,
    is_settled: bool,
    /// [`Budget::charged_total`] after this charge.
    charged_total: u64,
}

impl ChargeEntry {
    /// Returns false if the budget with the slab index of this charge has been replaced since.
    pub(super) fn is_charge_on(&self, budget: &Budget) -> bool {
        budget.serial == self.budget_serial
    }
}

impl Charge {
    /// Charges the next start of `job` on the budgets with these slab indices.
    fn new<J: Schedulable>(
        indices: &[usize],
        budgets: &mut Slab<Budget>,
        job: &J,
        now: Time,
    ) -> Self {
        let entries = indices.iter().map(|&index| {
            let budget = &mut budgets[index];
            let cost = budget.cost_of(job);
            budget.charge(cost, now);
            ChargeEntry {
                budget: index,
                budget_serial: budget.serial,
                cost,
                is_settled: false,
                charged_total: budget.charged_total,
            }
        });
        Self(entries.collect())
    }
}

/// The actual cost of a start.
#[derive(Debug)]
pub(crate) enum CostOutcome {
    /// No byte of the request was sent: the request cost nothing.
    Unsent,
    /// The request may have been sent: its cost remains the estimate.
    Unknown,
    /// The actual costs by the names of their budgets. The cost on other budgets remains the
    /// estimate.
    Actual(Vec<(Arc<str>, u64)>),
}

impl CostOutcome {
    /// The cost of a request without a response.
    pub(crate) fn without_response(maybe_sent: bool) -> Self {
        if maybe_sent {
            Self::Unknown
        } else {
            Self::Unsent
        }
    }

    /// The actual cost on one budget, for which `estimate` was charged.
    pub(crate) fn actual_cost(&self, budget_name: &str, estimate: u64) -> u64 {
        match self {
            Self::Unsent => 0,
            Self::Unknown => estimate,
            Self::Actual(costs) => {
                let stated = costs.iter().find(|(name, _)| **name == *budget_name);
                stated.map_or(estimate, |(_, cost)| *cost)
            }
        }
    }
}

impl<J: Schedulable> Schedule<J> {
    /// Charges the start of the first job of a queue on every budget of the queue. All of them have
    /// granted the start. A job with a carried charge pays nothing.
    pub(super) fn charge_front_job(&mut self, queue: usize, now: Time) {
        let source = &mut self.queues[queue];
        let start_seq = self.lanes[source.lane].start_count + 1;
        let (Some(budgets), Some(job)) =
            (source.budgets.as_deref_mut(), source.ready_jobs.front_mut())
        else {
            return;
        };
        let charge = match job.take_carried_charge() {
            Some(carried) => carried,
            None => Charge::new(&budgets.indices, &mut self.budgets, job, now),
        };
        budgets.charges.push_back((start_seq, charge));
    }

    /// Replaces the estimated costs of the request in `slot` by the costs in `outcome`. Called
    /// before [`settle`](Self::settle) takes the slot back. A second call has no effect.
    pub(crate) fn settle_costs(&mut self, slot: &Slot, outcome: &CostOutcome, now: Time) {
        let Some(budgets) = &mut self.queues[slot.queue].budgets else {
            return;
        };
        if let Some(position) = budgets.find_charge(slot.start_seq) {
            let charge = &mut budgets.charges[position].1;
            let mut taken = Charge(std::mem::take(&mut charge.0));
            self.settle_unsettled_entries(&mut taken, outcome, now);
            // Announcements still refer to the charge.
            if let Some(budgets) = &mut self.queues[slot.queue].budgets {
                budgets.charges[position].1 = taken;
            }
        }
    }

    /// Removes the charge of a start whose slot is being settled. Costs that are not settled remain
    /// the estimate.
    #[inline(never)]
    pub(super) fn remove_charge_of_settled_start(&mut self, queue: usize, start_seq: u64) {
        if let Some(charge) = self.take_charge_of_start(queue, start_seq) {
            self.settle_charge_as_estimated(charge);
        }
    }

    /// Settles a charge that [`Self::take_charge`] has returned, and for which nothing will start.
    /// Its costs remain the estimate.
    pub(crate) fn settle_charge_as_estimated(&mut self, mut charge: Charge) {
        // The instant has no effect, because nothing more is charged.
        self.settle_unsettled_entries(&mut charge, &CostOutcome::Unknown, Time::default());
    }

    /// Takes the charge of a request that is going to be repeated without paying again, for example
    /// with a new bearer token. `None` if the request has no budgets.
    ///
    /// The job carries the charge to its next start, see [`Schedulable::take_carried_charge`]. If
    /// nothing starts, [`Self::settle_charge_as_estimated`] must be called.
    pub(crate) fn take_charge(&mut self, slot: &Slot) -> Option<Charge> {
        self.take_charge_of_start(slot.queue, slot.start_seq)
    }

    fn take_charge_of_start(&mut self, queue: usize, start_seq: u64) -> Option<Charge> {
        let budgets = self.queues[queue].budgets.as_deref_mut()?;
        let position = budgets.find_charge(start_seq)?;
        let (_, charge) = budgets.charges.remove(position)?;
        Some(charge)
    }

    /// The charge of the request in `slot`. `None` if the request has no budgets, or if its charge
    /// was taken.
    pub(super) fn charge_of_start(&self, slot: &Slot) -> Option<&Charge> {
        charge_of_start(&self.queues, slot)
    }

    fn settle_unsettled_entries(&mut self, charge: &mut Charge, outcome: &CostOutcome, now: Time) {
        for entry in &mut charge.0 {
            if std::mem::replace(&mut entry.is_settled, true) {
                continue;
            }
            if let Some(budget) = find_charged_budget(&mut self.budgets, entry) {
                let actual = outcome.actual_cost(&budget.name, entry.cost);
                let affordable_before = budget.affordable_total();
                budget.settle(entry.cost, actual, now);
                if budget.affordable_total() < affordable_before {
                    self.end_waits_for_total(entry.budget, affordable_before);
                }
                if actual < entry.cost {
                    self.wake_next_queue_of_budget(entry.budget);
                }
            }
        }
    }

    /// Lowers the level of a budget of the slot's lane to the one that the host announced in its
    /// response. The level is never raised, and an announcement in the response to an earlier
    /// request than the last one has no effect. Returns false if the lane has no budget of this
    /// name that is refilled.
    ///
    /// The announcement does not cover requests that started later, so their costs are subtracted.
    /// [`Self::settle_costs`] must be called first. Otherwise a refund would raise the level above
    /// the announced one.
    pub(crate) fn apply_budget_announcement(
        &mut self,
        slot: &Slot,
        announcement: &BudgetAnnouncement<'_>,
        now: Time,
    ) -> bool {
        let mut is_applied = false;
        let mut changed = Vec::new();
        let charge = charge_of_start(&self.queues, slot);
        for entry in charge.iter().flat_map(|charge| &charge.0) {
            let Some(budget) = find_charged_budget(&mut self.budgets, entry) else {
                continue;
            };
            if matches!(budget.scope, BudgetScopeId::Lane(_))
                && *budget.name == *announcement.budget_name
            {
                let charged_since = budget.charged_total.wrapping_sub(entry.charged_total);
                is_applied |=
                    budget.apply_announcement(announcement, slot.start_seq, charged_since, now);
                changed.push(entry.budget);
            }
        }
        for budget in changed {
            self.wake_next_queue_of_budget(budget);
        }
        is_applied
    }
}

/// The charge of the request in `slot`. `None` if the request has no budgets, or if its charge was
/// taken.
fn charge_of_start<'a, J>(queues: &'a Slab<Queue<J>>, slot: &Slot) -> Option<&'a Charge> {
    let budgets = queues[slot.queue].budgets.as_deref()?;
    let position = budgets.find_charge(slot.start_seq)?;
    Some(&budgets.charges[position].1)
}

/// The budget of a charge, unless the budget has been removed with its lane or batch.
fn find_charged_budget<'a>(
    budgets: &'a mut Slab<Budget>,
    entry: &ChargeEntry,
) -> Option<&'a mut Budget> {
    budgets
        .get_mut(entry.budget)
        .filter(|budget| entry.is_charge_on(budget))
}
