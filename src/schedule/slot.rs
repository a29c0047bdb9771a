//! Handles to a batch, to a lane, and to a request in flight.

use super::breaker::ProbeId;

/// Identifies a batch.
///
/// Batches of different times may have the same index, but never the same serial number.
#[derive(Copy, Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct BatchId {
    pub(super) index: usize,
    pub(super) serial: u64,
}

impl BatchId {
    /// A small number that is unique among the current batches.
    pub(crate) fn index(self) -> usize {
        self.index
    }
}

/// Identifies a lane that has queued jobs or jobs in flight. Idle lanes are evicted.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) struct LaneId(pub(super) usize);

/// The right to be on the wire. [`Schedule::settle`](super::Schedule::settle) takes it back.
#[derive(Debug)]
#[must_use]
pub(crate) struct Slot {
    pub(super) batch: BatchId,
    pub(super) lane: usize,
    pub(super) queue: usize,
    /// The number of this start among all starts of its lane, from 1.
    pub(super) start_seq: u64,
    pub(super) is_scout: bool,
    /// Set if this request is the probe of the lane's circuit breaker.
    pub(super) probe: Option<ProbeId>,
}

impl Slot {
    /// Whether this is a scout whose finding has not been
    /// [reported](super::Schedule::finish_scout_or_probe). Other requests of the lane wait for it.
    pub(crate) fn is_scout(&self) -> bool {
        self.is_scout
    }

    /// Whether this is a breaker's probe whose response has not been
    /// [reported](super::Schedule::finish_scout_or_probe). Other requests of the lane wait for it.
    pub(crate) fn is_probe(&self) -> bool {
        self.probe.is_some()
    }

    pub(crate) fn batch(&self) -> BatchId {
        self.batch
    }

    /// The lane of this request. The id is valid until the slot is settled.
    pub(crate) fn lane_id(&self) -> LaneId {
        LaneId(self.lane)
    }
}
