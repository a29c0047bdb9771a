//! Where the refused wait, and what brings them back.

use std::cmp::Reverse;

use super::{Job, Next, Pass, Place, Schedule, Time, Timer};

impl<J: Job> Schedule<J> {
    /// What to answer when nothing may start.
    pub(super) fn wait(&self, at: Option<Time>) -> Next<J> {
        if self.queued == 0 {
            return Next::Idle;
        }
        let timer = self.timers.peek().map(|Reverse((at, ..))| *at);
        match at.into_iter().chain(timer).min() {
            Some(at) => Next::Wait(at),
            None => Next::Idle,
        }
    }

    /// Puts a queue that has something ready into its batch's ring.
    pub(super) fn arm(&mut self, queue: usize) {
        let batch = self.queues[queue].batch;
        let into = &mut self.batches[batch];
        if into.removed {
            self.queues[queue].place = Place::Out;
            return;
        }
        match self.queues[queue].place {
            Place::Ring | Place::ParkedOnLane => return,
            Place::Out | Place::Parked => self.queues[queue].place = Place::Ring,
        }
        into.ring.push_back(queue);
        if into.place == Place::Out {
            into.place = Place::Ring;
            self.ring.push_back(batch);
        }
    }

    pub(super) fn park_batch(&mut self, batch: usize, until: Time) {
        let parked = &mut self.batches[batch];
        if parked.deadline.is_some_and(|deadline| deadline <= until) {
            parked.place = Place::Out;
            let mut ring = std::mem::take(&mut parked.ring);
            for queue in ring.drain(..) {
                self.queues[queue].place = Place::Out;
            }
            self.refuse_batch(batch);
            return;
        }
        parked.place = Place::Parked;
        if parked.alarm.set(until) {
            self.set_timer(until, Timer::Batch(batch));
        }
    }

    pub(super) fn park_on_lane(&mut self, queue: usize, refusal: Pass) {
        if self.ends_first(queue, refusal) {
            return;
        }
        self.queues[queue].place = Place::ParkedOnLane;
        let lane = self.queues[queue].lane;
        self.lanes[lane].parked.push(queue);
        if let Pass::Until(at) = refusal
            && self.lanes[lane].alarm.set(at)
        {
            self.set_timer(at, Timer::Lane(lane));
        }
    }

    pub(super) fn park_queue(&mut self, queue: usize, refusal: Pass) {
        if self.ends_first(queue, refusal) {
            return;
        }
        self.queues[queue].place = Place::Parked;
        if let Pass::Until(at) = refusal
            && self.queues[queue].alarm.set(at)
        {
            self.set_timer(at, Timer::Queue(queue));
        }
    }

    /// A queue that may not start before its batch's deadline is answered now, not then.
    fn ends_first(&mut self, queue: usize, refusal: Pass) -> bool {
        let Pass::Until(at) = refusal else {
            return false;
        };
        let batch = self.queues[queue].batch;
        let ends_first = self.batches[batch]
            .deadline
            .is_some_and(|deadline| deadline <= at);
        if ends_first {
            self.queues[queue].place = Place::Out;
            self.refuse_queue(queue);
        }
        ends_first
    }

    pub(super) fn unpark_batch(&mut self, batch: usize) {
        let unparked = &mut self.batches[batch];
        if unparked.place == Place::Parked {
            unparked.place = Place::Out;
            if !unparked.ring.is_empty() {
                unparked.place = Place::Ring;
                self.ring.push_back(batch);
            }
        }
    }

    pub(super) fn unpark_lane(&mut self, lane: usize) {
        let mut parked = std::mem::take(&mut self.lanes[lane].parked);
        for queue in parked.drain(..) {
            self.queues[queue].place = Place::Out;
            self.arm(queue);
        }
        // Arming parks nothing, so the list is still empty: only its memory goes back.
        self.lanes[lane].parked = parked;
    }

    pub(super) fn set_timer(&mut self, at: Time, timer: Timer) {
        self.timers_set += 1;
        self.timers.push(Reverse((at, self.timers_set, timer)));
    }

    /// Timers outlive what they were set for, and numbers are used again, so each is checked against the state of now.
    pub(super) fn fire_timers(&mut self, now: Time) {
        while let Some(&Reverse((at, _, timer))) = self.timers.peek()
            && at <= now
        {
            self.timers.pop();
            match timer {
                Timer::BackOff(waiting) => self.end_back_off(waiting, now),
                Timer::Lane(lane) => {
                    if let Some(woken) = self.lanes.get_mut(lane) {
                        woken.alarm.fired(now);
                        self.unpark_lane(lane);
                    }
                }
                Timer::Queue(queue) => {
                    if let Some(woken) = self.queues.get_mut(queue) {
                        woken.alarm.fired(now);
                        if woken.place == Place::Parked {
                            self.arm(queue);
                        }
                    }
                }
                Timer::Batch(batch) => {
                    if let Some(woken) = self.batches.get_mut(batch) {
                        woken.alarm.fired(now);
                        self.unpark_batch(batch);
                        if self.has_ended(batch, now) {
                            self.refuse_batch(batch);
                        }
                    }
                }
            }
        }
    }

    fn end_back_off(&mut self, waiting: usize, now: Time) {
        if self
            .backing_off
            .get(waiting)
            .is_some_and(|waiting| waiting.at <= now)
        {
            let ended = self.backing_off.remove(waiting);
            let queue = &mut self.queues[ended.queue];
            queue.backing_off -= 1;
            queue.again.push_back(ended.job);
            self.arm(ended.queue);
        }
    }
}
