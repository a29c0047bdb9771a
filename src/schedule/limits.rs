//! The limits of a batch and of a lane.

use super::breaker::BreakerConfig;
use super::gate::GateLimits;
use super::retry_budget::RetryBudgetConfig;
use super::time::Time;

/// The limits of one batch.
#[derive(Copy, Clone, Debug)]
pub(crate) struct BatchLimits {
    /// Limits over the whole batch.
    pub(crate) overall_limits: GateLimits,
    /// The limits of each lane, counting only the requests of this batch.
    pub(crate) per_lane_limits: GateLimits,
    /// The instant from which no job of the batch starts.
    pub(crate) deadline: Option<Time>,
}

/// The limits of one lane (usually a host) and of its routes, over all batches.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) struct LaneLimits {
    pub(crate) gate_limits: GateLimits,
    pub(crate) breaker: BreakerConfig,
    /// Limits the retries. `None`: retries are unlimited.
    pub(crate) retry_budget: Option<RetryBudgetConfig>,
    /// The longest time for which other requests wait for the scout (the first request of a route),
    /// in nanoseconds. Zero: the first request is no scout.
    pub(crate) scout_timeout: u64,
}

impl From<GateLimits> for LaneLimits {
    fn from(gate: GateLimits) -> Self {
        Self {
            gate_limits: gate,
            breaker: BreakerConfig::DISABLED,
            retry_budget: None,
            scout_timeout: 0,
        }
    }
}
