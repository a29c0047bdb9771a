//! What the schedule learns of a host from what came of an exchange with it.

use super::{Schedulable, Schedule, Slot, Time};

/// How a host did.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) enum Health {
    /// It answered.
    Healthy,
    /// It answered that it has too much to do, or did not answer to the end.
    Overloaded,
    /// There was no connection to it.
    Unreachable,
}

/// What one exchange says of its host.
#[derive(Copy, Clone, Debug)]
pub(crate) struct HostObservation {
    pub(crate) health: Health,
    /// From the connection to the head of the answer, in nanoseconds; none if there was no head.
    pub(crate) latency: Option<u64>,
}

impl<J: Schedulable> Schedule<J> {
    /// Heeds what came of the exchange in a slot that is about to be settled.
    pub(crate) fn record_observation(&mut self, slot: &Slot, evidence: HostObservation, now: Time) {
        self.forget_quota(slot);
        let lane = &mut self.lanes[slot.lane];
        let starts = lane.starts;
        let is_back = lane.breaker.learn(slot.probe, evidence.health, now);
        if lane.gate.learn(&evidence, slot.number, starts, now) || is_back {
            self.call_up(slot.lane);
        }
        let queue = &mut self.queues[slot.queue];
        if queue.gate.learn(&evidence, slot.number, starts, now) {
            self.unpark_queue(slot.queue);
        }
    }
}
