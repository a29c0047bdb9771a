//! Where the refused wait, and what brings them back.
//!
//! A gate of one queue or one batch brings back what is parked on it. A lane may have a thousand batches in its line, so
//! it *calls up* one: the first of the line goes to the front of its own batch and owes the lane a next call, whatever
//! becomes of it. Thus a slot costs one look, not a thousand, and goes to who has waited longest.

use super::{Admission, RunState, Schedulable, Schedule, Time, TimerTarget};

impl<J: Schedulable> Schedule<J> {
    /// Puts a queue that has something ready into its batch's ring.
    pub(super) fn arm(&mut self, queue: usize) {
        self.give_turn(queue, false);
        self.arm_batch(self.queues[queue].batch);
    }

    fn arm_batch(&mut self, batch: usize) {
        let armed = &mut self.batches[batch];
        if armed.place == RunState::Idle {
            armed.place = RunState::Runnable;
            self.ring.push_back(batch);
        }
    }

    pub(super) fn unpark_queue(&mut self, queue: usize) {
        if self.queues[queue].place == RunState::Parked {
            self.arm(queue);
        }
    }

    pub(super) fn unpark_batch(&mut self, batch: usize) {
        let unparked = &mut self.batches[batch];
        if unparked.place == RunState::Parked {
            unparked.place = RunState::Idle;
            if !unparked.turns.is_empty() {
                self.arm_batch(batch);
            }
        }
    }

    /// A lane may have opened: the first in its line whose batch will be looked at is called up.
    pub(super) fn call_up(&mut self, lane: usize) {
        while let Some(queue) = self.lanes[lane].parked.pop_front() {
            let batch = self.queues[queue].batch;
            if self.batches[batch].place == RunState::Parked {
                self.arm(queue);
                continue;
            }
            self.give_turn(queue, true);
            self.arm_batch(batch);
            break;
        }
    }

    /// A batch that will not be looked at passes the calls on that its queues got from their lanes.
    fn pass_on(&mut self, batch: usize) {
        while let Some(queue) = self.take_called(batch) {
            self.give_turn(queue, false);
            self.call_up(self.queues[queue].lane);
        }
    }

    pub(super) fn park_batch(&mut self, batch: usize, refusal: Admission) {
        let parked = &mut self.batches[batch];
        if let Admission::NotBefore(at) = refusal {
            if parked.deadline.is_some_and(|deadline| deadline <= at) {
                parked.place = RunState::Idle;
                return self.refuse_batch(batch);
            }
            if parked.alarm.set(at) {
                self.set_timer(at, TimerTarget::Batch(batch));
            }
        }
        self.batches[batch].place = RunState::Parked;
        self.pass_on(batch);
    }

    /// One that was called up in vain keeps its place at the head of the line.
    pub(super) fn park_on_lane(&mut self, queue: usize, refusal: Admission, was_called: bool) {
        if self.ends_first(queue, refusal) {
            return;
        }
        self.queues[queue].place = RunState::ParkedOnLane;
        let lane = self.queues[queue].lane;
        let line = &mut self.lanes[lane].parked;
        if was_called {
            line.push_front(queue);
        } else {
            line.push_back(queue);
        }
        if let Admission::NotBefore(at) | Admission::NoLaterThan(at) = refusal
            && self.lanes[lane].alarm.set(at)
        {
            self.set_timer(at, TimerTarget::Lane(lane));
        }
    }

    pub(super) fn park_queue(&mut self, queue: usize, refusal: Admission) {
        if self.ends_first(queue, refusal) {
            return;
        }
        self.queues[queue].place = RunState::Parked;
        if let Admission::NotBefore(at) = refusal
            && self.queues[queue].alarm.set(at)
        {
            self.set_timer(at, TimerTarget::Queue(queue));
        }
    }

    /// A queue that may not start before its batch's deadline is answered now, not then.
    fn ends_first(&mut self, queue: usize, refusal: Admission) -> bool {
        let Admission::NotBefore(at) = refusal else {
            return false;
        };
        let batch = self.queues[queue].batch;
        let ends_first = self.batches[batch]
            .deadline
            .is_some_and(|deadline| deadline <= at);
        if ends_first {
            self.refuse_queue(queue);
            self.put_out(queue);
        }
        ends_first
    }

    /// Takes an empty queue from where it was to be looked at.
    pub(super) fn put_out(&mut self, queue: usize) {
        self.queues[queue].place = RunState::Idle;
        self.rest_if_empty(queue);
    }

    /// Takes the queues of a batch, all of them empty, from where they were to be looked at.
    pub(super) fn clear_ring(&mut self, batch: usize) {
        self.pass_on(batch);
        while let Some((queue, _)) = self.take_turn(batch) {
            self.put_out(queue);
        }
    }

    /// What nothing can start of before `at`, and ends before that, is answered now.
    pub(super) fn refuse_ending_by(&mut self, at: Time) {
        let ends = self
            .deadlines
            .range(..=(at, usize::MAX))
            .map(|&(_, batch)| batch);
        let ending: Vec<usize> = ends
            .filter(|&batch| self.batches[batch].queued > 0)
            .collect();
        for batch in ending {
            self.refuse_batch(batch);
        }
    }
}
