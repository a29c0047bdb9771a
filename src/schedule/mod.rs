//! Who may start next, and when: a pure state machine.
//!
//! No clock, no socket and no task is known here: `now` is passed in, and what must wait is answered with the instant to
//! come back at. So the rules are tested exactly, in microseconds, and the same code run in virtual time predicts how
//! long a batch will take.
//!
//! A **queue** belongs to one batch and one lane. Four **gates** stand before a start: the whole schedule's, the batch's,
//! the lane's, and the queue's own (what the batch allows one host). The invariant that makes it work-conserving:
//!
//! > a queue or batch that has something ready is in a ring, or it is parked on a gate that is closed now; and a lane
//! > that is open while there is a line before it has called up one of the line, in a batch that is in the ring.
//!
//! A gate that opens at a known instant leaves a timer. Timers are hints: one that fires for nothing makes its queue be
//! looked at again, which changes nothing.

mod adaptive;
mod breaker;
mod control;
mod evict;
mod final_round;
mod gate;
mod health;
mod hold;
mod parking;
mod priority;
mod retry_budget;
mod server_limit;
mod state;
mod stats;
mod time;
mod timer;

#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;

use slab::Slab;

pub(crate) use adaptive::ConcurrencyBounds;
pub(crate) use breaker::BreakerConfig;
use breaker::CircuitBreaker;
use evict::EvictionCandidate;
use gate::{Admission, Gate};
pub(crate) use gate::{GateLimits, GcraRate};
pub(crate) use health::{Health, HostObservation};
pub(crate) use priority::PriorityLevel;
use priority::RunQueue;
pub(crate) use retry_budget::RetryBudgetConfig;
use retry_budget::RetryBudgetState;
use state::{Batch, DelayedJob, Lane, Queue, RunState};
pub(crate) use stats::{BlockReason, LaneLoad, ScheduleStats};
pub(crate) use time::Time;
use timer::{EarliestTimer, TimerTarget};

/// A job that may have lost its reader while it waited; it is then dropped instead of started, and takes no limit.
pub(crate) trait Schedulable {
    fn is_abandoned(&self) -> bool;

    fn priority_level(&self) -> PriorityLevel {
        PriorityLevel::Normal
    }
}

/// A batch's name. One that has ended is told from the next with its number.
#[derive(Copy, Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct BatchId {
    index: usize,
    serial: u64,
}

impl BatchId {
    /// A small number, used again once the batch is gone.
    pub(crate) fn index(self) -> usize {
        self.index
    }
}

/// Identifies a lane for as long as it is in use.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) struct LaneId(usize);

/// What a batch may do: all of it, at one host, and until when.
#[derive(Copy, Clone, Debug)]
pub(crate) struct BatchLimits {
    pub(crate) overall: GateLimits,
    pub(crate) per_lane: GateLimits,
    pub(crate) deadline: Option<Time>,
}

/// What is set for a lane: the limits of its gate, and what it does for itself.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) struct LaneLimits {
    pub(crate) gate: GateLimits,
    pub(crate) breaker: BreakerConfig,
    /// None: retries are not bounded.
    pub(crate) retry_budget: Option<RetryBudgetConfig>,
}

impl From<GateLimits> for LaneLimits {
    fn from(gate: GateLimits) -> Self {
        Self {
            gate,
            breaker: BreakerConfig::DISABLED,
            retry_budget: None,
        }
    }
}

/// The right to be on the wire. It goes back by [`Schedule::settle`].
#[derive(Debug)]
#[must_use]
pub(crate) struct Slot {
    batch: BatchId,
    lane: usize,
    queue: usize,
    /// The how-manieth start of its lane it was.
    number: u64,
    is_scout: bool,
    /// Its number, if it is the one that asks whether the host is back; else 0.
    probe: u32,
}

impl Slot {
    /// Whether others wait for what this one finds out, which is to be [reported](Schedule::finish_scout_or_probe).
    pub(crate) fn is_scout(&self) -> bool {
        self.is_scout
    }

    /// Whether others wait for the host to answer this one, which is to be [reported](Schedule::finish_scout_or_probe).
    pub(crate) fn is_probe(&self) -> bool {
        self.probe != 0
    }

    pub(crate) fn batch(&self) -> BatchId {
        self.batch
    }

    /// Valid until this slot is settled.
    pub(crate) fn lane_id(&self) -> LaneId {
        LaneId(self.lane)
    }
}

#[derive(Debug)]
pub(crate) enum StartDecision<J> {
    Start(Slot, J),
    /// Nothing may start before this instant, unless something is pushed or settled.
    WaitUntil(Time),
    /// Nothing may start unless something is pushed or settled.
    Idle,
}

