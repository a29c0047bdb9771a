//! Applies the outcomes of exchanges (one request and its response) to lanes (usually hosts) and
//! routes: observed health, announced rate limits, pauses.

use super::admission::RouteAdmission;
use super::gate::RateLimitAnnouncement;
use super::parking::ParkingLotId;
use super::{LaneId, RouteObservation, Schedulable, Schedule, Slot, Time};

impl<J: Schedulable> Schedule<J> {
    /// Records the outcome of an exchange in the circuit breaker and the adaptive limits. The
    /// caller settles (returns) `slot` after this call.
    ///
    /// If the response announces a rate limit, the caller first calls
    /// [`apply_rate_limit_announcement`](Self::apply_rate_limit_announcement).
    pub(crate) fn record_exchange_outcome(
        &mut self,
        slot: &Slot,
        observation: RouteObservation,
        now: Time,
    ) {
        // The first request after the reset of an announced limit got a response without an
        // announcement. The host thus no longer has a limit.
        if self.lanes[slot.lane]
            .gate
            .lift_server_limit_if_rechecked_by(slot.start_seq)
        {
            self.wake_next_queue_of_lot(ParkingLotId::Lane(slot.lane));
        }
        let start_count = self.lanes[slot.lane].start_count;
        let index = self.queues[slot.queue].route;
        let route = &mut self.routes[index];
        let has_breaker_changed =
            route
                .breaker
                .record_observed_health(slot.probe_id, observation.health, now);
        let has_limit_opened = route.concurrency_limit.record_exchange_outcome(
            &observation,
            slot.start_seq,
            start_count,
            now,
        );
        if has_limit_opened || has_breaker_changed {
            self.wake_next_queue_of_lot(ParkingLotId::Route(index));
        }
        if has_breaker_changed
            && self.routes[index].check_admission(now) == RouteAdmission::RejectJob
        {
            self.unpark_queues_of_rejecting_route(index);
        }
        let queue = &mut self.queues[slot.queue];
        if queue.concurrency_limit.record_exchange_outcome(
            &observation,
            slot.start_seq,
            start_count,
            now,
        ) {
            self.unpark_queue_from_own_limit(slot.queue);
        }
    }

    /// Applies the rate limit that a host announced in the response to the request of `slot`: the
    /// host accepts `remaining_requests` more requests in the next `nanos_until_reset` nanoseconds.
    /// The caller settles (returns) `slot` after this call.
    pub(crate) fn apply_rate_limit_announcement(
        &mut self,
        slot: &Slot,
        remaining_requests: u64,
        nanos_until_reset: u64,
        now: Time,
    ) {
        let queued = self.queued_job_count_of_share(self.queues[slot.queue].share);
        let lane = &mut self.lanes[slot.lane];
        let announcement = RateLimitAnnouncement {
            remaining_requests,
            nanos_until_reset,
            announcing_start_seq: slot.start_seq,
        };
        lane.gate
            .apply_rate_limit_announcement(announcement, lane.start_count, queued as u64, now);
        self.wake_next_queue_of_lot(ParkingLotId::Lane(slot.lane));
    }

    /// Ends the wait of other requests for a scout or probe. The scout (the first request on a
    /// route whose protocol is unknown) has found the protocol, or the probe (the test request of a
    /// circuit breaker) has received a response head.
    pub(crate) fn end_wait_for_scout_or_probe(&mut self, slot: &mut Slot) {
        let route = self.queues[slot.queue].route;
        if let Some(probe) = slot.probe_id.take()
            && self.routes[route]
                .breaker
                .close_if_current_probe(Some(probe))
        {
            self.wake_next_queue_of_lot(ParkingLotId::Route(route));
        }
        if std::mem::take(&mut slot.is_scout) {
            self.routes[route].scout_gate.end_wait_for_scout();
            self.batches[slot.batch_id.index].scout_alone_until = Time::default();
            self.wake_next_queue_of_lot(ParkingLotId::Route(route));
        }
    }

    /// Undoes the effects of a start whose request is not going to be sent: the start no longer
    /// counts against any rate, and the next request of the route becomes the scout if the request
    /// of `slot` is the scout. [`settle`](Self::settle) must be called after this.
    pub(crate) fn undo_unsent_start(&mut self, slot: &mut Slot) {
        let (batch, share) = (slot.batch_id.index, self.queues[slot.queue].share);
        self.gate.return_start();
        self.lanes[slot.lane].gate.return_start();
        self.wake_next_queue_of_lot(ParkingLotId::Lane(slot.lane));
        self.shares[share].gate.return_start();
        self.wake_next_queue_of_lot(ParkingLotId::Share(share));
        self.batches[batch].gate.return_start();
        self.unpark_batch(batch);
        if let Some(tenant) = self.batches[batch].tenant {
            self.tenants[tenant].gate.return_start();
            self.wake_next_batch_of_tenant(tenant);
        }
        if std::mem::take(&mut slot.is_scout) {
            let route = self.queues[slot.queue].route;
            self.routes[route].scout_gate.make_next_request_scout();
            self.batches[slot.batch_id.index].scout_alone_until = Time::default();
            self.wake_next_queue_of_lot(ParkingLotId::Route(route));
        }
    }

    /// The number of queued jobs of one batch for one lane.
    fn queued_job_count_of_share(&self, share: usize) -> usize {
        let queues = self.shares[share].queues.indices();
        queues
            .map(|queue| self.queues[queue].ready_jobs.len() + self.queues[queue].delayed_count)
            .sum()
    }

    /// Pauses the lane of `slot`: nothing starts in the lane before `until`.
    pub(crate) fn pause_lane(&mut self, slot: &Slot, until: Time) {
        self.lanes[slot.lane].gate.pause_until(until);
    }

    /// Withdraws one retry from a lane's retry budget. Returns false if the budget is exhausted.
    pub(crate) fn try_withdraw_retry_from_lane(&mut self, lane: LaneId, now: Time) -> bool {
        self.lanes[lane.0].retry_budget.try_withdraw_retry(now)
    }
}
