//! Holds lanes: nothing starts in a held lane until it is released, for example because a bearer
//! token has arrived.

use super::parking::ParkingLotId;
use super::{BatchId, Schedulable, Schedule};

impl<J: Schedulable> Schedule<J> {
    /// Holds a lane: nothing starts in the lane until [`Self::release_lane`] has been called once
    /// for each hold. Returns false if no lane has this key.
    pub(crate) fn hold_lane(&mut self, lane: &str) -> bool {
        let Some(&lane) = self.lane_by_key.get(lane) else {
            return false;
        };
        self.lanes[lane].gate.add_hold();
        true
    }

    /// Ends one hold of [`Self::hold_lane`]. The lane exists, because a held lane is never evicted.
    pub(crate) fn release_lane(&mut self, lane: &str) {
        if let Some(&lane) = self.lane_by_key.get(lane)
            && self.lanes[lane].gate.remove_hold()
        {
            self.wake_next_queue_of_lot(ParkingLotId::Lane(lane));
        }
    }

    /// Holds a lane while the lookup of its host name waits. Nothing starts in the lane until
    /// [`Self::release_lane_for_name_lookup`] has been called once for each hold. Returns false if
    /// no lane has this key.
    pub(crate) fn hold_lane_for_name_lookup(&mut self, lane: &str) -> bool {
        let Some(&lane) = self.lane_by_key.get(lane) else {
            return false;
        };
        self.lanes[lane].gate.add_name_lookup_hold();
        true
    }

    /// Ends one hold of [`Self::hold_lane_for_name_lookup`].
    pub(crate) fn release_lane_for_name_lookup(&mut self, lane: &str) {
        if let Some(&lane) = self.lane_by_key.get(lane)
            && self.lanes[lane].gate.remove_name_lookup_hold()
        {
            self.wake_next_queue_of_lot(ParkingLotId::Lane(lane));
        }
    }

    /// Removes and returns the ready jobs of all batches in a lane that match `predicate`. Delayed
    /// jobs stay.
    pub(crate) fn take_matching_ready_jobs_of_lane(
        &mut self,
        lane: &str,
        predicate: impl Fn(&J) -> bool,
    ) -> Vec<J> {
        let mut extracted = Vec::new();
        for (batch, queue) in self.batch_and_queue_indices_of_lane(lane) {
            let before = extracted.len();
            self.queues[queue]
                .ready_jobs
                .move_matching_into(&predicate, &mut extracted);
            if extracted.len() > before {
                self.decrement_queued_count(batch, extracted.len() - before);
                self.drop_ticket(queue);
            }
        }
        extracted
    }

    /// Returns the batches that have a ready job in `lane` for which `predicate` is true.
    pub(crate) fn batches_with_matching_ready_job_in_lane(
        &self,
        lane: &str,
        predicate: impl Fn(&J) -> bool,
    ) -> Vec<BatchId> {
        let has_match = |queue: usize| self.queues[queue].ready_jobs.iter().any(&predicate);
        let batch_id = |index: usize| BatchId {
            index,
            batch_serial: self.batches[index].batch_serial,
        };
        let mut batches: Vec<BatchId> = self
            .batch_and_queue_indices_of_lane(lane)
            .into_iter()
            .filter(|&(_, queue)| has_match(queue))
            .map(|(batch, _)| batch_id(batch))
            .collect();
        // A batch with several matching queues in the lane is listed once.
        batches.dedup();
        batches
    }

    /// Returns the queues of a lane, as pairs of the slab indices of batch and queue.
    fn batch_and_queue_indices_of_lane(&self, lane: &str) -> Vec<(usize, usize)> {
        let Some(lane) = self.lane_by_key.get(lane) else {
            return Vec::new();
        };
        let mut queues = Vec::new();
        for (index, batch) in &self.batches {
            if let Some(&share) = batch.share_by_lane.get(lane) {
                let queues_of_share = self.shares[share].queues.indices();
                queues.extend(queues_of_share.map(|queue| (index, queue)));
            }
        }
        queues
    }
}
