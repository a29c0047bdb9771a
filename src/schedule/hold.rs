//! Lanes that are held until somebody lets them go: a pause without an instant.

use super::{BatchId, Schedulable, Schedule};

impl<J: Schedulable> Schedule<J> {
    /// Nothing starts in a lane until it is [released](Self::release_lane) as often as it was held. False if there is no
    /// such lane.
    pub(crate) fn hold_lane(&mut self, lane: &str) -> bool {
        let Some(&lane) = self.lane_of.get(lane) else {
            return false;
        };
        self.lanes[lane].gate.hold();
        true
    }

    /// A lane that is held is never forgotten, so this finds it.
    pub(crate) fn release_lane(&mut self, lane: &str) {
        if let Some(&lane) = self.lane_of.get(lane)
            && self.lanes[lane].gate.release()
        {
            self.call_up(lane);
        }
    }

    /// Takes the jobs of a lane that are like this, but for those in a back-off.
    pub(crate) fn extract_from_lane(
        &mut self,
        lane: &str,
        is_meant: impl Fn(&J) -> bool,
    ) -> Vec<J> {
        let mut taken = Vec::new();
        for (batch, queue) in self.queues_of(lane) {
            let before = taken.len();
            self.queues[queue].ready.take(&is_meant, &mut taken);
            self.count(batch, -((taken.len() - before) as isize));
        }
        taken
    }

    /// The batches that have a job like this in a lane.
    pub(crate) fn batches_with_job_in_lane(
        &self,
        lane: &str,
        is_meant: impl Fn(&J) -> bool,
    ) -> Vec<BatchId> {
        let has_one = |queue: usize| self.queues[queue].ready.iter().any(&is_meant);
        let named = |index: usize| BatchId {
            index,
            serial: self.batches[index].serial,
        };
        self.queues_of(lane)
            .into_iter()
            .filter(|&(_, queue)| has_one(queue))
            .map(|(batch, _)| named(batch))
            .collect()
    }

    /// One for each batch that has one there.
    fn queues_of(&self, lane: &str) -> Vec<(usize, usize)> {
        let Some(lane) = self.lane_of.get(lane) else {
            return Vec::new();
        };
        self.batches
            .iter()
            .filter_map(|(batch, of)| Some((batch, *of.queues.get(lane)?)))
            .collect()
    }
}
