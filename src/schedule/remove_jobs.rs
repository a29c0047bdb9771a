//! Removes queued jobs that will not start: the batch has ended, its deadline comes first, or the
//! job was abandoned (nothing waits for its result).

use super::state::Queue;
use super::{BatchId, Schedulable, Schedule, Time};

/// A batch with fewer abandoned jobs than this is not searched for abandoned jobs.
const MIN_ABANDONED_TO_REMOVE: usize = 64;

impl<J: Schedulable> Schedule<J> {
    /// Removes and returns the queued jobs of a batch. The batch still accepts new jobs.
    pub(crate) fn take_queued_jobs(&mut self, batch: BatchId) -> Vec<J> {
        let mut jobs = Vec::new();
        if self.find_live_batch(batch).is_some() {
            self.move_queued_jobs_of_batch(batch.index, &mut jobs);
            self.clear_run_queue(batch.index);
        }
        jobs
    }

    /// Records that a queued job of this batch was abandoned. Returns the abandoned jobs that the
    /// schedule has removed.
    ///
    /// Abandoned jobs are removed once they are more than half of the batch's queued jobs. They
    /// thus occupy at most as much memory as the other jobs, at a constant cost per job. Delayed
    /// jobs are not removed.
    pub(crate) fn note_abandoned_job(&mut self, batch: BatchId) -> Vec<J> {
        let mut abandoned = Vec::new();
        if self.find_live_batch(batch).is_none() {
            return abandoned;
        }
        let noted = &mut self.batches[batch.index];
        noted.abandoned_count += 1;
        if noted.abandoned_count < MIN_ABANDONED_TO_REMOVE
            || noted.abandoned_count <= noted.queued_count / 2
        {
            return abandoned;
        }
        noted.abandoned_count = 0;
        for &share in noted.share_by_lane.values() {
            for queue in self.shares[share].queues.values() {
                let ready = &mut self.queues[queue].ready_jobs;
                ready.extract_if(J::is_abandoned, &mut abandoned);
            }
        }
        self.decrement_queued_count(batch.index, abandoned.len());
        abandoned
    }

    /// Moves all queued jobs of a batch to `into`, ready or delayed.
    pub(super) fn move_queued_jobs_of_batch(&mut self, batch: usize, into: &mut Vec<J>) {
        let before = into.len();
        let drained = &mut self.batches[batch];
        drained.final_round_jobs.clear();
        let mut delayed_count = 0;
        for &share in drained.share_by_lane.values() {
            for queue in self.shares[share].queues.values() {
                let queue = &mut self.queues[queue];
                queue.ready_jobs.drain(into);
                delayed_count += std::mem::take(&mut queue.delayed_count);
            }
        }
        if delayed_count > 0 {
            self.move_delayed_jobs_matching(|_, queue| queue.batch == batch, into);
        }
        self.decrement_queued_count(batch, into.len() - before);
    }

    /// Moves all jobs of a queue to `into`, ready or delayed.
    pub(super) fn move_queued_jobs_of_queue(&mut self, queue: usize, into: &mut Vec<J>) {
        let before = into.len();
        let drained = &mut self.queues[queue];
        let batch = drained.batch;
        drained.ready_jobs.drain(into);
        if std::mem::take(&mut drained.delayed_count) > 0 {
            self.move_delayed_jobs_matching(|index, _| index == queue, into);
            let delayed_jobs = &self.delayed_jobs;
            let final_round_jobs = &mut self.batches[batch].final_round_jobs;
            final_round_jobs.retain(|&delayed| delayed_jobs.contains(delayed));
        }
        self.decrement_queued_count(batch, into.len() - before);
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

    /// Rejects the queued jobs of a batch whose deadline has passed, or will pass before any of the
    /// jobs may start.
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
        rejected.ready_jobs.drain(&mut self.rejected_jobs);
        let batch = rejected.batch;
        self.decrement_queued_count(batch, self.rejected_jobs.len() - before);
    }

    /// Rejects the queued jobs of all batches whose deadline is not after `at`, because nothing may
    /// start before `at`.
    pub(super) fn reject_batches_ending_by(&mut self, at: Time) {
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
