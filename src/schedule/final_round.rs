//! A last round: what failed waits for the end of its batch, and then goes once more.

use super::{BatchId, DelayedJob, Schedulable, Schedule, Slot, Time};

impl<J: Schedulable> Schedule<J> {
    /// Takes back the job of a slot that is about to be settled: it may start again when nothing else of its batch is
    /// queued or in flight, and [no more](Self::set_expects_more) is to come.
    ///
    /// # Errors
    ///
    /// Gives the job back if its batch has ended.
    pub(crate) fn requeue_for_final_round(
        &mut self,
        slot: &Slot,
        job: J,
        now: Time,
    ) -> Result<(), J> {
        let lane = Some(&*self.lanes[slot.lane].key);
        if self.has_ended(slot.batch, now) || self.is_closed(slot.batch, lane) {
            return Err(job);
        }
        let queue = slot.queue;
        self.count(slot.batch.index, 1);
        self.queues[queue].backing_off += 1;
        let at = Time::MAX;
        let waiting = self.backing_off.insert(DelayedJob { queue, at, job });
        self.batches[slot.batch.index].last.push(waiting);
        Ok(())
    }

    /// Whether more jobs of a batch are to come, as far as is known. True if its last round may begin now.
    pub(crate) fn set_expects_more(&mut self, batch: BatchId, more: bool) -> bool {
        if self.live(batch).is_none() {
            return false;
        }
        self.batches[batch.index].more = more;
        self.heed_end(batch.index);
        !self.ending.is_empty()
    }

    /// Something of this batch has gone: it may have been the last but for the last round.
    pub(super) fn heed_end(&mut self, batch: usize) {
        if self.batches[batch].is_at_its_end() {
            self.ending.push(batch);
        }
    }

    /// True if one has begun.
    pub(super) fn begin_last_rounds(&mut self) -> bool {
        let mut has_begun = false;
        while let Some(batch) = self.ending.pop() {
            let ending = self.batches.get_mut(batch);
            if let Some(ending) = ending.filter(|ending| ending.is_at_its_end()) {
                for waiting in std::mem::take(&mut ending.last) {
                    self.come_back(waiting);
                }
                has_begun = true;
            }
        }
        has_begun
    }
}
