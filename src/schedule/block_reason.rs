//! The reasons why queued jobs have not started.

/// The reason why a queued job has not started.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) enum BlockReason {
    /// A concurrency limit is reached, or other jobs have earlier turns.
    Concurrency,
    /// A rate limit is reached.
    Rate,
    /// The job waits for a retry or for the final round, or its host is paused.
    Backoff,
    /// The circuit breaker of its host is open.
    Breaker,
    /// Its lane is held, for example until a bearer token arrives.
    LaneHeld,
    /// Its batch is paused by the user.
    BatchPaused,
}

impl BlockReason {
    /// The number of variants of this enum.
    pub(super) const COUNT: usize = 6;
}
