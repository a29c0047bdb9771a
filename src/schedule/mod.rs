//! Who may start next, and when: a pure state machine.
//!
//! No clock, no socket and no task is known here: `now` is passed in, and what must wait is answered with the instant to
//! come back at. So the rules are tested exactly, in microseconds, and the same code run in virtual time predicts how
//! long a batch will take.
//!
//! A **queue** belongs to one batch and one lane. Four **gates** stand before a start: the whole schedule's, the batch's,
//! the lane's, and the queue's own (what the batch allows one host). The invariant that makes it work-conserving:
//!
//! > a queue or batch that has something ready is in a ring, or it is parked on a gate that is closed now; and a gate
//! > that opens puts everything parked on it back into its ring.
//!
//! A gate that opens at a known instant leaves a timer. Timers are hints: one that fires for nothing makes its queue be
//! looked at again, which changes nothing.

mod forget;
mod gate;
mod parking;
mod time;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};

use slab::Slab;

use gate::{Gate, Pass};
pub(crate) use gate::{Limits, Pace};
pub(crate) use time::Time;

/// A job that may have lost its reader while it waited; it is then dropped instead of started, and takes no limit.
pub(crate) trait Job {
    fn is_abandoned(&self) -> bool;
}

#[derive(Copy, Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct BatchId(usize);

impl BatchId {
    /// A small number, used again once the batch is gone.
    pub(crate) fn index(self) -> usize {
        self.0
    }
}

/// What a batch may do: all of it, at one host, and until when.
#[derive(Copy, Clone, Debug)]
pub(crate) struct BatchLimits {
    pub(crate) whole: Limits,
    pub(crate) per_lane: Limits,
    pub(crate) deadline: Option<Time>,
}

/// The right to be on the wire. It goes back by [`Schedule::settle`].
#[derive(Debug)]
#[must_use]
pub(crate) struct Slot {
    batch: usize,
    lane: usize,
    queue: usize,
}

impl Slot {
    pub(crate) fn batch(&self) -> BatchId {
        BatchId(self.batch)
    }
}

#[derive(Debug)]
pub(crate) enum Next<J> {
    Start(Slot, J),
    /// Nothing may start before this instant, unless something is pushed or settled.
    Wait(Time),
    /// Nothing may start unless something is pushed or settled.
    Idle,
}

/// Where a queue or a batch is while it is not being looked at.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
enum Place {
    /// Nothing is ready in it.
    Out,
    /// In the ring of those to be looked at.
    Ring,
    /// On its own gate, which is closed.
    Parked,
    /// In the list of its lane, whose gate is closed.
    ParkedOnLane,
}

struct Batch {
    gate: Gate,
    per_lane: Limits,
    deadline: Option<Time>,
    /// Past its deadline, or removed: takes nothing more.
    over: bool,
    removed: bool,
    place: Place,
    ring: VecDeque<usize>,
    queues: HashMap<usize, usize>,
    /// Jobs that are not in flight.
    queued: usize,
    alarm: Alarm,
}

struct Lane {
    key: Box<str>,
    gate: Gate,
    parked: Vec<usize>,
    queues: usize,
    /// Whether it is in the list of those that may be forgotten.
    resting: bool,
    alarm: Alarm,
}

struct Queue<J> {
    batch: usize,
    lane: usize,
    gate: Gate,
    place: Place,
    again: VecDeque<J>,
    fresh: VecDeque<J>,
    /// Jobs in their back-off.
    backing_off: usize,
    /// Whether it is in the list of those that may be forgotten.
    resting: bool,
    alarm: Alarm,
}

impl<J> Queue<J> {
    fn is_empty(&self) -> bool {
        self.again.is_empty() && self.fresh.is_empty()
    }

    fn pop(&mut self) -> Option<J> {
        self.again.pop_front().or_else(|| self.fresh.pop_front())
    }

    fn front(&self) -> Option<&J> {
        self.again.front().or_else(|| self.fresh.front())
    }
}

struct BackingOff<J> {
    queue: usize,
    at: Time,
    job: J,
}

/// The earliest timer already set for one thing, so that it is not set again.
#[derive(Debug, Default)]
struct Alarm(Option<Time>);

impl Alarm {
    /// True if a timer must be set for `at`.
    fn set(&mut self, at: Time) -> bool {
        let earlier = self.0.is_none_or(|set| at < set);
        if earlier {
            self.0 = Some(at);
        }
        earlier
    }

    fn fired(&mut self, now: Time) {
        if self.0.is_some_and(|at| at <= now) {
            self.0 = None;
        }
    }
}

#[derive(Copy, Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Timer {
    BackOff(usize),
    Lane(usize),
    Queue(usize),
    Batch(usize),
}

/// What may be forgotten once it has no state worth keeping.
enum Resting {
    Queue(usize),
    Lane(usize),
}

