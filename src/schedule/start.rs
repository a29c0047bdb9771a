//! Starts a job of a batch whose gate grants the start.

use super::admission::{Admission, RouteAdmission};
use super::parking::ParkingLotId;
use super::route::Route;
use super::run_state::RunState;
use super::{BatchId, Schedulable, Schedule, Slot, Time};

impl<J: Schedulable> Schedule<J> {
    /// Starts a job of the first runnable queue for which the route, the lane, the batch's share of
    /// the lane, the concurrency limit of the queue and the budgets grant a start. The caller has
    /// checked the gates of the schedule, of the tenant and of the batch.
    pub(super) fn try_start_job_of_batch(&mut self, batch: usize, now: Time) -> Option<(Slot, J)> {
        loop {
            let (queue, woken_by) = self.pop_runnable_queue(batch)?;
            let started = self.try_start_job_of_queue(queue, woken_by, now);
            if let Some(lot) = woken_by
                && !self.is_first_in_lot(queue, lot)
            {
                self.forward_wakeup(queue, lot);
            }
            if started.is_some() {
                return started;
            }
        }
    }

    fn try_start_job_of_queue(
        &mut self,
        queue: usize,
        woken_by: Option<ParkingLotId>,
        now: Time,
    ) -> Option<(Slot, J)> {
        self.reject_abandoned_front_jobs(queue);
        match self.queues[queue].ready_jobs.highest_level() {
            None => {
                self.set_queue_idle(queue);
                return None;
            }
            // The queue was ranked by a job that was abandoned and had a higher level.
            Some(level) if level < self.queues[queue].run_queue_rank.level => {
                self.add_to_run_queue(queue, None);
                return None;
            }
            Some(_) => {}
        }
        let checked = &self.queues[queue];
        let (lane, share, route) = (checked.lane, checked.share, checked.route);
        match self.routes[route].check_admission(now) {
            RouteAdmission::Granted => {}
            RouteAdmission::MustWait(refusal) if !self.does_deadline_pass_before_probe(queue) => {
                self.park_or_reject_queue(queue, ParkingLotId::Route(route), refusal, woken_by);
                return None;
            }
            RouteAdmission::MustWait(_) | RouteAdmission::RejectJob => {
                self.move_ready_jobs_to_unreachable(queue);
                self.set_queue_idle(queue);
                return None;
            }
        }
        match self.lanes[lane].gate.check_admission(now) {
            Admission::Granted => {}
            refusal => {
                self.park_or_reject_queue(queue, ParkingLotId::Lane(lane), refusal, woken_by);
                return None;
            }
        }
        match self.shares[share].gate.check_admission(now) {
            Admission::Granted => {}
            refusal => {
                self.park_or_reject_queue(queue, ParkingLotId::Share(share), refusal, woken_by);
                return None;
            }
        }
        if self.queues[queue].concurrency_limit.is_limit_reached() {
            self.queues[queue].run_state = RunState::ParkedOnOwnLimit;
            return None;
        }
        if self.queues[queue].budgets.is_some() && !self.charge_front_job_or_park(queue, now) {
            return None;
        }
        self.start_front_job(queue, now)
    }

    pub(super) fn reject_abandoned_front_jobs(&mut self, queue: usize) {
        while self.queues[queue]
            .ready_jobs
            .front()
            .is_some_and(J::is_abandoned)
        {
            self.reject_front_job(queue);
        }
    }

    pub(super) fn reject_front_job(&mut self, queue: usize) {
        if let Some((job, _)) = self.queues[queue].ready_jobs.pop() {
            self.rejected_jobs.push(job);
            self.decrement_queued_count(self.queues[queue].batch, 1);
            self.drop_ticket(queue);
        }
    }

    /// Whether the deadline of a queue's batch passes before the circuit breaker of the queue's
    /// route permits a probe.
    fn does_deadline_pass_before_probe(&self, queue: usize) -> bool {
        let queue = &self.queues[queue];
        let deadline = self.batches[queue.batch].deadline;
        let unavailable_until = self.routes[queue.route].unavailable_until();
        deadline.is_some_and(|deadline| unavailable_until.is_some_and(|until| deadline <= until))
    }

