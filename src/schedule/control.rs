//! What is done to a batch from outside while it runs: it is held, its limits change, it is closed.

use super::{BatchId, GcraRate, LaneId, Schedulable, Schedule};

impl<J: Schedulable> Schedule<J> {
    /// Nothing of this batch starts until it is released. What is in flight goes on, and so does its deadline.
    pub(crate) fn hold_batch(&mut self, batch: BatchId) {
        if self.live(batch).is_some_and(|batch| !batch.gate.is_held()) {
            self.batches[batch.index].gate.hold();
        }
    }

    /// However often it was held.
    pub(crate) fn release_batch(&mut self, batch: BatchId) {
        if self.live(batch).is_some_and(|batch| batch.gate.is_held()) {
            self.batches[batch.index].gate.release();
            self.unpark_batch(batch.index);
        }
    }

    pub(crate) fn set_batch_concurrency(&mut self, batch: BatchId, concurrency: usize) {
        if self.live(batch).is_some() {
            self.batches[batch.index].gate.set_concurrency(concurrency);
            self.unpark_batch(batch.index);
        }
    }

    pub(crate) fn set_batch_rate(&mut self, batch: BatchId, rate: Option<GcraRate>) {
        if self.live(batch).is_some() {
            self.batches[batch.index].gate.set_rate(rate);
            self.unpark_batch(batch.index);
        }
    }

    /// Gives back what waits in a batch, which takes nothing more: what is in flight there does not come again.
    pub(crate) fn close_batch(&mut self, batch: BatchId) -> Vec<J> {
        if self.live(batch).is_some() {
            self.batches[batch.index].closed = true;
        }
        self.take_queued(batch)
    }

    /// The same for what of a batch is in one lane.
    pub(crate) fn close_lane(&mut self, batch: BatchId, lane: &str) -> Vec<J> {
        let mut jobs = Vec::new();
        if self.live(batch).is_none() {
            return jobs;
        }
        let of = &mut self.batches[batch.index];
        of.closed_lanes.insert(lane.into());
        let lane = self.lane_of.get(lane);
        if let Some(&queue) = lane.and_then(|lane| of.queues.get(lane)) {
            self.drain_queue(queue, &mut jobs);
        }
        jobs
    }

    /// Whether a batch, or what of it goes to this lane, was closed.
    pub(crate) fn is_closed(&self, batch: BatchId, lane: Option<&str>) -> bool {
        self.live(batch).is_some_and(|batch| {
            let lane_is_closed = |lane| batch.closed_lanes.contains(lane);
            batch.closed || (!batch.closed_lanes.is_empty() && lane.is_some_and(lane_is_closed))
        })
    }

    /// The id of the lane with this key, if it exists.
    pub(crate) fn lane_id(&self, lane: &str) -> Option<LaneId> {
        self.lane_of.get(lane).copied().map(LaneId)
    }
}