pub(crate) struct Schedule<J> {
    gate: Gate,
    ring: VecDeque<usize>,
    batches: Slab<Batch>,
    lanes: Slab<Lane>,
    lane_of: HashMap<Box<str>, usize>,
    queues: Slab<Queue<J>>,
    backing_off: Slab<BackingOff<J>>,
    /// The second number keeps those of one instant in the order they were set.
    timers: BinaryHeap<Reverse<(Time, u64, Timer)>>,
    timers_set: u64,
    resting: VecDeque<Resting>,
    refused: Vec<J>,
    queued: usize,
}

impl<J: Job> Schedule<J> {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            gate: Gate::new(limits),
            ring: VecDeque::new(),
            batches: Slab::new(),
            lanes: Slab::new(),
            lane_of: HashMap::new(),
            queues: Slab::new(),
            backing_off: Slab::new(),
            timers: BinaryHeap::new(),
            timers_set: 0,
            resting: VecDeque::new(),
            refused: Vec::new(),
            queued: 0,
        }
    }

    pub(crate) fn add_batch(&mut self, limits: BatchLimits) -> BatchId {
        let batch = self.batches.insert(Batch {
            gate: Gate::new(limits.whole),
            per_lane: limits.per_lane,
            deadline: limits.deadline,
            over: false,
            removed: false,
            place: Place::Out,
            ring: VecDeque::new(),
            queues: HashMap::new(),
            queued: 0,
            alarm: Alarm::default(),
        });
        if let Some(deadline) = limits.deadline {
            self.set_timer(deadline, Timer::Batch(batch));
        }
        BatchId(batch)
    }

    /// Takes in a fresh job. Jobs of one lane start in the order they were pushed.
    ///
    /// `limits` is asked for only when the lane is new. After the batch's deadline the job is among the [refused] at once.
    ///
    /// [refused]: Self::take_refused
    pub(crate) fn push(
        &mut self,
        batch: BatchId,
        lane: &str,
        limits: impl FnOnce() -> Limits,
        job: J,
        now: Time,
    ) {
        if self.has_ended(batch.0, now) {
            self.refused.push(job);
            return;
        }
        let queue = self.queue_for(batch.0, lane, limits, now);
        self.queues[queue].fresh.push_back(job);
        self.count(batch.0, 1);
        self.arm(queue);
    }

    /// Takes back the job of a slot that is about to be settled: it may start again at `at`, in the same lane, and goes
    /// before fresh ones.
    ///
    /// # Errors
    ///
    /// Gives the job back if its batch ends first.
    pub(crate) fn push_again(&mut self, slot: &Slot, job: J, at: Time, now: Time) -> Result<(), J> {
        if self.has_ended(slot.batch, at.max(now)) {
            return Err(job);
        }
        let queue = slot.queue;
        self.count(slot.batch, 1);
        if at <= now {
            self.queues[queue].again.push_back(job);
            self.arm(queue);
        } else {
            self.queues[queue].backing_off += 1;
            let waiting = self.backing_off.insert(BackingOff { queue, at, job });
            self.set_timer(at, Timer::BackOff(waiting));
        }
        Ok(())
    }

    /// Decides who starts now. The job's slot is taken: it is in flight when this returns.
    pub(crate) fn next(&mut self, now: Time) -> Next<J> {
        self.fire_timers(now);
        while let Some(&batch) = self.ring.front() {
            match self.gate.check(now) {
                Pass::Open => {}
                Pass::Full => break,
                Pass::Until(at) => return self.wait(Some(at)),
            }
            self.ring.pop_front();
            match self.batches[batch].gate.check(now) {
                Pass::Open => {}
                Pass::Full => {
                    self.batches[batch].place = Place::Parked;
                    continue;
                }
                Pass::Until(at) => {
                    self.park_batch(batch, at);
                    continue;
                }
            }
            let started = self.next_of(batch, now);
            let now_in = &mut self.batches[batch];
            if now_in.ring.is_empty() {
                now_in.place = Place::Out;
            } else {
                self.ring.push_back(batch);
            }
            if let Some((slot, job)) = started {
                return Next::Start(slot, job);
            }
        }
        self.wait(None)
    }

    /// Gives a slot back, and opens what it kept closed.
    pub(crate) fn settle(&mut self, slot: Slot) {
        let Slot { batch, lane, queue } = slot;
        self.gate.leave();
        self.batches[batch].gate.leave();
        self.unpark_batch(batch);
        if self.lanes[lane].gate.leave() {
            self.unpark_lane(lane);
        }
        if self.queues[queue].gate.leave() && self.queues[queue].place == Place::Parked {
            self.arm(queue);
        }
        if self.batches[batch].removed {
            self.forget_ended(batch, queue);
        } else {
            self.rest_if_empty(queue);
        }
    }

    /// Nothing starts in this slot's lane before `until`.
    pub(crate) fn pause_lane(&mut self, slot: &Slot, until: Time) {
        self.lanes[slot.lane].gate.pause(until);
    }

    /// Ends a batch: gives back what waits in it. What is in flight still settles.
    pub(crate) fn remove_batch(&mut self, batch: BatchId) -> Vec<J> {
        let batch = batch.0;
        let mut jobs = std::mem::take(&mut self.refused);
        self.drain(batch, &mut jobs);
        self.end_batch(batch);
        jobs
    }

    /// Gives back what waits in a batch, which takes nothing more until it is removed.
    pub(crate) fn close_batch(&mut self, batch: BatchId) -> Vec<J> {
        let mut jobs = Vec::new();
        self.drain(batch.0, &mut jobs);
        self.batches[batch.0].over = true;
        jobs
    }

    /// Takes the jobs that can no longer start: their batch's deadline comes first, or they were abandoned.
    pub(crate) fn take_refused(&mut self) -> Vec<J> {
        std::mem::take(&mut self.refused)
    }

    /// Whether a slot of this batch is idle only because no host of its queued jobs may start.
    pub(crate) fn wants_other_hosts(&self, batch: BatchId) -> bool {
        let batch = &self.batches[batch.0];
        batch.place == Place::Out && batch.queued > 0 && !batch.over
    }

    /// How many of this batch are on the wire.
    pub(crate) fn in_flight(&self, batch: BatchId) -> usize {
        self.batches[batch.0].gate.in_flight()
    }

    /// The first of this batch's queues, from the one whose turn it is, that every gate lets start.
    fn next_of(&mut self, batch: usize, now: Time) -> Option<(Slot, J)> {
        while let Some(queue) = self.batches[batch].ring.pop_front() {
            self.discard_abandoned(queue);
            if self.queues[queue].is_empty() {
                self.queues[queue].place = Place::Out;
                self.rest_if_empty(queue);
                continue;
            }
            let lane = self.queues[queue].lane;
            match self.lanes[lane].gate.check(now) {
                Pass::Open => {}
                refusal => {
                    self.park_on_lane(queue, refusal);
                    continue;
                }
            }
            match self.queues[queue].gate.check(now) {
                Pass::Open => {}
                refusal => {
                    self.park_queue(queue, refusal);
                    continue;
                }
            }
            return self.start(batch, lane, queue, now);
        }
        None
    }

    fn start(&mut self, batch: usize, lane: usize, queue: usize, now: Time) -> Option<(Slot, J)> {
        let from = &mut self.queues[queue];
        let job = from.pop()?;
        from.gate.enter(now);
        if from.is_empty() {
            from.place = Place::Out;
        } else {
            self.batches[batch].ring.push_back(queue);
        }
        self.gate.enter(now);
        self.batches[batch].gate.enter(now);
        self.lanes[lane].gate.enter(now);
        self.count(batch, -1);
        Some((Slot { batch, lane, queue }, job))
    }

    fn queue_for(
        &mut self,
        batch: usize,
        key: &str,
        limits: impl FnOnce() -> Limits,
        now: Time,
    ) -> usize {
        if let Some(lane) = self.lane_of.get(key)
            && let Some(&queue) = self.batches[batch].queues.get(lane)
        {
            return queue;
        }
        self.forget_some(now);
        let lane = match self.lane_of.get(key) {
            Some(&lane) => lane,
            None => self.add_lane(key, limits()),
        };
        self.add_queue(batch, lane)
    }

    fn add_lane(&mut self, key: &str, limits: Limits) -> usize {
        let key: Box<str> = key.into();
        let lane = self.lanes.insert(Lane {
            key: key.clone(),
            gate: Gate::new(limits),
            parked: Vec::new(),
            queues: 0,
            resting: false,
            alarm: Alarm::default(),
        });
        self.lane_of.insert(key, lane);
        lane
    }

    fn add_queue(&mut self, batch: usize, lane: usize) -> usize {
        let queue = self.queues.insert(Queue {
            batch,
            lane,
            gate: Gate::new(self.batches[batch].per_lane),
            place: Place::Out,
            again: VecDeque::new(),
            fresh: VecDeque::new(),
            backing_off: 0,
            resting: false,
            alarm: Alarm::default(),
        });
        self.batches[batch].queues.insert(lane, queue);
        self.lanes[lane].queues += 1;
        queue
    }

    fn has_ended(&self, batch: usize, now: Time) -> bool {
        let batch = &self.batches[batch];
        batch.over || batch.deadline.is_some_and(|deadline| deadline <= now)
    }

    fn count(&mut self, batch: usize, change: isize) {
        let queued = &mut self.batches[batch].queued;
        *queued = queued.wrapping_add_signed(change);
        self.queued = self.queued.wrapping_add_signed(change);
    }

    fn discard_abandoned(&mut self, queue: usize) {
        while self.queues[queue].front().is_some_and(J::is_abandoned) {
            self.refused.extend(self.queues[queue].pop());
            self.count(self.queues[queue].batch, -1);
        }
    }
}
