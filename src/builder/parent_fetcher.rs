//! The parent Fetcher of a sibling.

use std::sync::Arc;

use crate::engine::{Engine, RequestSettings, TenantHandle};

/// The Fetcher with which a sibling shares connections and limits.
pub(super) struct ParentFetcher {
    pub(super) engine: Arc<Engine>,
    pub(super) request_settings: Arc<RequestSettings>,
    /// The tenant of the parent, if the parent is itself a sibling with limits of its own.
    pub(super) tenant: Option<Arc<TenantHandle>>,
}
