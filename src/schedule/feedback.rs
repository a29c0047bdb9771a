//! Reports what an exchange (one request and its response) has shown about its lane (usually a
//! host) and its route: outcome, announced rate limit, pause.

use super::admission::RouteAdmission;
use super::gate::LimitAnnouncement;
use super::parking::ParkingLotId;
use super::{LaneId, RouteObservation, Schedulable, Schedule, Slot, Time};

impl<J: Schedulable> Schedule<J> {
    /// Records the outcome of an exchange in the route's circuit breaker and adaptive limits. The
    /// caller settles `slot` afterwards.
    ///
    /// If the response announced a rate limit,
    /// [`apply_limit_announcement`](Self::apply_limit_announcement) must be called first.
    pub(crate) fn record_observation(
        &mut self,
        slot: &Slot,
        observation: RouteObservation,
        now: Time,
    ) {
        // The recheck (the first request after the reset of an announced limit) got a response
        // without an announcement, so the host no longer has a limit.
        if self.lanes[slot.lane]
            .gate
            .lift_rechecked_server_limit(slot.start_seq)
        {
            self.wake_next_queue_of_lot(ParkingLotId::Lane(slot.lane));
        }
        let start_count = self.lanes[slot.lane].start_count;
        let index = self.queues[slot.queue].route;
        let route = &mut self.routes[index];
        let has_breaker_changed =
            route
                .breaker
                .record_health(slot.probe_id, observation.health, now);
        let has_limit_opened = route.concurrency_limit.record_observation(
            &observation,
            slot.start_seq,
            start_count,
            now,
        );
        if has_limit_opened || has_breaker_changed {
            self.wake_next_queue_of_lot(ParkingLotId::Route(index));
        }
        if has_breaker_changed && self.routes[index].check(now) == RouteAdmission::Reject {
            self.unpark_queues_of_rejecting_route(index);
        }
        let queue = &mut self.queues[slot.queue];
        if queue.concurrency_limit.record_observation(
            &observation,
            slot.start_seq,
            start_count,
            now,
        ) {
            self.unpark_queue(slot.queue);
        }
    }

    /// Records the rate limit that a host announced in the response to the request of `slot`: the
    /// host accepts `remaining` more requests in the next `reset_after` nanoseconds. The caller
    /// settles `slot` afterwards.
    pub(crate) fn apply_limit_announcement(
        &mut self,
        slot: &Slot,
        remaining: u64,
        reset_after: u64,
        now: Time,
    ) {
        let queued = self.queued_job_count_of_share(self.queues[slot.queue].share);
        let lane = &mut self.lanes[slot.lane];
        let announcement = LimitAnnouncement {
            remaining,
            reset_after,
            start_seq: slot.start_seq,
        };
        lane.gate
            .apply_limit_announcement(announcement, lane.start_count, queued as u64, now);
        self.wake_next_queue_of_lot(ParkingLotId::Lane(slot.lane));
    }

    /// Records that a scout (the first request on a route whose protocol is unknown) has found
    /// the protocol, or that a probe (the test request of a circuit breaker) has received a
    /// response head. Other requests of the route no longer wait for the scout or probe.
    pub(crate) fn finish_scout_or_probe(&mut self, slot: &mut Slot) {
        let route = self.queues[slot.queue].route;
        if let Some(probe) = slot.probe_id.take()
            && self.routes[route]
                .breaker
                .record_probe_response(Some(probe))
        {
            self.wake_next_queue_of_lot(ParkingLotId::Route(route));
        }
        if std::mem::take(&mut slot.is_scout) {
            self.routes[route].scout.finish();
            self.batches[slot.batch_id.index].scout_deadline = Time::default();
            self.wake_next_queue_of_lot(ParkingLotId::Route(route));
        }
    }

    /// Records that the request in this slot is not going to be sent. If it is a scout, the next
    /// request on its route is the scout instead.
    pub(crate) fn restart_scout(&mut self, slot: &mut Slot) {
        if std::mem::take(&mut slot.is_scout) {
            let route = self.queues[slot.queue].route;
            self.routes[route].scout.reassign();
            self.batches[slot.batch_id.index].scout_deadline = Time::default();
            self.wake_next_queue_of_lot(ParkingLotId::Route(route));
        }
    }

    /// The number of queued jobs of one batch for one lane.
    fn queued_job_count_of_share(&self, share: usize) -> usize {
        let queues = self.shares[share].queues.values();
        queues
            .map(|queue| self.queues[queue].ready_jobs.len() + self.queues[queue].delayed_count)
            .sum()
    }

    /// Pauses the lane of this slot: nothing starts in the lane before `until`.
    pub(crate) fn pause_lane(&mut self, slot: &Slot, until: Time) {
        self.lanes[slot.lane].gate.pause_until(until);
    }

    /// Withdraws one retry from a lane's retry budget. Returns false if the budget is exhausted.
    pub(crate) fn withdraw_retry(&mut self, lane: LaneId, now: Time) -> bool {
        self.lanes[lane.0].retry_budget.withdraw(now)
    }
}
