//! The reasons why queued jobs have not started.

/// The reason why a queued job has not started.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) enum BlockReason {
    /// A concurrency limit is reached, other jobs start first, or the lookup of the host name has
    /// not begun because too many other lookups run.
    Concurrency,
    /// A rate limit is reached.
    Rate,
    /// The job waits for its retry or for the final round of its batch, or its host is paused.
    Backoff,
    /// The circuit breaker of the job's host is open.
    Breaker,
    /// The job's lane is held, for example until a bearer token arrives.
    LaneHeld,
    /// The user has paused the job's batch.
    BatchPaused,
    /// A budget does not cover the job's cost yet.
    Budget,
}

impl BlockReason {
    /// The number of variants of this enum.
    pub(super) const VARIANT_COUNT: usize = 7;
}
