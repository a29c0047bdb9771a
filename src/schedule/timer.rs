//! Instants to come back at: back-offs, gates that open by themselves, and deadlines.

use std::cmp::Reverse;

use super::{Schedulable, Schedule, Time};

/// Below this many timers it is not worth looking for dead ones.
const FEW: usize = 64;

#[derive(Copy, Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum TimerTarget {
    Backoff(usize),
    Lane(usize),
    Queue(usize),
    Batch(usize),
}

/// The earliest timer already set for one thing, so that it is not set again.
#[derive(Debug, Default)]
pub(super) struct EarliestTimer(Option<Time>);

impl EarliestTimer {
    /// True if a timer must be set for `at`.
    pub(super) fn set(&mut self, at: Time) -> bool {
        let earlier = self.0.is_none_or(|set| at < set);
        if earlier {
            self.0 = Some(at);
        }
        earlier
    }

    fn is_for(&self, at: Time) -> bool {
        self.0 == Some(at)
    }

    fn fired(&mut self, now: Time) {
        self.0 = self.0.filter(|&at| at > now);
    }
}

impl<J: Schedulable> Schedule<J> {
    pub(super) fn set_timer(&mut self, at: Time, timer: TimerTarget) {
        if self.timers.len() >= self.many_timers {
            self.sweep_timers();
        }
        self.timers_set += 1;
        self.timers.push(Reverse((at, self.timers_set, timer)));
    }

    /// Timers outlive what they were set for. They may be set for hours, so the dead are swept out whenever there are
    /// twice as many as were found alive.
    fn sweep_timers(&mut self) {
        let Self {
            backing_off,
            lanes,
            queues,
            batches,
            timers,
            ..
        } = self;
        timers.retain(|&Reverse((at, _, timer))| match timer {
            TimerTarget::Backoff(waiting) => backing_off
                .get(waiting)
                .is_some_and(|waiting| waiting.at == at),
            TimerTarget::Lane(lane) => lanes.get(lane).is_some_and(|lane| lane.alarm.is_for(at)),
            TimerTarget::Queue(queue) => queues
                .get(queue)
                .is_some_and(|queue| queue.alarm.is_for(at)),
            TimerTarget::Batch(batch) => batches
                .get(batch)
                .is_some_and(|batch| batch.alarm.is_for(at)),
        });
        self.many_timers = FEW.max(2 * self.timers.len());
    }

    /// The next instant at which something may change by itself.
    pub(super) fn next_instant(&self) -> Option<Time> {
        let timer = self.timers.peek().map(|Reverse((at, ..))| *at);
        let deadline = self.deadlines.first().map(|(at, _)| *at);
        timer.into_iter().chain(deadline).min()
    }

    /// Numbers are used again, so what a timer finds is checked against the state of now.
    pub(super) fn fire_timers(&mut self, now: Time) {
        while let Some(&Reverse((at, _, timer))) = self.timers.peek()
            && at <= now
        {
            self.timers.pop();
            match timer {
                TimerTarget::Backoff(waiting) => self.end_back_off(waiting, now),
                TimerTarget::Lane(lane) => {
                    if let Some(woken) = self.lanes.get_mut(lane) {
                        woken.alarm.fired(now);
                        self.call_up(lane);
                    }
                }
                TimerTarget::Queue(queue) => {
                    if let Some(woken) = self.queues.get_mut(queue) {
                        woken.alarm.fired(now);
                        self.unpark_queue(queue);
                    }
                }
                TimerTarget::Batch(batch) => {
                    if let Some(woken) = self.batches.get_mut(batch) {
                        woken.alarm.fired(now);
                        self.unpark_batch(batch);
                    }
                }
            }
        }
        while let Some(&(deadline, batch)) = self.deadlines.first()
            && deadline <= now
        {
            self.deadlines.pop_first();
            self.refuse_batch(batch);
        }
    }

    fn end_back_off(&mut self, waiting: usize, now: Time) {
        if self
            .backing_off
            .get(waiting)
            .is_some_and(|waiting| waiting.at <= now)
        {
            self.come_back(waiting);
        }
    }

    /// One that backed off may start.
    pub(super) fn come_back(&mut self, waiting: usize) {
        let ended = self.backing_off.remove(waiting);
        let queue = &mut self.queues[ended.queue];
        queue.backing_off -= 1;
        let level = ended.job.priority_level();
        queue.ready.push_requeued(ended.job, level);
        self.rouse(ended.queue);
    }
}
