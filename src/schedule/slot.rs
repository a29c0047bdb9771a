//! Handles to a batch, to a lane (usually a host), and to a request in flight.

use super::breaker::ProbeId;

/// Identifies a batch.
///
/// The slab index of a removed batch may be reused for another batch. The serial number is never
/// reused.
#[derive(Copy, Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct BatchId {
    pub(super) index: usize,
    pub(super) batch_serial: u64,
}

impl BatchId {
    /// Returns a small number that no other existing batch has.
    pub(crate) fn index(self) -> usize {
        self.index
    }
}

/// Identifies a lane. The id is valid while the lane has queued jobs or jobs in flight. An idle
/// lane may be evicted.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) struct LaneId(pub(super) usize);

/// The right of one request to be on the wire. [`Schedule::settle`](super::Schedule::settle) takes
/// the slot back.
#[derive(Debug)]
#[must_use]
pub(crate) struct Slot {
    pub(super) batch_id: BatchId,
    pub(super) lane: usize,
    pub(super) queue: usize,
    /// The sequence number of this start among all starts in its lane, beginning at 1.
    pub(super) start_seq: u64,
    pub(super) is_scout: bool,
    /// The id of the probe (test request) of a circuit breaker. `None` if the request is not a
    /// probe.
    pub(super) probe_id: Option<ProbeId>,
}

impl Slot {
    /// Whether the request is a scout (the first request to an origin whose protocol is unknown)
    /// for which other requests of the route may wait. False after
    /// [`end_wait_for_scout_or_probe`](super::Schedule::end_wait_for_scout_or_probe).
    pub(crate) fn is_scout(&self) -> bool {
        self.is_scout
    }

    /// Whether the request is the probe (test request) of a circuit breaker, and other requests of
    /// the route still wait for it.
    /// [`end_wait_for_scout_or_probe`](super::Schedule::end_wait_for_scout_or_probe) makes this
    /// false.
    pub(crate) fn is_probe(&self) -> bool {
        self.probe_id.is_some()
    }

    pub(crate) fn batch_id(&self) -> BatchId {
        self.batch_id
    }

    /// Returns the id of the lane of the request. The id is valid until the slot is settled.
    pub(crate) fn lane_id(&self) -> LaneId {
        LaneId(self.lane)
    }
}
