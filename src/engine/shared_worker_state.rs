//! The state that a worker shares with the engine.

use std::sync::atomic::AtomicU64;

use super::cancel_flag::CancelFlag;

/// The part of a worker's state that other tasks reach through the engine's active jobs.
#[derive(Default)]
pub(super) struct SharedWorkerState {
    pub(super) cancel_flag: CancelFlag,
    /// The number of bytes received so far of the body that the worker reads. The worker stores the
    /// number during an exchange. The number is reset, under the engine's lock, when the worker
    /// takes its next job, so no byte is counted both here and in the result counts of the batch.
    pub(super) body_bytes_in_flight: AtomicU64,
}
