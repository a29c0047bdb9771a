//! A tenant: the batches and single fetches of a sibling that has limits of its own.

use std::sync::{Arc, Weak};

use super::Engine;
use super::costs::budget_configs;
use crate::limits::{Budget, LimitSettings};
use crate::schedule::TenantId;

/// A tenant of the engine's schedule. Dropping the handle removes the tenant.
///
/// The clones, the batches and the single fetches of a sibling share the handle. Jobs do not, so
/// that an abandoned job in the schedule does not keep the tenant.
pub(crate) struct TenantHandle {
    engine: Weak<Engine>,
    tenant_id: TenantId,
    /// The tenant's limit on requests in flight, which is also the default for each of its batches.
    concurrency: Option<usize>,
}

impl TenantHandle {
    /// Adds a tenant with the total limits in `settings` and with budgets. Limits per host are
    /// ignored.
    pub(crate) fn add_to_engine(
        engine: &Arc<Engine>,
        settings: &LimitSettings,
        budgets: &[Budget],
    ) -> Arc<Self> {
        let clamped = |concurrency| engine.limits.clamped_concurrency(concurrency);
        let settings = LimitSettings {
            concurrency: settings.concurrency.map(clamped),
            ..*settings
        };
        let limits = settings.overall_limits();
        Arc::new(Self {
            engine: Arc::downgrade(engine),
            tenant_id: engine.update(|tx| {
                let schedule = tx.schedule_mut();
                let tenant = schedule.add_tenant(limits);
                schedule.add_tenant_budgets(tenant, &budget_configs(budgets));
                tenant
            }),
            concurrency: settings.concurrency,
        })
    }

    pub(super) fn concurrency(&self) -> Option<usize> {
        self.concurrency
    }

    pub(super) fn tenant_id(&self) -> TenantId {
        self.tenant_id
    }
}

impl Drop for TenantHandle {
    fn drop(&mut self) {
        if let Some(engine) = self.engine.upgrade() {
            engine.update(|tx| tx.remove_tenant(self.tenant_id));
        }
    }
}

#[cfg(test)]
impl Engine {
    pub(crate) fn tenant_count(&self) -> usize {
        self.read_state(|state| state.schedule().tenant_count())
    }
}
