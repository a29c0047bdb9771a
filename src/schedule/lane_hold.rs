//! Held lanes: nothing starts there until they are released, for example until a token arrives.

use super::{BatchId, Schedulable, Schedule};

impl<J: Schedulable> Schedule<J> {
    /// Holds a lane: nothing starts in it until it is [released](Self::release_lane) as often as it
    /// was held. Returns false if there is no such lane.
    pub(crate) fn hold_lane(&mut self, lane: &str) -> bool {
        let Some(&lane) = self.lane_by_key.get(lane) else {
            return false;
        };
        self.lanes[lane].gate.hold();
        true
    }

    /// Undoes one [hold](Self::hold_lane). A held lane is never evicted, so its hold is not lost.
    pub(crate) fn release_lane(&mut self, lane: &str) {
        if let Some(&lane) = self.lane_by_key.get(lane)
            && self.lanes[lane].gate.release()
        {
            self.wake_next_in_lane(lane);
        }
    }

    /// Takes the ready jobs of a lane that match `predicate`, of all batches. Delayed jobs stay.
    pub(crate) fn extract_from_lane(
        &mut self,
        lane: &str,
        predicate: impl Fn(&J) -> bool,
    ) -> Vec<J> {
        let mut extracted = Vec::new();
        for (batch, queue) in self.queues_in_lane(lane) {
            let before = extracted.len();
            self.queues[queue]
                .ready
                .extract_if(&predicate, &mut extracted);
            self.decrement_queued_count(batch, extracted.len() - before);
        }
        extracted
    }

    /// The batches with a ready job in a lane that matches `predicate`.
    pub(crate) fn batches_with_job_in_lane(
        &self,
        lane: &str,
        predicate: impl Fn(&J) -> bool,
    ) -> Vec<BatchId> {
        let has_match = |queue: usize| self.queues[queue].ready.iter().any(&predicate);
        let batch_id = |index: usize| BatchId {
            index,
            serial: self.batches[index].serial,
        };
        self.queues_in_lane(lane)
            .into_iter()
            .filter(|&(_, queue)| has_match(queue))
            .map(|(batch, _)| batch_id(batch))
            .collect()
    }

    /// The queues of a lane, with their batches.
    fn queues_in_lane(&self, lane: &str) -> Vec<(usize, usize)> {
        let Some(lane) = self.lane_by_key.get(lane) else {
            return Vec::new();
        };
        self.batches
            .iter()
            .filter_map(|(index, batch)| Some((index, *batch.queues.get(lane)?)))
            .collect()
    }
}
