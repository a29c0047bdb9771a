//! Tenants: groups of batches that have limits in common, within the limits of the schedule.
//!
//! A batch belongs to one tenant at most. The gate of the tenant is checked between the gate of the
//! schedule and the gate of the batch. A batch that the tenant refuses is parked at the tenant. If
//! the gate may have opened, the tenant wakes only the batch that was parked first, and wakes the
//! next batch after that one has been checked. A free slot thus causes one check, however many
//! batches are parked.

use std::collections::VecDeque;

use super::admission::Admission;
use super::budget::{BudgetConfig, BudgetScopeId};
use super::gate::{Gate, GateLimits};
use super::run_state::RunState;
use super::timer::{EarliestTimer, TimerTarget};
use super::{BatchId, Schedulable, Schedule};

/// Identifies a tenant. The id is valid until [`Schedule::remove_tenant`] is called.
#[derive(Copy, Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct TenantId(pub(super) usize);

/// The state of one tenant.
pub(super) struct Tenant {
    pub(super) gate: Gate,
    /// The batches that the gate has refused, in the order in which they are woken.
    pub(super) parked_batches: VecDeque<usize>,
    pub(super) earliest_timer: EarliestTimer,
    /// The number of the tenant's batches, including removed batches that have slots in flight.
    batch_count: usize,
    /// Whether the tenant has been removed. It is kept only until its last batch is gone.
    is_removed: bool,
    /// The slab indices of the budgets of this tenant.
    pub(super) budgets: Box<[usize]>,
}

impl<J: Schedulable> Schedule<J> {
    /// Adds a tenant. `limits` apply over all its batches.
    pub(crate) fn add_tenant(&mut self, limits: GateLimits) -> TenantId {
        TenantId(self.tenants.insert(Tenant {
            gate: Gate::new(limits),
            parked_batches: VecDeque::new(),
            earliest_timer: EarliestTimer::default(),
            batch_count: 0,
            is_removed: false,
            budgets: Box::default(),
        }))
    }

    /// Adds budgets that apply to the jobs of a tenant. Called once, before the first
    /// batch is added to the tenant.
    pub(crate) fn add_tenant_budgets(&mut self, tenant: TenantId, configs: &[BudgetConfig]) {
        let scope = BudgetScopeId::Tenant(tenant.0);
        self.tenants[tenant.0].budgets = self.add_budgets(scope, configs);
    }

    /// Removes a tenant. Its limits apply to its batches until they have ended.
    pub(crate) fn remove_tenant(&mut self, tenant: TenantId) {
        self.tenants[tenant.0].is_removed = true;
        self.free_tenant_if_unused(tenant.0);
    }

    #[cfg(test)]
    pub(crate) fn tenant_count(&self) -> usize {
        self.tenants.len()
    }

    /// Applies the limits of a tenant to a batch. Called once, before the first push to the batch.
    pub(crate) fn add_batch_to_tenant(&mut self, batch: BatchId, tenant: TenantId) {
        if self.find_live_batch(batch).is_some() {
            self.batches[batch.index].tenant = Some(tenant.0);
            self.tenants[tenant.0].batch_count += 1;
        }
    }

    /// The tenant to which a batch belongs.
    pub(crate) fn tenant_of_batch(&self, batch: BatchId) -> Option<TenantId> {
        let found = self.batches.get(batch.index)?;
        let found = Some(found).filter(|found| found.batch_serial == batch.batch_serial)?;
        found.tenant.map(TenantId)
    }

    /// Records that a batch of a tenant has left the schedule.
    pub(super) fn decrement_batch_count_of_tenant(&mut self, tenant: usize) {
        self.tenants[tenant].batch_count -= 1;
        self.free_tenant_if_unused(tenant);
    }

    fn free_tenant_if_unused(&mut self, tenant: usize) {
        let freed = &self.tenants[tenant];
        if freed.is_removed && freed.batch_count == 0 {
            let freed = self.tenants.remove(tenant);
            self.remove_budgets(&freed.budgets);
        }
    }

    /// Parks a batch at the tenant whose gate has refused it, or rejects the batch's jobs if its
    /// deadline passes before the gate opens. A batch that was woken in vain keeps its place at the
    /// front.
    pub(super) fn park_or_reject_batch_at_tenant(
        &mut self,
        tenant: usize,
        batch: usize,
        refusal: Admission,
    ) {
        let parked = &mut self.batches[batch];
        if let Admission::RefusedUntil(at) = refusal
            && parked.deadline.is_some_and(|deadline| deadline <= at)
        {
            parked.run_state = RunState::Idle;
            self.reject_queued_jobs_of_batch(batch);
            return self.forward_wakeup_of_tenant(batch);
        }
        parked.run_state = RunState::ParkedAtTenant;
        let refusing = &mut self.tenants[tenant];
        if std::mem::take(&mut parked.is_woken_by_tenant) {
            refusing.parked_batches.push_front(batch);
        } else {
            refusing.parked_batches.push_back(batch);
        }
        if let Admission::RefusedUntil(at) | Admission::RefusedUntilEventOrInstant(at) = refusal
            && refusing.earliest_timer.record_if_earlier(at)
        {
            self.set_timer(at, TimerTarget::Tenant(tenant));
        }
        self.forward_wakeups_of_batch(batch);
    }

    /// Wakes the batch that was parked at a tenant first. Batches without a ready job leave the
    /// tenant's list without a wake-up.
    pub(super) fn wake_next_batch_of_tenant(&mut self, tenant: usize) {
        while let Some(batch) = self.tenants[tenant].parked_batches.pop_front() {
            let woken = &mut self.batches[batch];
            woken.run_state = RunState::Idle;
            if !woken.run_queue.is_empty() {
                woken.is_woken_by_tenant = true;
                return self.make_batch_runnable(batch);
            }
        }
    }

    /// Wakes the next batch of a tenant after a batch that the tenant has woken was checked, or is
    /// not going to be.
    pub(super) fn forward_wakeup_of_tenant(&mut self, batch: usize) {
        let woken = &mut self.batches[batch];
        if woken.is_woken_by_tenant
            && let Some(tenant) = woken.tenant
        {
            woken.is_woken_by_tenant = false;
            self.wake_next_batch_of_tenant(tenant);
        }
    }

    /// Removes a batch that is parked at its tenant from the tenant's list.
    pub(super) fn remove_batch_from_tenant_list(&mut self, batch: usize) {
        if let Some(tenant) = self.batches[batch].tenant {
            let parked = &mut self.tenants[tenant].parked_batches;
            parked.retain(|&other| other != batch);
        }
    }
}
