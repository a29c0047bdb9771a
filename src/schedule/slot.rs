//! Handles to a batch, to a lane (usually a host), and to a request in flight.

use super::breaker::ProbeId;

/// Identifies a batch.
///
/// The index of a removed batch may be reused for another batch. The serial number is never reused.
#[derive(Copy, Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct BatchId {
    pub(super) index: usize,
    pub(super) serial: u64,
}

impl BatchId {
    /// A small number that is unique among the batches that exist now.
    pub(crate) fn index(self) -> usize {
        self.index
    }
}

/// Identifies a lane. The id is valid while the lane has queued jobs or jobs in flight; an idle
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
    /// The sequence number of this start among all starts of its lane, from 1.
    pub(super) start_seq: u64,
    pub(super) is_scout: bool,
    /// Set if the request is the probe (test request) of its route's circuit breaker.
    pub(super) probe_id: Option<ProbeId>,
}

impl Slot {
    /// Whether the request is a scout (the first request to an origin whose protocol is unknown)
    /// that has not been [finished](super::Schedule::finish_scout_or_probe). Other requests of the
    /// route wait for the scout.
    pub(crate) fn is_scout(&self) -> bool {
        self.is_scout
    }

    /// Whether the request is a probe (test request) of a circuit breaker that has not been
    /// [finished](super::Schedule::finish_scout_or_probe). Other requests of the route wait for the
    /// probe.
    pub(crate) fn is_probe(&self) -> bool {
        self.probe_id.is_some()
    }

    pub(crate) fn batch_id(&self) -> BatchId {
        self.batch_id
    }

    /// The lane of the request. The id is valid until the slot is settled.
    pub(crate) fn lane_id(&self) -> LaneId {
        LaneId(self.lane)
    }
}
