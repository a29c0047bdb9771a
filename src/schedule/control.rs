//! Pauses a running batch, changes its limits, and closes it.

use super::{BatchId, GcraRate, LaneId, Schedulable, Schedule};

impl<J: Schedulable> Schedule<J> {
    /// Holds a batch: none of its jobs starts until [`Self::release_batch`] is called. Requests in
    /// flight continue, and the deadline of the batch does not move.
    pub(crate) fn hold_batch(&mut self, batch: BatchId) {
        if self
            .find_live_batch(batch)
            .is_some_and(|batch| !batch.gate.is_held())
        {
            self.batches[batch.index].gate.add_hold();
        }
    }

    /// Releases a held batch. One release undoes any number of [holds](Self::hold_batch).
    pub(crate) fn release_batch(&mut self, batch: BatchId) {
        if self
            .find_live_batch(batch)
            .is_some_and(|batch| batch.gate.is_held())
        {
            self.batches[batch.index].gate.remove_hold();
            self.unpark_batch(batch.index);
        }
    }

    /// Changes how many requests of a batch may be in flight. If the limit falls, requests already
    /// in flight continue.
    pub(crate) fn set_batch_concurrency(&mut self, batch: BatchId, concurrency: usize) {
        if self.find_live_batch(batch).is_some() {
            self.batches[batch.index].gate.set_concurrency(concurrency);
            self.unpark_batch(batch.index);
        }
    }

    /// Changes the rate of a batch. The starts so far count at the new rate, so the batch gets no
    /// fresh burst.
    pub(crate) fn set_batch_rate(&mut self, batch: BatchId, rate: Option<GcraRate>) {
        if self.find_live_batch(batch).is_some() {
            self.batches[batch.index].gate.set_rate(rate);
            self.unpark_batch(batch.index);
        }
    }

    /// Closes a batch and returns its queued jobs. The batch accepts no more jobs, neither fresh
    /// nor requeued ones.
    pub(crate) fn close_batch_and_take_queued_jobs(&mut self, batch: BatchId) -> Vec<J> {
        if self.find_live_batch(batch).is_some() {
            self.batches[batch.index].is_closed = true;
        }
        self.take_queued_jobs(batch)
    }

    /// Closes one lane for a batch and returns the jobs that the batch had queued for that lane.
    /// The batch accepts no more jobs for the lane.
    pub(crate) fn close_lane_and_take_queued_jobs(&mut self, batch: BatchId, lane: &str) -> Vec<J> {
        let mut jobs = Vec::new();
        if self.find_live_batch(batch).is_none() {
            return jobs;
        }
        let closed = &mut self.batches[batch.index];
        closed.closed_lane_keys.insert(lane.into());
        let lane = self.lane_by_key.get(lane);
        if let Some(&share) = lane.and_then(|lane| closed.share_by_lane.get(lane)) {
            let queues: Vec<usize> = self.shares[share].queues.values().collect();
            for queue in queues {
                self.move_queued_jobs_of_queue(queue, &mut jobs);
            }
        }
        jobs
    }

    /// Whether a batch accepts no more jobs for `lane`: the whole batch was closed (drained or
    /// cancelled), or the lane was closed for the batch.
    pub(crate) fn is_batch_or_lane_closed(&self, batch: BatchId, lane: Option<&str>) -> bool {
        self.find_live_batch(batch).is_some_and(|batch| {
            let is_lane_closed = |lane| batch.closed_lane_keys.contains(lane);
            batch.is_closed
                || (!batch.closed_lane_keys.is_empty() && lane.is_some_and(is_lane_closed))
        })
    }

    /// The id of the lane with this key, if it exists.
    pub(crate) fn lane_id(&self, lane: &str) -> Option<LaneId> {
        self.lane_by_key.get(lane).copied().map(LaneId)
    }
}