pub(crate) struct Schedule<J> {
    gate: Gate,
    ring: VecDeque<usize>,
    batches: Slab<Batch>,
    batches_added: u64,
    lanes: Slab<Lane>,
    lane_of: HashMap<Arc<str>, usize>,
    queues: Slab<Queue<J>>,
    /// The one that a job was pushed into last, if it is still there.
    latest_queue: usize,
    backing_off: Slab<DelayedJob<J>>,
    /// The second number keeps those of one instant in the order they were set.
    timers: BinaryHeap<Reverse<(Time, u64, TimerTarget)>>,
    timers_set: u64,
    /// How many timers are so many that most of them may be dead.
    many_timers: usize,
    /// Of the batches that have one, until it has passed.
    deadlines: BTreeSet<(Time, usize)>,
    resting: VecDeque<EvictionCandidate>,
    refused: Vec<J>,
    unreachable: Vec<J>,
    /// Batches that may be at their end but for a last round.
    ending: Vec<usize>,
    queued: usize,
}

impl<J: Schedulable> Schedule<J> {
    pub(crate) fn new(limits: GateLimits) -> Self {
        Self {
            gate: Gate::new(limits),
            ring: VecDeque::new(),
            batches: Slab::new(),
            batches_added: 0,
            lanes: Slab::new(),
            lane_of: HashMap::new(),
            queues: Slab::new(),
            latest_queue: usize::MAX,
            backing_off: Slab::new(),
            timers: BinaryHeap::new(),
            timers_set: 0,
            many_timers: 0,
            deadlines: BTreeSet::new(),
            resting: VecDeque::new(),
            refused: Vec::new(),
            unreachable: Vec::new(),
            ending: Vec::new(),
            queued: 0,
        }
    }

    pub(crate) fn add_batch(&mut self, limits: BatchLimits) -> BatchId {
        self.batches_added += 1;
        let serial = self.batches_added;
        let index = self.batches.insert(Batch {
            serial,
            gate: Gate::new(limits.overall),
            per_lane: limits.per_lane,
            deadline: limits.deadline,
            scouting_until: Time::default(),
            removed: false,
            closed: false,
            closed_lanes: BTreeSet::new(),
            place: RunState::Idle,
            turns: RunQueue::default(),
            queues: HashMap::default(),
            queued: 0,
            abandoned: 0,
            last: Vec::new(),
            more: false,
            alarm: EarliestTimer::default(),
        });
        self.deadlines
            .extend(limits.deadline.map(|deadline| (deadline, index)));
        BatchId { index, serial }
    }

    /// Takes in a fresh job. Jobs of one lane start in the order they were pushed.
    ///
    /// `limits` is asked for only when the lane is new. After the batch's deadline, [close](Self::close_batch) or removal
    /// the job is among the [refused] at once.
    ///
    /// [refused]: Self::take_rejected
    pub(crate) fn push<L: Into<LaneLimits>>(
        &mut self,
        batch: BatchId,
        lane: &str,
        limits: impl FnOnce() -> L,
        job: J,
        now: Time,
    ) {
        if self.has_ended(batch, now) || self.is_closed(batch, Some(lane)) {
            self.refused.push(job);
            return;
        }
        let queue = self.queue_for(batch.index, lane, limits, now);
        self.count(batch.index, 1);
        let level = job.priority_level();
        self.queues[queue].ready.push_fresh(job, level);
        self.rouse(queue);
    }

    /// Takes back the job of a slot that is about to be settled: it may start again at `at`, in the same lane, and goes
    /// before fresh ones.
    ///
    /// # Errors
    ///
    /// Gives the job back if its batch has ended, or ends first.
    pub(crate) fn requeue(&mut self, slot: &Slot, job: J, at: Time, now: Time) -> Result<(), J> {
        let lane = Some(&*self.lanes[slot.lane].key);
        if self.has_ended(slot.batch, at.max(now)) || self.is_closed(slot.batch, lane) {
            return Err(job);
        }
        let queue = slot.queue;
        self.count(slot.batch.index, 1);
        let into = &mut self.queues[queue];
        if at > now {
            into.backing_off += 1;
            let waiting = self.backing_off.insert(DelayedJob { queue, at, job });
            self.set_timer(at, TimerTarget::Backoff(waiting));
            return Ok(());
        }
        let level = job.priority_level();
        into.ready.push_requeued(job, level);
        self.rouse(queue);
        Ok(())
    }

