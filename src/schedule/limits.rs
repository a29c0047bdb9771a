//! The limits of a batch, and of a lane (usually all requests to one host).

use std::sync::Arc;

use super::breaker::BreakerConfig;
use super::budget::BudgetConfig;
use super::gate::GateLimits;
use super::retry_budget::RetryBudgetConfig;
use super::time::Time;

/// The limits of one batch.
#[derive(Copy, Clone, Debug)]
pub(crate) struct BatchLimits {
    /// The limits on all requests of the batch together.
    pub(crate) overall_limits: GateLimits,
    /// The limits in each lane, on the requests of this batch only.
    pub(crate) per_lane_limits: GateLimits,
    /// The instant from which no job of the batch starts.
    pub(crate) deadline: Option<Time>,
}

/// The limits of one lane (usually a host) and of its routes, over all batches.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct LaneLimits {
    pub(crate) gate_limits: GateLimits,
    pub(crate) breaker: BreakerConfig,
    /// The budget of retries. `None`: retries are unlimited.
    pub(crate) retry_budget: Option<RetryBudgetConfig>,
    /// The maximum time for which other requests wait for the scout (the first request of a route
    /// whose protocol is unknown). If zero, no request waits.
    pub(crate) scout_timeout_nanos: u64,
    /// The budgets of the lane. `None`: there are none.
    pub(crate) budgets: Option<Arc<[BudgetConfig]>>,
}

impl From<GateLimits> for LaneLimits {
    fn from(gate: GateLimits) -> Self {
        Self {
            gate_limits: gate,
            breaker: BreakerConfig::DISABLED,
            retry_budget: None,
            scout_timeout_nanos: 0,
            budgets: None,
        }
    }
}
