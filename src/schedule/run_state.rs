//! Whether a batch or a queue is idle, runnable or parked.

use super::parking::ParkingLotId;

/// Whether and when a batch or a queue is checked for a start.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(super) enum RunState {
    /// The batch or queue has no ready job.
    Idle,
    /// The batch or queue is checked when its turn comes. A runnable batch is in one of the
    /// schedule's two lists of runnable batches. A runnable queue is in the run queue of its batch.
    Runnable,
    /// The gate of the batch, or the concurrency limit of the queue, has refused a start. The batch
    /// or queue is not checked until that gate or limit may have opened.
    ParkedOnOwnLimit,
    /// The gate of the batch's tenant has refused a start, and the batch is in the tenant's list of
    /// parked batches. The batch is not checked until the tenant wakes it.
    ParkedAtTenant,
    /// A lane, route or share (a batch's part of a lane) has refused a start, and the queue is in
    /// its parking lot. The queue is not checked until the parking lot wakes it.
    ParkedInLot(ParkingLotId),
}
