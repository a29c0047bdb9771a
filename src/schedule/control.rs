//! Pauses a running batch, changes its limits, and closes it.

use super::{BatchId, GcraRate, LaneId, Schedulable, Schedule};

impl<J: Schedulable> Schedule<J> {
    /// Holds a batch: no job of the batch starts until [`Self::release_batch`] is called. Requests
    /// in flight continue. The deadline of the batch does not change.
    pub(crate) fn hold_batch(&mut self, batch: BatchId) {
        if self
            .find_live_batch(batch)
            .is_some_and(|batch| !batch.gate.has_holds())
        {
            self.batches[batch.index].gate.add_hold();
            self.end_reservations_of_batch(batch.index);
        }
    }

    /// Releases a held batch. One release ends all [holds](Self::hold_batch) of the batch.
    pub(crate) fn release_batch(&mut self, batch: BatchId) {
        if self
            .find_live_batch(batch)
            .is_some_and(|batch| batch.gate.has_holds())
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

    /// Changes the rate of a batch. Earlier starts count against the new rate, so the batch gets no
    /// new burst.
    pub(crate) fn set_batch_rate(&mut self, batch: BatchId, rate: Option<GcraRate>) {
        if self.find_live_batch(batch).is_some() {
            self.batches[batch.index].gate.set_rate(rate);
            self.unpark_batch(batch.index);
        }
    }

    /// Closes a batch and returns its queued jobs. A closed batch accepts no fresh and no requeued
    /// jobs.
    pub(crate) fn close_batch_and_take_queued_jobs(&mut self, batch: BatchId) -> Vec<J> {
        if self.find_live_batch(batch).is_some() {
            self.batches[batch.index].is_closed = true;
        }
        self.take_queued_jobs_of_batch(batch)
    }

    /// Closes one lane for one batch, and returns the queued jobs of the batch in the lane. The
    /// batch accepts no more jobs for the lane.
    pub(crate) fn close_lane_of_batch_and_take_queued_jobs(
        &mut self,
        batch: BatchId,
        lane: &str,
    ) -> Vec<J> {
        let mut jobs = Vec::new();
        if self.find_live_batch(batch).is_none() {
            return jobs;
        }
        let closed = &mut self.batches[batch.index];
        closed.closed_lane_keys.insert(lane.into());
        let lane = self.lane_by_key.get(lane);
        if let Some(&share) = lane.and_then(|lane| closed.share_by_lane.get(lane)) {
            let queues: Vec<usize> = self.shares[share].queues.indices().collect();
            for queue in queues {
                self.move_queued_jobs_of_queue(queue, &mut jobs);
            }
        }
        jobs
    }

    /// Whether the batch is closed (drained or cancelled), or `lane` is closed for the batch. In
    /// both cases, the batch accepts no more jobs for the lane.
    pub(crate) fn is_batch_or_lane_closed(&self, batch: BatchId, lane: Option<&str>) -> bool {
        self.find_live_batch(batch).is_some_and(|batch| {
            let is_lane_closed = |lane| batch.closed_lane_keys.contains(lane);
            batch.is_closed
                || (!batch.closed_lane_keys.is_empty() && lane.is_some_and(is_lane_closed))
        })
    }

    /// Returns the id of the lane with the key `lane`, if the lane exists.
    pub(crate) fn find_lane_id(&self, lane: &str) -> Option<LaneId> {
        self.lane_by_key.get(lane).copied().map(LaneId)
    }
}
