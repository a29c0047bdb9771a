//! The parent Fetcher of a sibling.

use std::sync::Arc;

use crate::engine::{Engine, RequestSettings};

/// The Fetcher with which a sibling shares connections and limits.
pub(super) struct ParentFetcher {
    pub(super) engine: Arc<Engine>,
    pub(super) request_settings: Arc<RequestSettings>,
}
