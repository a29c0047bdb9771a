//! Removes queued jobs that will not start: their batch has ended, its deadline passes before they
//! may start, or they were abandoned (nothing waits for their result).

use super::state::Queue;
use super::{BatchId, Schedulable, Schedule, Time};

/// Abandoned jobs are removed only if the batch has at least this many.
const MIN_ABANDONED_JOBS_BEFORE_REMOVAL: usize = 64;

impl<J: Schedulable> Schedule<J> {
    /// Removes and returns the queued jobs of a batch. The batch still accepts new jobs.
    pub(crate) fn take_queued_jobs_of_batch(&mut self, batch: BatchId) -> Vec<J> {
        let mut jobs = Vec::new();
        if self.find_live_batch(batch).is_some() {
            self.move_queued_jobs_of_batch(batch.index, &mut jobs);
            self.clear_run_queue(batch.index);
        }
        jobs
    }

    /// Counts an abandoned job of a batch. If there are many, removes and returns the abandoned
    /// jobs.
    ///
    /// Abandoned jobs are removed when they are more than half of the queued jobs of the batch.
    /// Their memory is thus at most that of the other jobs, and the cost per job is constant.
    /// Delayed jobs are not removed.
    pub(crate) fn note_abandoned_job_and_remove_if_many(&mut self, batch: BatchId) -> Vec<J> {
        let mut abandoned = Vec::new();
        if self.find_live_batch(batch).is_none() {
            return abandoned;
        }
        self.wake_queues_blocked_by_abandoned_jobs(batch.index);
        let noted = &mut self.batches[batch.index];
        noted.abandoned_count_since_removal += 1;
        if noted.abandoned_count_since_removal < MIN_ABANDONED_JOBS_BEFORE_REMOVAL
            || noted.abandoned_count_since_removal <= noted.queued_count / 2
        {
            return abandoned;
        }
        noted.abandoned_count_since_removal = 0;
        let mut changed = Vec::new();
        for &share in noted.share_by_lane.values() {
            for queue in self.shares[share].queues.indices() {
                let before = abandoned.len();
                let ready = &mut self.queues[queue].ready_jobs;
                ready.move_matching_into(J::is_abandoned, &mut abandoned);
                if abandoned.len() > before && self.queues[queue].budgets.is_some() {
                    changed.push(queue);
                }
            }
        }
        self.decrement_queued_count(batch.index, abandoned.len());
        for queue in changed {
            self.drop_ticket(queue);
        }
        abandoned
    }

    /// Moves all queued jobs of a batch to `into`, both ready and delayed ones.
    pub(super) fn move_queued_jobs_of_batch(&mut self, batch: usize, into: &mut Vec<J>) {
        let before = into.len();
        let drained = &mut self.batches[batch];
        drained.final_round_jobs.clear();
        let mut delayed_count = 0;
        for &share in drained.share_by_lane.values() {
            for queue in self.shares[share].queues.indices() {
                let queue = &mut self.queues[queue];
                queue.ready_jobs.move_all_into(into);
                delayed_count += std::mem::take(&mut queue.delayed_count);
            }
        }
        if delayed_count > 0 {
            self.move_delayed_jobs_matching(|_, queue| queue.batch == batch, into);
        }
        self.decrement_queued_count(batch, into.len() - before);
        for queue in self.queues_with_ticket(batch) {
            self.drop_ticket(queue);
        }
    }

    /// Moves all queued jobs of a queue to `into`, both ready and delayed ones.
    pub(super) fn move_queued_jobs_of_queue(&mut self, queue: usize, into: &mut Vec<J>) {
        let before = into.len();
        let drained = &mut self.queues[queue];
        let batch = drained.batch;
        drained.ready_jobs.move_all_into(into);
        if std::mem::take(&mut drained.delayed_count) > 0 {
            self.move_delayed_jobs_matching(|index, _| index == queue, into);
            let delayed_jobs = &self.delayed_jobs;
            let final_round_jobs = &mut self.batches[batch].final_round_jobs;
            final_round_jobs.retain(|&delayed| delayed_jobs.contains(delayed));
        }
        self.decrement_queued_count(batch, into.len() - before);
        self.drop_ticket(queue);
    }

    /// Moves the delayed jobs of the queues that match `predicate` to `into`.
    fn move_delayed_jobs_matching(
        &mut self,
        predicate: impl Fn(usize, &Queue<J>) -> bool,
        into: &mut Vec<J>,
    ) {
        let Self {
            delayed_jobs,
            queues,
            ..
        } = self;
        let matching: Vec<usize> = delayed_jobs
            .iter()
            .filter(|(_, delayed)| predicate(delayed.queue, &queues[delayed.queue]))
            .map(|(index, _)| index)
            .collect();
        let jobs = matching
            .into_iter()
            .map(|index| delayed_jobs.remove(index).job);
        into.extend(jobs);
    }

    /// Rejects the queued jobs of a batch. The deadline of the batch has passed, or passes before
    /// any of its jobs may start.
    pub(super) fn reject_queued_jobs_of_batch(&mut self, batch: usize) {
        let mut rejected = std::mem::take(&mut self.rejected_jobs);
        self.move_queued_jobs_of_batch(batch, &mut rejected);
        self.rejected_jobs = rejected;
        self.clear_run_queue(batch);
    }

    /// Rejects the ready jobs of a queue. Delayed jobs stay.
    pub(super) fn reject_ready_jobs_of_queue(&mut self, queue: usize) {
        let before = self.rejected_jobs.len();
        let rejected = &mut self.queues[queue];
        rejected.ready_jobs.move_all_into(&mut self.rejected_jobs);
        let batch = rejected.batch;
        self.decrement_queued_count(batch, self.rejected_jobs.len() - before);
        self.drop_ticket(queue);
    }

    /// Rejects the queued jobs of all batches whose deadline is not after `at`. Called if nothing
    /// may start before `at`.
    pub(super) fn reject_queued_jobs_of_batches_ending_by(&mut self, at: Time) {
        let ending: Vec<usize> = self
            .deadlines
            .range(..=(at, usize::MAX))
            .map(|&(_, batch)| batch)
            .filter(|&batch| self.batches[batch].queued_count > 0)
            .collect();
        for batch in ending {
            self.reject_queued_jobs_of_batch(batch);
        }
    }
}
