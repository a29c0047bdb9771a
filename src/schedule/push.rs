//! Adds fresh jobs to the schedule, and requeues started jobs.

use super::priority::{JobFreshness, PriorityLevel};
use super::route::RouteKey;
use super::state::DelayedJob;
use super::timer::TimerTarget;
use super::{BatchId, LaneLimits, Schedulable, Schedule, Slot, Time};

impl<J: Schedulable> Schedule<J> {
    /// Adds a fresh job. Fresh jobs of the same batch, route and priority start in the order in
    /// which they were pushed.
    ///
    /// Calls `limits` only if the lane or the route does not exist. The job is [rejected] at once
    /// if the batch has ended, or if the batch or lane is
    /// [closed](Self::close_lane_of_batch_and_take_queued_jobs).
    ///
    /// [rejected]: Self::take_rejected_jobs
    pub(crate) fn push<L: Into<LaneLimits>>(
        &mut self,
        batch: BatchId,
        route: RouteKey<'_>,
        limits: impl FnOnce() -> L,
        job: J,
        now: Time,
    ) {
        if self.is_batch_removed_or_past_deadline(batch, now)
            || self.is_batch_or_lane_closed(batch, Some(route.lane_key))
        {
            self.rejected_jobs.push(job);
            return;
        }
        let queue = self.find_or_add_queue(batch.index, route, limits, now);
        self.add_ready_job(queue, job, JobFreshness::Fresh);
    }

    /// Requeues a started job on the same route. The job does not start before `at`, but starts
    /// before fresh jobs. The caller settles (returns) `slot` after this call.
    ///
    /// # Errors
    ///
    /// Returns the job if its batch or lane is closed, if its batch is removed, or if the deadline
    /// of its batch is not after `at`.
    pub(crate) fn requeue(&mut self, slot: &Slot, job: J, at: Time, now: Time) -> Result<(), J> {
        if self.is_batch_removed_or_past_deadline(slot.batch_id, at.max(now))
            || self.is_batch_or_lane_of_slot_closed(slot)
        {
            return Err(job);
        }
        if at > now {
            let delayed = self.add_delayed_job(slot.queue, job, at);
            self.set_timer(at, TimerTarget::DelayedJob(delayed));
        } else {
            self.add_ready_job(slot.queue, job, JobFreshness::Requeued);
        }
        Ok(())
    }

    /// Requeues a started job on another route. The job starts before fresh jobs. Calls `limits`
    /// only if the lane or the route does not exist. The caller settles (returns) `slot` after this
    /// call.
    ///
    /// # Errors
    ///
    /// Returns the job if its batch has ended, or if its batch or lane is closed.
    pub(crate) fn requeue_on_route<L: Into<LaneLimits>>(
        &mut self,
        slot: &Slot,
        route: RouteKey<'_>,
        limits: impl FnOnce() -> L,
        job: J,
        now: Time,
    ) -> Result<(), J> {
        if self.is_batch_removed_or_past_deadline(slot.batch_id, now)
            || self.is_batch_or_lane_closed(slot.batch_id, Some(route.lane_key))
        {
            return Err(job);
        }
        let queue = self.find_or_add_queue(slot.batch_id.index, route, limits, now);
        self.add_ready_job(queue, job, JobFreshness::Requeued);
        Ok(())
    }

    /// Requeues a started job for the final round of its batch. The final round begins when no
    /// other job of the batch is queued or in flight, and no more jobs are
    /// [expected](Self::set_expects_more_jobs). The caller settles (returns) `slot` after this
    /// call.
    ///
    /// # Errors
    ///
    /// Returns the job if its batch has ended, or if its batch or lane is closed.
    pub(crate) fn requeue_for_final_round(
        &mut self,
        slot: &Slot,
        job: J,
        now: Time,
    ) -> Result<(), J> {
        if self.is_batch_removed_or_past_deadline(slot.batch_id, now)
            || self.is_batch_or_lane_of_slot_closed(slot)
        {
            return Err(job);
        }
        let delayed = self.add_delayed_job(slot.queue, job, Time::MAX);
        self.batches[slot.batch_id.index]
            .final_round_jobs
            .push(delayed);
        Ok(())
    }

    /// Makes a delayed job ready to start.
    pub(super) fn make_delayed_job_ready(&mut self, delayed: usize) {
        let DelayedJob { queue, job, .. } = self.delayed_jobs.remove(delayed);
        let target = &mut self.queues[queue];
        target.delayed_count -= 1;
        if target.budgets.is_some() {
            return self.push_to_queue_with_budgets(queue, job, JobFreshness::Requeued);
        }
        let level = job.priority_level();
        target.ready_jobs.push(job, level, JobFreshness::Requeued);
        self.add_to_run_queue_or_raise_rank(queue);
    }

    fn add_ready_job(&mut self, queue: usize, job: J, freshness: JobFreshness) {
        let target = &mut self.queues[queue];
        if target.budgets.is_some() {
            return self.add_ready_job_if_affordable(queue, job, freshness);
        }
        let level = job.priority_level();
        target.ready_jobs.push(job, level, freshness);
        let batch = target.batch;
        self.increment_queued_count(batch);
        self.add_to_run_queue_or_raise_rank(queue);
    }

    /// Adds a job to a queue with budgets, unless one of them can never cover its cost.
    #[inline(never)]
    fn add_ready_job_if_affordable(&mut self, queue: usize, job: J, freshness: JobFreshness) {
        if let Some(job) = self.reject_if_unaffordable(queue, job) {
            self.increment_queued_count(self.queues[queue].batch);
            self.push_to_queue_with_budgets(queue, job, freshness);
        }
    }

    fn push_to_queue_with_budgets(&mut self, queue: usize, job: J, freshness: JobFreshness) {
        // Other jobs of the queue may wait for the settlement of a carried charge.
        let (level, freshness) = if job.has_carried_charge() {
            (PriorityLevel::High, JobFreshness::RequeuedWithCharge)
        } else {
            (job.priority_level(), freshness)
        };
        self.end_reservations_before_push(queue, level, freshness);
        self.queues[queue].ready_jobs.push(job, level, freshness);
        self.add_to_run_queue_or_raise_rank(queue);
    }

    fn add_delayed_job(&mut self, queue: usize, job: J, not_before: Time) -> usize {
        self.increment_queued_count(self.queues[queue].batch);
        self.queues[queue].delayed_count += 1;
        self.delayed_jobs.insert(DelayedJob {
            queue,
            not_before,
            job,
        })
    }

    fn is_batch_or_lane_of_slot_closed(&self, slot: &Slot) -> bool {
        self.is_batch_or_lane_closed(slot.batch_id, Some(&*self.lanes[slot.lane].lane_key))
    }
}