    /// Moves the ready jobs of a route to the unreachable jobs if the deadlines of their batches
    /// pass before the circuit breaker permits a probe. Called after the last request of the route
    /// has ended.
    pub(super) fn move_jobs_ending_before_probe_to_unreachable(&mut self, route: usize) {
        let Route {
            lane, proxy_key, ..
        } = &self.routes[route];
        let queues: Vec<usize> = self
            .batches
            .iter()
            .filter(|(_, batch)| batch.deadline.is_some())
            .filter_map(|(_, batch)| batch.share_by_lane.get(lane))
            .filter_map(|&share| self.shares[share].queues.index_of(proxy_key.as_deref()))
            .collect();
        for queue in queues {
            if self.does_deadline_pass_before_probe(queue) {
                self.move_ready_jobs_to_unreachable(queue);
            }
        }
    }

    /// Moves the ready jobs of a queue to the unreachable jobs, because the circuit breaker of its
    /// route rejects them.
    fn move_ready_jobs_to_unreachable(&mut self, queue: usize) {
        let before = self.unreachable_jobs.len();
        let drained = &mut self.queues[queue];
        drained.ready_jobs.move_all_into(&mut self.unreachable_jobs);
        let batch = drained.batch;
        self.decrement_queued_count(batch, self.unreachable_jobs.len() - before);
        self.drop_ticket(queue);
    }

    /// Starts the first job of a queue. The caller has checked all gates and charged the budgets.
    fn start_front_job(&mut self, queue: usize, now: Time) -> Option<(Slot, J)> {
        let source = &mut self.queues[queue];
        let (job, is_fresh) = source.ready_jobs.pop()?;
        source.concurrency_limit.record_start();
        let (lane, share, route) = (source.lane, source.share, source.route);
        let index = source.batch;
        let has_ready_job = !source.ready_jobs.is_empty();
        if has_ready_job {
            self.add_to_run_queue_after_start(queue);
        } else {
            source.run_state = RunState::Idle;
        }
        let batch = &mut self.batches[index];
        let is_batch_runnable = !batch.run_queue.is_empty();
        batch.gate.record_start(now, is_batch_runnable);
        if let Some(tenant) = batch.tenant {
            let tenant = &mut self.tenants[tenant];
            let has_waiting_request = is_batch_runnable || !tenant.parked_batches.is_empty();
            tenant.gate.record_start(now, has_waiting_request);
        }
        self.virtual_time = self.virtual_time.max(batch.next_turn_virtual_time);
        batch.next_turn_virtual_time = self.virtual_time + 1;
        let batch_id = BatchId {
            index,
            batch_serial: batch.batch_serial,
        };
        let target = &mut self.lanes[lane];
        target.start_count += 1;
        let start_seq = target.start_count;
        let has_parked_queue = !target.parking_lot.parked_queues.is_empty();
        target
            .gate
            .record_start(now, has_ready_job || has_parked_queue);
        if is_fresh {
            target.retry_budget.deposit_for_fresh_request();
        }
        self.shares[share].gate.record_start(now, has_ready_job);
        let route = &mut self.routes[route];
        route.concurrency_limit.record_start();
        let scout_alone_until = route.scout_gate.record_start(now);
        let probe_id = route.breaker.start_probe_if_open();
        if let Some(deadline) = scout_alone_until {
            batch.scout_alone_until = deadline;
        }
        let has_runnable_batch = self.has_runnable_batch();
        self.gate
            .record_start(now, is_batch_runnable || has_runnable_batch);
        self.decrement_queued_count(index, 1);
        let slot = Slot {
            batch_id,
            lane,
            queue,
            start_seq,
            is_scout: scout_alone_until.is_some(),
            probe_id,
        };
        Some((slot, job))
    }
}
