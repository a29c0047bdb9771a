//! The final round of a batch. Failed jobs wait until the batch has no other jobs, and then start
//! once more.

use super::{BatchId, Schedulable, Schedule};

impl<J: Schedulable> Schedule<J> {
    /// Sets whether the caller may push more jobs to a batch. Returns true if a final round may be
    /// due, in this batch or another one.
    pub(crate) fn set_expects_more_jobs(
        &mut self,
        batch: BatchId,
        expects_more_jobs: bool,
    ) -> bool {
        if self.find_live_batch(batch).is_none() {
            return false;
        }
        self.batches[batch.index].expects_more_jobs = expects_more_jobs;
        self.add_final_round_candidate_if_due(batch.index);
        !self.final_round_candidates.is_empty()
    }

    /// Makes a batch a candidate for its final round if the batch has no other jobs, queued or in
    /// flight.
    pub(super) fn add_final_round_candidate_if_due(&mut self, batch: usize) {
        if self.batches[batch].is_final_round_due() {
            self.final_round_candidates.push(batch);
        }
    }

    /// Begins the final rounds of the candidates: makes the jobs of the final round ready. Skips a
    /// candidate whose final round is no longer due.
    pub(super) fn begin_due_final_rounds(&mut self) {
        while let Some(batch) = self.final_round_candidates.pop() {
            let candidate = self.batches.get_mut(batch);
            if let Some(candidate) = candidate.filter(|batch| batch.is_final_round_due()) {
                for delayed in std::mem::take(&mut candidate.final_round_jobs) {
                    self.make_delayed_job_ready(delayed);
                }
            }
        }
    }
}
