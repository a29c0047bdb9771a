//! What ends, and what is no longer worth its memory.
//!
//! A lane or queue with nothing in it keeps its place for a while, since the next job is often for the same host. The
//! oldest at rest are forgotten as new lanes come, so that memory follows the hosts in use, not the hosts ever seen.

use super::{BatchId, Queue, RunState, Schedulable, Schedule, Time};

/// How many at rest are looked at for each new queue. A queue leaves at most itself and its lane in the list, so the
/// list stays short even while every other one looked at turns out to be in use again.
const LOOKS: usize = 4;

/// What may be forgotten once it has no state worth keeping.
pub(super) enum EvictionCandidate {
    Queue(usize),
    Lane(usize),
}

impl<J: Schedulable> Schedule<J> {
    /// Takes every job of a batch that is not in flight.
    pub(super) fn drain(&mut self, batch: usize, into: &mut Vec<J>) {
        let before = into.len();
        self.batches[batch].last.clear();
        let mut backing_off = 0;
        for &queue in self.batches[batch].queues.values() {
            let queue = &mut self.queues[queue];
            queue.ready.drain(into);
            backing_off += std::mem::take(&mut queue.backing_off);
        }
        if backing_off > 0 {
            self.take_backing_off(|_, queue| queue.batch == batch, into);
        }
        self.count(batch, -((into.len() - before) as isize));
    }

    /// Takes every job of a queue that is not in flight.
    pub(super) fn drain_queue(&mut self, queue: usize, into: &mut Vec<J>) {
        let before = into.len();
        let from = &mut self.queues[queue];
        let batch = from.batch;
        from.ready.drain(into);
        if std::mem::take(&mut from.backing_off) > 0 {
            self.take_backing_off(|other, _| other == queue, into);
            let left = &self.backing_off;
            let last = &mut self.batches[batch].last;
            last.retain(|&waiting| left.contains(waiting));
        }
        self.count(batch, -((into.len() - before) as isize));
    }

    fn take_backing_off(&mut self, is_of: impl Fn(usize, &Queue<J>) -> bool, into: &mut Vec<J>) {
        let Self {
            backing_off,
            queues,
            ..
        } = self;
        let waiting: Vec<usize> = backing_off
            .iter()
            .filter(|(_, job)| is_of(job.queue, &queues[job.queue]))
            .map(|(waiting, _)| waiting)
            .collect();
        let jobs = waiting
            .into_iter()
            .map(|waiting| backing_off.remove(waiting).job);
        into.extend(jobs);
    }

    /// One more job of this batch has lost its reader while it waits. Once they are the better part of what waits, they
    /// are taken out; so they cost no more memory than the others, and a constant time each.
    pub(crate) fn note_abandoned(&mut self, batch: BatchId) -> Vec<J> {
        const FEW: usize = 64;
        let mut abandoned = Vec::new();
        if self.live(batch).is_none() {
            return abandoned;
        }
        let of = &mut self.batches[batch.index];
        of.abandoned += 1;
        if of.abandoned < FEW || of.abandoned <= of.queued / 2 {
            return abandoned;
        }
        of.abandoned = 0;
        for &queue in self.batches[batch.index].queues.values() {
            let ready = &mut self.queues[queue].ready;
            ready.take(J::is_abandoned, &mut abandoned);
        }
        self.count(batch.index, -(abandoned.len() as isize));
        abandoned
    }

    /// Refuses what waits in a batch whose deadline has come, or comes before anything could start.
    pub(super) fn refuse_batch(&mut self, batch: usize) {
        let mut refused = std::mem::take(&mut self.refused);
        self.drain(batch, &mut refused);
        self.refused = refused;
        self.clear_ring(batch);
    }

    pub(super) fn refuse_queue(&mut self, queue: usize) {
        let before = self.refused.len();
        let from = &mut self.queues[queue];
        from.ready.drain(&mut self.refused);
        let batch = from.batch;
        self.count(batch, -((self.refused.len() - before) as isize));
    }

    /// Marks a drained batch as removed and forgets what of it is not in flight.
    pub(super) fn end_batch(&mut self, batch: usize) {
        let ended = &mut self.batches[batch];
        ended.removed = true;
        if let Some(deadline) = ended.deadline {
            self.deadlines.remove(&(deadline, batch));
        }
        if std::mem::replace(&mut ended.place, RunState::Idle) == RunState::Runnable {
            self.ring.retain(|&other| other != batch);
        }
        let queues: Vec<usize> = ended.queues.values().copied().collect();
        for &queue in &queues {
            self.leave_line(queue);
        }
        self.clear_ring(batch);
        for queue in queues {
            self.queues[queue].place = RunState::Idle;
            if self.queues[queue].gate.in_flight() == 0 {
                self.forget_queue(queue);
            }
        }
        if self.batches[batch].queues.is_empty() {
            self.batches.remove(batch);
        }
    }

    fn leave_line(&mut self, queue: usize) {
        if self.queues[queue].place == RunState::ParkedOnLane {
            self.lanes[self.queues[queue].lane]
                .parked
                .retain(|&parked| parked != queue);
        }
    }

    /// After a settle in a removed batch: its last slot takes the batch with it.
    pub(super) fn forget_ended(&mut self, batch: usize, queue: usize) {
        if self.queues[queue].gate.in_flight() == 0 {
            self.forget_queue(queue);
        }
        if self.batches[batch].queues.is_empty() {
            self.batches.remove(batch);
        }
    }

    pub(super) fn rest_if_empty(&mut self, queue: usize) {
        let resting = &mut self.queues[queue];
        if !resting.resting && !resting.is_in_use() {
            resting.resting = true;
            self.resting.push_back(EvictionCandidate::Queue(queue));
        }
    }

    pub(super) fn forget_some(&mut self, now: Time) {
        for _ in 0..LOOKS {
            match self.resting.pop_front() {
                Some(EvictionCandidate::Queue(queue)) => self.forget_queue_at_rest(queue, now),
                Some(EvictionCandidate::Lane(lane)) => self.forget_lane_at_rest(lane, now),
                None => break,
            }
        }
    }

    fn forget_queue_at_rest(&mut self, queue: usize, now: Time) {
        let Some(resting) = self.queues.get_mut(queue).filter(|queue| queue.resting) else {
            return;
        };
        if resting.is_in_use() || resting.place != RunState::Idle {
            resting.resting = false;
        } else if resting.gate.is_at_rest(now) && resting.spots == 0 {
            self.forget_queue(queue);
        } else {
            self.resting.push_back(EvictionCandidate::Queue(queue));
        }
    }

    fn forget_lane_at_rest(&mut self, lane: usize, now: Time) {
        let Some(resting) = self.lanes.get_mut(lane).filter(|lane| lane.resting) else {
            return;
        };
        if resting.queues > 0 {
            resting.resting = false;
        } else if resting.is_at_rest(now) {
            let forgotten = self.lanes.remove(lane);
            self.lane_of.remove(&forgotten.key);
        } else {
            self.resting.push_back(EvictionCandidate::Lane(lane));
        }
    }

    fn forget_queue(&mut self, queue: usize) {
        let forgotten = self.queues.remove(queue);
        self.batches[forgotten.batch].queues.remove(&forgotten.lane);
        let lane = &mut self.lanes[forgotten.lane];
        lane.queues -= 1;
        if lane.queues == 0 && !lane.resting {
            lane.resting = true;
            self.resting
                .push_back(EvictionCandidate::Lane(forgotten.lane));
        }
    }
}
