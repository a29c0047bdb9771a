//! Holds lanes: nothing starts in a held lane until it is released, for example because a bearer
//! token has arrived.

use super::parking::ParkingLotId;
use super::{BatchId, Schedulable, Schedule};

impl<J: Schedulable> Schedule<J> {
    /// Holds a lane: nothing starts in the lane until [`Self::release_lane`] has been called once
    /// per hold. Returns false if no lane has this key.
    pub(crate) fn hold_lane(&mut self, lane: &str) -> bool {
        let Some(&lane) = self.lane_by_key.get(lane) else {
            return false;
        };
        self.lanes[lane].gate.add_hold();
        true
    }

    /// Undoes one [`Self::hold_lane`]. The lane still exists, because a held lane is never evicted.
    pub(crate) fn release_lane(&mut self, lane: &str) {
        if let Some(&lane) = self.lane_by_key.get(lane)
            && self.lanes[lane].gate.remove_hold()
        {
            self.wake_next_queue_of_lot(ParkingLotId::Lane(lane));
        }
    }

    /// Holds a lane until it is [released](Self::release_lane_for_lookup) as often as it was held.
    /// Returns false if there is no such lane.
    pub(crate) fn hold_lane_for_lookup(&mut self, lane: &str) -> bool {
        let Some(&lane) = self.lane_by_key.get(lane) else {
            return false;
        };
        self.lanes[lane].gate.add_lookup_hold();
        true
    }

    /// Undoes one [hold](Self::hold_lane_for_lookup).
    pub(crate) fn release_lane_for_lookup(&mut self, lane: &str) {
        if let Some(&lane) = self.lane_by_key.get(lane)
            && self.lanes[lane].gate.remove_lookup_hold()
        {
            self.wake_next_queue_of_lot(ParkingLotId::Lane(lane));
        }
    }

    /// Removes and returns the ready jobs of a lane that match `predicate`, over all batches.
    /// Delayed jobs stay.
    pub(crate) fn take_ready_jobs_from_lane(
        &mut self,
        lane: &str,
        predicate: impl Fn(&J) -> bool,
    ) -> Vec<J> {
        let mut extracted = Vec::new();
        for (batch, queue) in self.queues_in_lane(lane) {
            let before = extracted.len();
            self.queues[queue]
                .ready_jobs
                .extract_if(&predicate, &mut extracted);
            self.decrement_queued_count(batch, extracted.len() - before);
        }
        extracted
    }

    /// The batches that have a ready job in `lane` for which `predicate` is true.
    pub(crate) fn batches_with_job_in_lane(
        &self,
        lane: &str,
        predicate: impl Fn(&J) -> bool,
    ) -> Vec<BatchId> {
        let has_match = |queue: usize| self.queues[queue].ready_jobs.iter().any(&predicate);
        let batch_id = |index: usize| BatchId {
            index,
            serial: self.batches[index].serial,
        };
        let mut batches: Vec<BatchId> = self
            .queues_in_lane(lane)
            .into_iter()
            .filter(|&(_, queue)| has_match(queue))
            .map(|(batch, _)| batch_id(batch))
            .collect();
        // A batch has a queue for each route.
        batches.dedup();
        batches
    }

    /// The slab indices of the queues of a lane, as pairs of batch and queue.
    fn queues_in_lane(&self, lane: &str) -> Vec<(usize, usize)> {
        let Some(lane) = self.lane_by_key.get(lane) else {
            return Vec::new();
        };
        let mut queues = Vec::new();
        for (index, batch) in &self.batches {
            if let Some(&share) = batch.share_by_lane.get(lane) {
                let queues_of_share = self.shares[share].queues.values();
                queues.extend(queues_of_share.map(|queue| (index, queue)));
            }
        }
        queues
    }
}
