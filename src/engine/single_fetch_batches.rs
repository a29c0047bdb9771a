//! The batches that hold the single fetches of one runtime.

use std::collections::BTreeMap;

use crate::schedule::{BatchId, TenantId};

/// One batch for all single fetches without a tenant, and one batch for those of each tenant.
///
/// An empty value allocates nothing.
#[derive(Default)]
pub(super) struct SingleFetchBatches {
    without_tenant: Option<BatchId>,
    by_tenant: BTreeMap<TenantId, BatchId>,
}

impl SingleFetchBatches {
    pub(super) fn get(&self, tenant: Option<TenantId>) -> Option<BatchId> {
        match tenant {
            None => self.without_tenant,
            Some(tenant) => self.by_tenant.get(&tenant).copied(),
        }
    }

    pub(super) fn insert(&mut self, tenant: Option<TenantId>, batch: BatchId) {
        match tenant {
            None => self.without_tenant = Some(batch),
            Some(tenant) => {
                self.by_tenant.insert(tenant, batch);
            }
        }
    }

    pub(super) fn remove_batch_of_tenant(&mut self, tenant: TenantId) -> Option<BatchId> {
        self.by_tenant.remove(&tenant)
    }

    pub(super) fn into_batches(self) -> impl Iterator<Item = BatchId> {
        self.without_tenant
            .into_iter()
            .chain(self.by_tenant.into_values())
    }
}
