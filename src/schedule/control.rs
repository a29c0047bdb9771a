//! Control of a running batch: pausing it, changing its limits, closing it.

use super::{BatchId, GcraRate, LaneId, Schedulable, Schedule};

impl<J: Schedulable> Schedule<J> {
    /// Holds a batch: none of its jobs starts until it is released. Requests in flight continue,
    /// and its deadline stays the same.
    pub(crate) fn hold_batch(&mut self, batch: BatchId) {
        if self
            .find_live_batch(batch)
            .is_some_and(|batch| !batch.gate.is_held())
        {
            self.batches[batch.index].gate.hold();
        }
    }

    /// Releases a held batch. One release undoes any number of holds.
    pub(crate) fn release_batch(&mut self, batch: BatchId) {
        if self
            .find_live_batch(batch)
            .is_some_and(|batch| batch.gate.is_held())
        {
            self.batches[batch.index].gate.release();
            self.unpark_batch(batch.index);
        }
    }

    /// Changes how many requests of a batch may be in flight. Those beyond a lower limit continue.
    pub(crate) fn set_batch_concurrency(&mut self, batch: BatchId, concurrency: usize) {
        if self.find_live_batch(batch).is_some() {
            self.batches[batch.index].gate.set_concurrency(concurrency);
            self.unpark_batch(batch.index);
        }
    }

    /// Changes the rate of a batch. Its starts so far count at the new rate, too.
    pub(crate) fn set_batch_rate(&mut self, batch: BatchId, rate: Option<GcraRate>) {
        if self.find_live_batch(batch).is_some() {
            self.batches[batch.index].gate.set_rate(rate);
            self.unpark_batch(batch.index);
        }
    }

    /// Closes a batch and returns its queued jobs. It accepts no jobs from now on, neither fresh
    /// nor requeued ones.
    pub(crate) fn close_batch(&mut self, batch: BatchId) -> Vec<J> {
        if self.find_live_batch(batch).is_some() {
            self.batches[batch.index].is_closed = true;
        }
        self.take_queued(batch)
    }

    /// Closes one lane of a batch and returns the batch's queued jobs there. The batch accepts no
    /// jobs for this lane from now on.
    pub(crate) fn close_lane(&mut self, batch: BatchId, lane: &str) -> Vec<J> {
        let mut jobs = Vec::new();
        if self.find_live_batch(batch).is_none() {
            return jobs;
        }
        let closed = &mut self.batches[batch.index];
        closed.closed_lanes.insert(lane.into());
        let lane = self.lane_by_key.get(lane);
        if let Some(&queue) = lane.and_then(|lane| closed.queues.get(lane)) {
            self.drain_queue(queue, &mut jobs);
        }
        jobs
    }

    /// Whether a batch is closed, or this lane is closed for it.
    pub(crate) fn is_closed(&self, batch: BatchId, lane: Option<&str>) -> bool {
        self.find_live_batch(batch).is_some_and(|batch| {
            let is_lane_closed = |lane| batch.closed_lanes.contains(lane);
            batch.is_closed || (!batch.closed_lanes.is_empty() && lane.is_some_and(is_lane_closed))
        })
    }

    /// The id of the lane with this key, if it exists.
    pub(crate) fn lane_id(&self, lane: &str) -> Option<LaneId> {
        self.lane_by_key.get(lane).copied().map(LaneId)
    }
}
