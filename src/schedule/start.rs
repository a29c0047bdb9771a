//! Starts a job of a batch whose gate is open.

use super::admission::Admission;
use super::breaker::BreakerAdmission;
use super::run_state::RunState;
use super::{BatchId, Schedulable, Schedule, Slot, Time};

impl<J: Schedulable> Schedule<J> {
    /// Starts a job of the first runnable queue of a batch whose gate and whose lane's gate grant a
    /// start. The gates of the schedule and of the batch have granted the start.
    pub(super) fn start_from_batch(&mut self, batch: usize, now: Time) -> Option<(Slot, J)> {
        loop {
            let (queue, woken_by_lane) = self.pop_runnable_queue(batch)?;
            let lane = self.queues[queue].lane;
            let started = self.start_from_queue(queue, lane, woken_by_lane, now);
            if woken_by_lane && self.queues[queue].run_state != RunState::ParkedOnLane {
                self.wake_next_in_lane(lane);
            }
            if started.is_some() {
                return started;
            }
        }
    }

    fn start_from_queue(
        &mut self,
        queue: usize,
        lane: usize,
        woken_by_lane: bool,
        now: Time,
    ) -> Option<(Slot, J)> {
        self.reject_abandoned_front(queue);
        match self.queues[queue].ready_jobs.highest_level() {
            None => {
                self.set_queue_idle(queue);
                return None;
            }
            // The queue was ranked by a job of a higher level, which was abandoned.
            Some(level) if level < self.queues[queue].run_queue_key.level => {
                self.enqueue(queue, false);
                return None;
            }
            Some(_) => {}
        }
        if !self.check_breaker(queue, lane, woken_by_lane, now) {
            return None;
        }
        match self.lanes[lane].gate.check(now) {
            Admission::Granted => {}
            refusal => {
                self.park_on_lane(queue, refusal, woken_by_lane);
                return None;
            }
        }
        match self.queues[queue].gate.check(now) {
            Admission::Granted => {}
            refusal => {
                self.park_queue(queue, refusal);
                return None;
            }
        }
        self.start(queue, now)
    }

    fn reject_abandoned_front(&mut self, queue: usize) {
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

    /// Returns whether the lane's circuit breaker grants a start. Otherwise parks the queue, or
    /// moves its ready jobs to the unreachable jobs.
    fn check_breaker(&mut self, queue: usize, lane: usize, woken_by_lane: bool, now: Time) -> bool {
        match self.lanes[lane].breaker.check(now) {
            BreakerAdmission::Granted => return true,
            BreakerAdmission::Wait(refusal) => self.park_on_lane(queue, refusal, woken_by_lane),
            BreakerAdmission::Reject => {
                let before = self.unreachable_jobs.len();
                let drained = &mut self.queues[queue];
                drained.ready_jobs.drain(&mut self.unreachable_jobs);
                let batch = drained.batch;
                self.decrement_queued_count(batch, self.unreachable_jobs.len() - before);
                self.set_queue_idle(queue);
            }
        }
        debug_assert_ne!(self.queues[queue].run_state, RunState::Runnable);
        false
    }

    /// Starts the first job of a queue. All gates have granted the start.
    fn start(&mut self, queue: usize, now: Time) -> Option<(Slot, J)> {
        let source = &mut self.queues[queue];
        let (job, is_fresh) = source.ready_jobs.pop()?;
        source.gate.enter(now);
        let lane = source.lane;
        let index = source.batch;
        if source.ready_jobs.is_empty() {
            source.run_state = RunState::Idle;
        } else {
            self.enqueue_after_start(queue);
        }
        let batch = &mut self.batches[index];
        batch.gate.enter(now);
        let batch_id = BatchId {
            index,
            serial: batch.serial,
        };
        let target = &mut self.lanes[lane];
        target.start_count += 1;
        let start_seq = target.start_count;
        let scout_deadline = target.gate.enter(now);
        let probe_id = target.breaker.enter();
        if is_fresh {
            target.retry_budget.deposit();
        }
        if let Some(deadline) = scout_deadline {
            batch.scout_deadline = deadline;
        }
        self.gate.enter(now);
        self.decrement_queued_count(index, 1);
        let slot = Slot {
            batch: batch_id,
            lane,
            queue,
            start_seq,
            is_scout: scout_deadline.is_some(),
            probe_id,
        };
        Some((slot, job))
    }
}
