//! Parks refused queues and batches, and wakes them.
//!
//! A parked queue or batch is not checked for a start until the gate that refused it may have
//! opened. A queue or batch refused by its own gate becomes runnable as soon as that gate may have
//! opened. A lane may have thousands of parked queues, one per batch, so a lane whose gate may have
//! opened wakes only one queue: the one that was parked first. The *wake-up* moves that queue to
//! the front of its batch's run queue. After the queue has been checked, the lane wakes the next
//! queue. A free slot thus causes one check, not thousands, and goes to the queue that has waited
//! longest.

use super::admission::Admission;
use super::run_state::RunState;
use super::timer::TimerTarget;
use super::{Schedulable, Schedule};

impl<J: Schedulable> Schedule<J> {
    /// Adds a queue with a ready job to its batch's run queue.
    pub(super) fn make_queue_runnable(&mut self, queue: usize) {
        self.enqueue(queue, false);
        self.make_batch_runnable(self.queues[queue].batch);
    }

    /// Makes a batch runnable, unless it is parked.
    fn make_batch_runnable(&mut self, batch: usize) {
        let runnable = &mut self.batches[batch];
        if runnable.run_state == RunState::Idle {
            runnable.run_state = RunState::Runnable;
            self.runnable_batches.push_back(batch);
        }
    }

    /// Makes a queue runnable if it is parked on its own gate, which may have opened.
    pub(super) fn unpark_queue(&mut self, queue: usize) {
        if self.queues[queue].run_state == RunState::Parked {
            self.make_queue_runnable(queue);
        }
    }

    /// Makes a batch runnable if it is parked on its gate, which may have opened.
    pub(super) fn unpark_batch(&mut self, batch: usize) {
        let unparked = &mut self.batches[batch];
        if unparked.run_state == RunState::Parked {
            unparked.run_state = RunState::Idle;
            if !unparked.run_queue.is_empty() {
                self.make_batch_runnable(batch);
            }
        }
    }

    /// Wakes the queue that was parked on a lane first, and whose batch is not parked. Queues of
    /// parked batches return to the run queues of their batches without a wake-up.
    pub(super) fn wake_next_in_lane(&mut self, lane: usize) {
        while let Some(queue) = self.lanes[lane].parked_queues.pop_front() {
            let batch = self.queues[queue].batch;
            if self.batches[batch].run_state == RunState::Parked {
                self.make_queue_runnable(queue);
                continue;
            }
            self.enqueue(queue, true);
            self.make_batch_runnable(batch);
            break;
        }
    }

    /// Passes the wake-ups of a batch's queues on to other queues of their lanes. Called if the
    /// batch is not going to be checked.
    fn forward_wakeups(&mut self, batch: usize) {
        while let Some(queue) = self.pop_queue_woken_by_lane(batch) {
            self.enqueue(queue, false);
            self.wake_next_in_lane(self.queues[queue].lane);
        }
    }

    pub(super) fn park_batch(&mut self, batch: usize, refusal: Admission) {
        let parked = &mut self.batches[batch];
        if let Admission::NotBefore(at) = refusal {
            if parked.deadline.is_some_and(|deadline| deadline <= at) {
                parked.run_state = RunState::Idle;
                return self.reject_batch(batch);
            }
            if parked.timer.set_if_earlier(at) {
                self.set_timer(at, TimerTarget::Batch(batch));
            }
        }
        self.batches[batch].run_state = RunState::Parked;
        self.forward_wakeups(batch);
    }

    /// Parks a queue on its lane, whose gate or circuit breaker has refused a start. A queue that
    /// the lane has woken keeps its place at the front.
    pub(super) fn park_on_lane(&mut self, queue: usize, refusal: Admission, woken_by_lane: bool) {
        if self.reject_if_deadline_passes_first(queue, refusal) {
            return;
        }
        self.queues[queue].run_state = RunState::ParkedOnLane;
        let lane = self.queues[queue].lane;
        let parked_queues = &mut self.lanes[lane].parked_queues;
        if woken_by_lane {
            parked_queues.push_front(queue);
        } else {
            parked_queues.push_back(queue);
        }
        if let Admission::NotBefore(at) | Admission::NoLaterThan(at) = refusal
            && self.lanes[lane].timer.set_if_earlier(at)
        {
            self.set_timer(at, TimerTarget::Lane(lane));
        }
    }

    pub(super) fn park_queue(&mut self, queue: usize, refusal: Admission) {
        if self.reject_if_deadline_passes_first(queue, refusal) {
            return;
        }
        self.queues[queue].run_state = RunState::Parked;
        if let Admission::NotBefore(at) = refusal
            && self.queues[queue].timer.set_if_earlier(at)
        {
            self.set_timer(at, TimerTarget::Queue(queue));
        }
    }

    /// Rejects the ready jobs of a queue at once if `refusal` lasts until the deadline of their
    /// batch. Returns true if the jobs were rejected.
    fn reject_if_deadline_passes_first(&mut self, queue: usize, refusal: Admission) -> bool {
        let Admission::NotBefore(at) = refusal else {
            return false;
        };
        let batch = self.queues[queue].batch;
        let deadline_passes_first = self.batches[batch]
            .deadline
            .is_some_and(|deadline| deadline <= at);
        if deadline_passes_first {
            self.reject_queue(queue);
            self.set_queue_idle(queue);
        }
        deadline_passes_first
    }

    /// Records that a queue has no ready job, and makes it an eviction candidate if it is not in
    /// use.
    pub(super) fn set_queue_idle(&mut self, queue: usize) {
        self.queues[queue].run_state = RunState::Idle;
        self.note_eviction_candidate_if_idle(queue);
    }

    /// Empties the run queue of a batch whose queues have no ready jobs.
    pub(super) fn clear_run_queue(&mut self, batch: usize) {
        self.forward_wakeups(batch);
        while let Some((queue, _)) = self.pop_runnable_queue(batch) {
            self.set_queue_idle(queue);
        }
    }
}
