//! Whether a batch or a queue is idle, runnable or parked.

/// Whether a batch or a queue is to be checked for a start.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(super) enum RunState {
    /// The batch or queue has no ready job.
    Idle,
    /// The batch or queue is checked when its turn comes. A batch is in the list of runnable
    /// batches, a queue is in its batch's run queue.
    Runnable,
    /// The gate of the batch or queue itself has refused a start.
    Parked,
    /// The gate or the circuit breaker of the queue's lane has refused a start.
    ParkedOnLane,
}