    /// Takes back the job of a slot that is about to be settled: it may start again as soon as `lane` lets it, and goes
    /// before fresh ones there.
    ///
    /// # Errors
    ///
    /// Gives the job back if its batch has ended.
    pub(crate) fn requeue_in_lane<L: Into<LaneLimits>>(
        &mut self,
        slot: &Slot,
        lane: &str,
        limits: impl FnOnce() -> L,
        job: J,
        now: Time,
    ) -> Result<(), J> {
        if self.has_ended(slot.batch, now) || self.is_closed(slot.batch, Some(lane)) {
            return Err(job);
        }
        let queue = self.queue_for(slot.batch.index, lane, limits, now);
        self.count(slot.batch.index, 1);
        let level = job.priority_level();
        self.queues[queue].ready.push_requeued(job, level);
        self.rouse(queue);
        Ok(())
    }

    /// Decides who starts now. The job's slot is taken: it is in flight when this returns.
    ///
    /// It may have refused jobs: see [`Self::take_rejected`] and [`Self::take_unreachable`].
    pub(crate) fn next_start(&mut self, now: Time) -> StartDecision<J> {
        self.fire_timers(now);
        self.begin_last_rounds();
        while let Some(&batch) = self.ring.front() {
            match self.gate.check(now) {
                Admission::Granted => {}
                Admission::Blocked => break,
                Admission::NotBefore(at) => {
                    self.refuse_ending_by(at);
                    return self.wait(Some(at));
                }
                Admission::NoLaterThan(at) => return self.wait(Some(at)),
            }
            self.ring.pop_front();
            match self.batches[batch].gate.check(now) {
                Admission::Granted => {}
                refusal => {
                    self.park_batch(batch, refusal);
                    continue;
                }
            }
            let started = self.next_of(batch, now);
            let looked_at = &mut self.batches[batch];
            if looked_at.turns.is_empty() {
                looked_at.place = RunState::Idle;
            } else {
                self.ring.push_back(batch);
            }
            if let Some((slot, job)) = started {
                return StartDecision::Start(slot, job);
            }
            self.begin_last_rounds();
        }
        self.wait(None)
    }

    /// Gives a slot back, and opens what it kept closed.
    ///
    /// What is to go [again](Self::requeue) is pushed before that.
    pub(crate) fn settle(&mut self, slot: Slot) {
        let Slot {
            batch: BatchId { index: batch, .. },
            lane,
            queue,
            is_scout,
            probe,
            ..
        } = slot;
        self.gate.leave();
        if self.batches[batch].gate.leave() {
            self.unpark_batch(batch);
        }
        self.heed_end(batch);
        if is_scout {
            self.lanes[lane].gate.finish_scout();
            self.batches[batch].scouting_until = Time::default();
        }
        self.lanes[lane].breaker.gone(probe);
        if self.lanes[lane].gate.leave() || is_scout || probe != 0 {
            self.call_up(lane);
        }
        if self.queues[queue].gate.leave() {
            self.unpark_queue(queue);
        }
        if self.batches[batch].removed {
            self.forget_ended(batch, queue);
        } else {
            self.rest_if_empty(queue);
        }
    }

    /// The scout or probe has found out what there was to find out: nobody waits for it any more.
    pub(crate) fn finish_scout_or_probe(&mut self, slot: &mut Slot) {
        let probe = std::mem::take(&mut slot.probe);
        if probe != 0 && self.lanes[slot.lane].breaker.reached(probe) {
            self.call_up(slot.lane);
        }
        if std::mem::take(&mut slot.is_scout) {
            self.lanes[slot.lane].gate.finish_scout();
            self.batches[slot.batch.index].scouting_until = Time::default();
            self.call_up(slot.lane);
        }
    }

    /// Nothing starts in this slot's lane before `until`.
    pub(crate) fn pause_lane(&mut self, slot: &Slot, until: Time) {
        self.lanes[slot.lane].gate.pause(until);
    }

    /// Ends a batch: gives back what waits in it. What is in flight still settles.
    pub(crate) fn remove_batch(&mut self, batch: BatchId) -> Vec<J> {
        let mut jobs = Vec::new();
        if self.live(batch).is_some() {
            self.drain(batch.index, &mut jobs);
            self.end_batch(batch.index);
        }
        jobs
    }

    /// Gives back what waits in a batch, as its deadline would.
    pub(crate) fn take_queued(&mut self, batch: BatchId) -> Vec<J> {
        let mut jobs = Vec::new();
        if self.live(batch).is_some() {
            self.drain(batch.index, &mut jobs);
            self.clear_ring(batch.index);
        }
        jobs
    }

    /// Takes the jobs that can no longer start: their batch's deadline comes first, or they were abandoned.
    pub(crate) fn take_rejected(&mut self) -> Vec<J> {
        std::mem::take(&mut self.refused)
    }

    /// How many jobs wait to start.
    pub(crate) fn queued_count(&self) -> usize {
        self.queued
    }

