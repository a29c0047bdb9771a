//! The options that all jobs of a batch share.

use std::sync::Arc;

use super::policy::RequestPolicy;
use crate::body_budget::BodyBudget;
use crate::limits::{Retry, Timeouts};
use crate::response_body::BodyHandler;
use crate::schedule::Time;

/// How each request of a batch is made. A Fetcher holds the defaults; a batch starts from a copy.
#[derive(Clone)]
pub(crate) struct JobOptions {
    pub(crate) policy: Arc<RequestPolicy>,
    pub(crate) retry: Retry,
    pub(crate) timeouts: Timeouts,
    /// The batch's deadline, set when the batch starts.
    pub(crate) deadline: Option<Time>,
    /// Reads the bodies; without one they are kept in memory.
    pub(crate) handler: Option<Arc<dyn BodyHandler>>,
    /// Bounds the bodies held in memory.
    pub(crate) body_budget: Option<Arc<BodyBudget>>,
}
