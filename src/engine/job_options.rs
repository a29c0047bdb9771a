//! The options that all jobs of a batch share.

use std::sync::Arc;
use std::time::Duration;

use super::request_settings::RequestSettings;
use super::stop_condition::StopCondition;
use crate::body_budget::BodyBudget;
use crate::limits::{Budget, Retry, Timeouts};
use crate::response_body::BodyHandler;
use crate::schedule::Time;

/// How each request of a batch is made. Each batch starts with a copy of the Fetcher's default
/// options.
#[derive(Clone)]
pub(crate) struct JobOptions {
    pub(crate) request_settings: Arc<RequestSettings>,
    /// The budgets of all requests of the batch together.
    pub(crate) budgets: Vec<Budget>,
    pub(crate) retry: Retry,
    pub(crate) timeouts: Timeouts,
    /// The timeout of each attempt of a request that has no timeout of its own.
    pub(crate) default_attempt_timeout: Option<Duration>,
    /// The deadline of the batch, which is known once the batch starts.
    pub(crate) deadline: Option<Time>,
    /// Reads the response bodies. Without a handler, bodies are kept in memory.
    pub(crate) body_handler: Option<Arc<dyn BodyHandler>>,
    /// Limits the memory that response bodies occupy.
    pub(crate) body_budget: Option<Arc<BodyBudget>>,
    /// Drains the batch after a result that meets the condition of `Batch::stop_when`.
    pub(crate) stop_condition: Option<StopCondition>,
}
