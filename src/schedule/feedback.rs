//! Reports what an exchange (one request and its response) has shown about its lane (usually a
//! host): outcome, announced rate limit, pause.

use super::gate::LimitAnnouncement;
use super::{HostObservation, LaneId, Schedulable, Schedule, Slot, Time};

impl<J: Schedulable> Schedule<J> {
    /// Records the outcome of an exchange in the lane's circuit breaker and adaptive limits. The
    /// caller settles `slot` afterwards.
    ///
    /// If the response announced a rate limit, [`observe_server_limit`](Self::observe_server_limit)
    /// must be called first.
    pub(crate) fn record_observation(
        &mut self,
        slot: &Slot,
        observation: HostObservation,
        now: Time,
    ) {
        // The recheck (the first request after the reset of an announced limit) got a response
        // without an announcement, so the host no longer has a limit.
        if self.lanes[slot.lane]
            .gate
            .remove_rechecked_server_limit(slot.start_seq)
        {
            self.wake_next_in_lane(slot.lane);
        }
        let lane = &mut self.lanes[slot.lane];
        let start_count = lane.start_count;
        let has_breaker_changed =
            lane.breaker
                .record_health(slot.probe_id, observation.health, now);
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

    /// Records the rate limit that a host announced in the response to the request of `slot`: the
    /// host accepts `remaining` more requests in the next `reset_after` nanoseconds. The caller
    /// settles `slot` afterwards.
    pub(crate) fn observe_server_limit(
        &mut self,
        slot: &Slot,
        remaining: u64,
        reset_after: u64,
        now: Time,
    ) {
        let queue = &self.queues[slot.queue];
        let queued = queue.ready_jobs.len() + queue.delayed_count;
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

    /// Records that a scout (the first request to an origin whose protocol is unknown) has found
    /// the protocol, or that a probe (the test request of a circuit breaker) has received a
    /// response head. Other requests of the lane no longer wait for the scout or probe.
    pub(crate) fn finish_scout_or_probe(&mut self, slot: &mut Slot) {
        if let Some(probe_id) = slot.probe_id.take()
            && self.lanes[slot.lane].breaker.probe_answered(Some(probe_id))
        {
            self.wake_next_in_lane(slot.lane);
        }
        if std::mem::take(&mut slot.is_scout) {
            self.lanes[slot.lane].gate.finish_scout();
            self.batches[slot.batch.index].scout_deadline = Time::default();
            self.wake_next_in_lane(slot.lane);
        }
    }

    /// Records that the request in this slot is not going to be sent. If it is a scout, the next
    /// request of the lane is the scout instead.
    pub(crate) fn restart_scout(&mut self, slot: &mut Slot) {
        if std::mem::take(&mut slot.is_scout) {
            self.lanes[slot.lane].gate.restart_scout();
            self.batches[slot.batch.index].scout_deadline = Time::default();
        }
    }

    /// Pauses the lane of this slot: nothing starts in the lane before `until`.
    pub(crate) fn pause_lane(&mut self, slot: &Slot, until: Time) {
        self.lanes[slot.lane].gate.pause(until);
    }

    /// Withdraws one retry from a lane's retry budget. Returns false if the budget is exhausted.
    pub(crate) fn withdraw_retry(&mut self, lane: LaneId, now: Time) -> bool {
        self.lanes[lane.0].retry_budget.withdraw(now)
    }
}