    /// Whether a slot of this batch is idle only because no host of its queued jobs may start.
    ///
    /// While its scout is out it does not: that one is soon back, and most likely lets all of them go.
    pub(crate) fn is_host_limited(&self, batch: BatchId, now: Time) -> bool {
        self.live(batch).is_some_and(|batch| {
            batch.place == RunState::Idle
                && batch.queued > 0
                && batch.scouting_until <= now
                && !batch.gate.is_full()
                && !batch.gate.is_held()
                && !self.gate.is_full()
        })
    }

    /// What to answer when nothing may start before `at`, or before something happens.
    fn wait(&self, at: Option<Time>) -> StartDecision<J> {
        if self.queued == 0 {
            return StartDecision::Idle;
        }
        at.into_iter()
            .chain(self.next_instant())
            .min()
            .map_or(StartDecision::Idle, StartDecision::WaitUntil)
    }

    /// The first of this batch's queues, from the one whose turn it is, that every gate lets start.
    fn next_of(&mut self, batch: usize, now: Time) -> Option<(Slot, J)> {
        loop {
            let (queue, was_called) = self.take_turn(batch)?;
            let lane = self.queues[queue].lane;
            let started = self.look_at(queue, lane, was_called, now);
            if was_called && self.queues[queue].place != RunState::ParkedOnLane {
                self.call_up(lane);
            }
            if started.is_some() {
                return started;
            }
        }
    }

    fn look_at(
        &mut self,
        queue: usize,
        lane: usize,
        was_called: bool,
        now: Time,
    ) -> Option<(Slot, J)> {
        self.discard_abandoned(queue);
        match self.queues[queue].ready.top() {
            None => {
                self.put_out(queue);
                return None;
            }
            // What it had this turn for is gone.
            Some(level) if level < self.queues[queue].spot.level => {
                self.give_turn(queue, false);
                return None;
            }
            Some(_) => {}
        }
        if !self.passes_breaker(queue, lane, was_called, now) {
            return None;
        }
        match self.lanes[lane].gate.check(now) {
            Admission::Granted => {}
            refusal => {
                self.park_on_lane(queue, refusal, was_called);
                return None;
            }
        }
        match self.queues[queue].gate.check(now) {
            Admission::Granted => {}
            refusal => {
                self.park_queue(queue, refusal);
                return None;
            }
        }
        self.start(queue, now)
    }

    fn start(&mut self, queue: usize, now: Time) -> Option<(Slot, J)> {
        let from = &mut self.queues[queue];
        let (job, is_fresh) = from.ready.pop()?;
        from.gate.enter(now);
        let lane = from.lane;
        let index = from.batch;
        match from.ready.is_empty() {
            true => from.place = RunState::Idle,
            false => self.give_turn_after_start(queue),
        }
        let batch = &mut self.batches[index];
        batch.gate.enter(now);
        let batch = BatchId {
            index,
            serial: batch.serial,
        };
        let on = &mut self.lanes[lane];
        on.starts += 1;
        let number = on.starts;
        let scouts_until = on.gate.enter(now);
        let probe = on.breaker.enter();
        if is_fresh {
            on.budget.earn();
        }
        if let Some(until) = scouts_until {
            self.batches[index].scouting_until = until;
        }
        self.gate.enter(now);
        self.count(index, -1);
        let slot = Slot {
            batch,
            lane,
            queue,
            number,
            is_scout: scouts_until.is_some(),
            probe,
        };
        Some((slot, job))
    }

    /// The batch of this name, even if only its slots in flight are left.
    fn named(&self, batch: BatchId) -> Option<&Batch> {
        self.batches
            .get(batch.index)
            .filter(|named| named.serial == batch.serial)
    }

    fn live(&self, batch: BatchId) -> Option<&Batch> {
        self.named(batch).filter(|named| !named.removed)
    }

    fn has_ended(&self, batch: BatchId, now: Time) -> bool {
        self.live(batch)
            .is_none_or(|batch| batch.deadline.is_some_and(|deadline| deadline <= now))
    }

    fn count(&mut self, batch: usize, change: isize) {
        let queued = &mut self.batches[batch].queued;
        *queued = queued.wrapping_add_signed(change);
        self.queued = self.queued.wrapping_add_signed(change);
        if change < 0 {
            self.heed_end(batch);
        }
    }

    fn discard_abandoned(&mut self, queue: usize) {
        while self.queues[queue]
            .ready
            .front()
            .is_some_and(J::is_abandoned)
        {
            let popped = self.queues[queue].ready.pop();
            self.refused.extend(popped.map(|(job, _)| job));
            self.count(self.queues[queue].batch, -1);
        }
    }
}
