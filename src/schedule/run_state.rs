//! Whether a batch or a queue is idle, runnable or parked.

/// Whether a batch or a queue is to be checked for a start.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(super) enum RunState {
    /// The batch or queue has no ready job.
    Idle,
    /// The batch or queue will be checked when its turn comes. A runnable batch is in the
    /// schedule's list of runnable batches, and a runnable queue is in its batch's run queue.
    Runnable,
    /// The gate of the batch or queue itself has refused a start. The batch or queue is not checked
    /// until that gate may have opened.
    Parked,
    /// The gate or the circuit breaker of the queue's lane has refused a start. The queue is not
    /// checked until the lane wakes it.
    ParkedOnLane,
}
