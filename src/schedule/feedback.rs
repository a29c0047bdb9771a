//! Feedback from exchanges to their lanes: outcomes, announced rate limits, pauses, retries.

use super::gate::LimitAnnouncement;
use super::{HostObservation, LaneId, Schedulable, Schedule, Slot, Time};

impl<J: Schedulable> Schedule<J> {
    /// Records the outcome of the exchange in a slot that is about to be settled. Feeds the circuit
    /// breaker and the adaptive limits.
    ///
    /// If the response announced a rate limit, call
    /// [`observe_server_limit`](Self::observe_server_limit) first.
    pub(crate) fn record_observation(
        &mut self,
        slot: &Slot,
        observation: HostObservation,
        now: Time,
    ) {
        // A recheck without an announcement shows that the host has no limit any more.
        if self.lanes[slot.lane]
            .gate
            .remove_rechecked_server_limit(slot.start_seq)
        {
            self.wake_next_in_lane(slot.lane);
        }
        let lane = &mut self.lanes[slot.lane];
        let start_count = lane.start_count;
        let has_breaker_changed = lane
            .breaker
            .record_health(slot.probe, observation.health, now);
        let has_gate_opened =
            lane.gate
                .record_observation(&observation, slot.start_seq, start_count, now);
        if has_gate_opened || has_breaker_changed {
            self.wake_next_in_lane(slot.lane);
        }
        let queue = &mut self.queues[slot.queue];
        if queue
            .gate
            .record_observation(&observation, slot.start_seq, start_count, now)
        {
            self.unpark_queue(slot.queue);
        }
    }

    /// Records the rate limit that a host announced: it accepts `remaining` more requests in the
    /// next `reset_after` nanoseconds. The announcement was in the response to the exchange in this
    /// slot, which is about to be settled.
    pub(crate) fn observe_server_limit(
        &mut self,
        slot: &Slot,
        remaining: u64,
        reset_after: u64,
        now: Time,
    ) {
        let queue = &self.queues[slot.queue];
        let queued = queue.ready.len() + queue.delayed_count;
        let lane = &mut self.lanes[slot.lane];
        let announcement = LimitAnnouncement {
            remaining,
            reset_after,
            start_seq: slot.start_seq,
        };
        lane.gate
            .observe_server_limit(announcement, lane.start_count, queued as u64, now);
        self.wake_next_in_lane(slot.lane);
    }

    /// Records that a scout has found out what it was sent for, or that a probe has received a
    /// response head. Other requests of the lane no longer wait for it.
    pub(crate) fn finish_scout_or_probe(&mut self, slot: &mut Slot) {
        if let Some(probe) = slot.probe.take()
            && self.lanes[slot.lane].breaker.probe_answered(Some(probe))
        {
            self.wake_next_in_lane(slot.lane);
        }
        if std::mem::take(&mut slot.is_scout) {
            self.lanes[slot.lane].gate.finish_scout();
            self.batches[slot.batch.index].scout_deadline = Time::default();
            self.wake_next_in_lane(slot.lane);
        }
    }

    /// Pauses the lane of this slot: nothing starts in it before `until`.
    pub(crate) fn pause_lane(&mut self, slot: &Slot, until: Time) {
        self.lanes[slot.lane].gate.pause(until);
    }

    /// Takes one retry out of a lane's retry budget. Returns false if the budget is exhausted.
    pub(crate) fn withdraw_retry(&mut self, lane: LaneId, now: Time) -> bool {
        self.lanes[lane.0].retry_budget.withdraw(now)
    }
}
