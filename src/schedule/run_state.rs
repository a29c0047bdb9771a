//! Whether a batch or a queue is idle, runnable or parked.

use super::parking::ParkingLotId;

/// Whether a batch or a queue is to be checked for a start.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(super) enum RunState {
    /// The batch or queue has no ready job.
    Idle,
    /// The batch or queue will be checked when its turn comes. A runnable batch is in one of the
    /// schedule's two lists of runnable batches, and a runnable queue is in its batch's run queue.
    Runnable,
    /// A limit of the batch or queue itself has refused a start. The batch or queue is not checked
    /// until that limit may have opened.
    Parked,
    /// The queue is in this parking lot, because a lane, share or route has refused a start. The
    /// queue is not checked until the lot wakes it.
    ParkedIn(ParkingLotId),
}
