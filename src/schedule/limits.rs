//! The limits of a batch and of a lane.

use super::breaker::BreakerConfig;
use super::gate::GateLimits;
use super::retry_budget::RetryBudgetConfig;
use super::time::Time;

/// The limits of one batch.
#[derive(Copy, Clone, Debug)]
pub(crate) struct BatchLimits {
    /// Limits over the whole batch.
    pub(crate) overall: GateLimits,
    /// Limits over the batch's share of each lane.
    pub(crate) per_lane: GateLimits,
    /// The instant from which nothing of the batch starts.
    pub(crate) deadline: Option<Time>,
}

/// The limits of one lane, over all batches.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) struct LaneLimits {
    pub(crate) gate: GateLimits,
    pub(crate) breaker: BreakerConfig,
    /// How many retries may be sent. `None`: unlimited.
    pub(crate) retry_budget: Option<RetryBudgetConfig>,
}

impl From<GateLimits> for LaneLimits {
    fn from(gate: GateLimits) -> Self {
        Self {
            gate,
            breaker: BreakerConfig::DISABLED,
            retry_budget: None,
        }
    }
}
