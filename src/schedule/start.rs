//! Starts a job of a batch whose gate is open.

use super::admission::{Admission, RouteAdmission};
use super::parking::ParkingLotId;
use super::route::Route;
use super::run_state::RunState;
use super::{BatchId, Schedulable, Schedule, Slot, Time};

impl<J: Schedulable> Schedule<J> {
    /// Starts a job of the first runnable queue whose route, lane, share and own limit grant a
    /// start. The gates of the schedule and of the batch have granted the start.
    pub(super) fn try_start_from_batch(&mut self, batch: usize, now: Time) -> Option<(Slot, J)> {
        loop {
            let (queue, woken_by) = self.pop_runnable_queue(batch)?;
            let started = self.try_start_from_queue(queue, woken_by, now);
            if let Some(lot) = woken_by
                && self.queues[queue].run_state != RunState::ParkedIn(lot)
            {
                self.forward_wakeup(queue, lot);
            }
            if started.is_some() {
                return started;
            }
        }
    }

    fn try_start_from_queue(
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
            // The queue was ranked by a job of a higher level, which was abandoned.
            Some(level) if level < self.queues[queue].run_queue_rank.level => {
                self.enqueue(queue, None);
                return None;
            }
            Some(_) => {}
        }
        let checked = &self.queues[queue];
        let (lane, share, route) = (checked.lane, checked.share, checked.route);
        match self.routes[route].check(now) {
            RouteAdmission::Granted => {}
            RouteAdmission::Wait(refusal) if !self.is_deadline_before_probe(queue) => {
                self.park_or_reject_queue(queue, ParkingLotId::Route(route), refusal, woken_by);
                return None;
            }
            RouteAdmission::Wait(_) | RouteAdmission::Reject => {
                self.move_ready_jobs_to_unreachable(queue);
                self.set_queue_idle(queue);
                return None;
            }
        }
        match self.lanes[lane].gate.check(now) {
            Admission::Granted => {}
            refusal => {
                self.park_or_reject_queue(queue, ParkingLotId::Lane(lane), refusal, woken_by);
                return None;
            }
        }
        match self.shares[share].gate.check(now) {
            Admission::Granted => {}
            refusal => {
                self.park_or_reject_queue(queue, ParkingLotId::Share(share), refusal, woken_by);
                return None;
            }
        }
        if self.queues[queue].concurrency_limit.is_full() {
            self.queues[queue].run_state = RunState::Parked;
            return None;
        }
        self.start_front_job(queue, now)
    }

    fn reject_abandoned_front_jobs(&mut self, queue: usize) {
        while self.queues[queue]
            .ready_jobs
            .front()
            .is_some_and(J::is_abandoned)
        {
            let popped = self.queues[queue].ready_jobs.pop();
            self.rejected_jobs.extend(popped.map(|(job, _)| job));
            self.decrement_queued_count(self.queues[queue].batch, 1);
        }
    }

    /// Whether the deadline of a queue's batch passes before the circuit breaker of its route lets
    /// a request start.
    fn is_deadline_before_probe(&self, queue: usize) -> bool {
        let queue = &self.queues[queue];
        let deadline = self.batches[queue.batch].deadline;
        let unavailable_until = self.routes[queue.route].unavailable_until();
        deadline.is_some_and(|deadline| unavailable_until.is_some_and(|until| deadline <= until))
    }

    /// Moves the jobs of a route to the unreachable jobs if their deadlines pass before the circuit
    /// breaker lets a request start. Called after the last request of the route has ended.
    pub(super) fn reject_jobs_ending_before_probe(&mut self, route: usize) {
        let Route {
            lane, proxy_key, ..
        } = &self.routes[route];
        let queues: Vec<usize> = self
            .batches
            .iter()
            .filter(|(_, batch)| batch.deadline.is_some())
            .filter_map(|(_, batch)| batch.share_by_lane.get(lane))
            .filter_map(|&share| self.shares[share].queues.get(proxy_key.as_deref()))
            .collect();
        for queue in queues {
            if self.is_deadline_before_probe(queue) {
                self.move_ready_jobs_to_unreachable(queue);
            }
        }
    }

    /// Moves the ready jobs of a queue to the unreachable jobs, because the circuit breaker of its
    /// route rejects them.
    fn move_ready_jobs_to_unreachable(&mut self, queue: usize) {
        let before = self.unreachable_jobs.len();
        let drained = &mut self.queues[queue];
        drained.ready_jobs.drain(&mut self.unreachable_jobs);
        let batch = drained.batch;
        self.decrement_queued_count(batch, self.unreachable_jobs.len() - before);
    }

    /// Starts the first job of a queue. All gates have granted the start.
    fn start_front_job(&mut self, queue: usize, now: Time) -> Option<(Slot, J)> {
        let source = &mut self.queues[queue];
        let (job, is_fresh) = source.ready_jobs.pop()?;
        source.concurrency_limit.record_start();
        let (lane, share, route) = (source.lane, source.share, source.route);
        let index = source.batch;
        let has_ready_job = !source.ready_jobs.is_empty();
        if has_ready_job {
            self.enqueue_after_start(queue);
        } else {
            source.run_state = RunState::Idle;
        }
        let batch = &mut self.batches[index];
        let is_batch_runnable = !batch.run_queue.is_empty();
        batch.gate.record_start(now, is_batch_runnable);
        self.virtual_time = self.virtual_time.max(batch.next_turn_virtual_time);
        batch.next_turn_virtual_time = self.virtual_time + 1;
        let batch_id = BatchId {
            index,
            serial: batch.serial,
        };
        let target = &mut self.lanes[lane];
        target.start_count += 1;
        let start_seq = target.start_count;
        let has_parked_queue = !target.parking_lot.queues.is_empty();
        target
            .gate
            .record_start(now, has_ready_job || has_parked_queue);
        if is_fresh {
            target.retry_budget.deposit();
        }
        self.shares[share].gate.record_start(now, has_ready_job);
        let route = &mut self.routes[route];
        route.concurrency_limit.record_start();
        let scout_deadline = route.scout.record_start(now);
        let probe_id = route.breaker.record_start();
        if let Some(deadline) = scout_deadline {
            batch.scout_deadline = deadline;
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
            is_scout: scout_deadline.is_some(),
            probe_id,
        };
        Some((slot, job))
    }
}
