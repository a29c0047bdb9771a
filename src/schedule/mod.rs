//! Decides which job may start next, and when.
//!
//! The schedule is a pure state machine: it uses no clock, no socket and no task. Callers pass
//! `now`, and if nothing may start yet, the answer is the instant at which to ask again. So its
//! rules are tested exactly in virtual time.
//!
//! # Queues and gates
//!
//! ```text
//!                  Schedule ─────────────── gate: limits of the whole Fetcher
//!                      │
//!               runnable batches
//!            ┌─────────┴──────────┐
//!         Batch 1              Batch 2 ──── gate: limits of one batch
//!            │                    │
//!        run queue            run queue
//!        ┌───┴───┐            ┌───┴───┐
//!      Queue   Queue        Queue   Queue ─ gate: one batch's share of one lane
//!        │       └─────┐ ┌────┘       │
//!     Lane a         Lane b        Lane c ─ gate: limits of one lane (usually a host)
//! ```
//!
//! A **queue** holds the jobs of one batch for one lane. A job starts when four [gates](gate) grant
//! it: that of the whole schedule, of its batch, of its lane, and of its queue. The lane's [circuit
//! breaker](breaker) must grant it, too. A started job holds a [`Slot`] until the slot is settled.
//!
//! # Parking and waking
//!
//! A queue or batch that a gate refuses is [parked](parking) there and not checked again until
//! that gate may have opened. So a start costs constant time, however many queues wait. The
//! invariant that keeps slots from idling is:
//!
//! > A batch or queue with a ready job is runnable, or it is parked on a gate that refuses it.
//! > While queues are parked on a lane whose gate is open, one of them has been woken, and its
//! > batch is runnable.
//!
//! A gate that opens by the passing of time leaves a [timer]. Timers are hints: one that fires
//! needlessly only causes a check.
//!
//! # Fairness
//!
//! Batches take turns, and within a batch its queues take turns ([`run_queue`]). A queue with a
//! larger share of the batch's jobs gets proportionally more turns. Within a batch, jobs of a
//! higher [priority] start first, and requeued jobs start before fresh ones. Queues parked on a
//! lane are woken in the order in which they were parked.
//!
//! # Memory
//!
//! A batch lives until it is removed and its last slot is settled. Idle queues and lanes stay for
//! the next job of the same host, and are [evicted](evict) as new lanes arrive. So memory follows
//! the hosts in use, not all hosts ever seen.

mod admission;
mod block_reason;
mod breaker;
mod control;
mod drain;
mod evict;
mod feedback;
mod final_round;
mod gate;
mod health;
mod index_hash;
mod lane_hold;
mod limits;
mod lookup;
mod parking;
mod priority;
mod push;
mod retry_budget;
mod run_queue;
mod run_state;
mod slot;
mod start;
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

use admission::Admission;
pub(crate) use block_reason::BlockReason;
pub(crate) use breaker::BreakerConfig;
use evict::EvictionCandidate;
use gate::Gate;
pub(crate) use gate::{ConcurrencyBounds, GateLimits, GcraRate};
pub(crate) use health::{Health, HostObservation};
pub(crate) use limits::{BatchLimits, LaneLimits};
pub(crate) use priority::PriorityLevel;
pub(crate) use retry_budget::RetryBudgetConfig;
use run_state::RunState;
pub(crate) use slot::{BatchId, LaneId, Slot};
use state::{Batch, DelayedJob, Lane, Queue};
pub(crate) use stats::{LaneLoad, ScheduleStats};
pub(crate) use time::Time;
use timer::TimerTarget;

/// A job that the schedule can hold.
pub(crate) trait Schedulable {
    /// Whether the result of this job is no longer awaited. An abandoned job is rejected instead of
    /// started, and does not count against a limit.
    fn is_abandoned(&self) -> bool;

    fn priority_level(&self) -> PriorityLevel {
        PriorityLevel::Normal
    }
}

/// The result of [`Schedule::next_start`].
#[derive(Debug)]
pub(crate) enum StartDecision<J> {
    /// This job starts, in this slot.
    Start(Slot, J),
    /// Nothing may start before this instant, unless the schedule is changed before.
    WaitUntil(Time),
    /// Nothing may start unless the schedule is changed.
    Idle,
}

/// The state of all batches and lanes. The [module documentation](self) explains the design.
pub(crate) struct Schedule<J> {
    /// Limits over everything.
    gate: Gate,
    /// The batches to check for a start, in the order of their turns.
    runnable_batches: VecDeque<usize>,
    batches: Slab<Batch>,
    last_batch_serial: u64,
    lanes: Slab<Lane>,
    lane_by_key: HashMap<Arc<str>, usize>,
    queues: Slab<Queue<J>>,
    /// The queue of the last push. It may have been removed since.
    last_pushed_queue: usize,
    delayed_jobs: Slab<DelayedJob<J>>,
    /// The sequence number keeps timers of one instant in the order in which they were set.
    timers: BinaryHeap<Reverse<(Time, u64, TimerTarget)>>,
    last_timer_seq: u64,
    /// Obsolete timers are swept out when there are this many timers.
    timer_sweep_threshold: usize,
    /// The deadlines that have not passed, with their batches.
    deadlines: BTreeSet<(Time, usize)>,
    eviction_candidates: VecDeque<EvictionCandidate>,
    /// Jobs to be taken by [`Self::take_rejected`].
    rejected_jobs: Vec<J>,
    /// Jobs to be taken by [`Self::take_unreachable`].
    unreachable_jobs: Vec<J>,
    /// Batches whose final round may be due.
    final_round_candidates: Vec<usize>,
    queued_count: usize,
}

impl<J: Schedulable> Schedule<J> {
    /// `limits` apply over all batches and lanes.
    pub(crate) fn new(limits: GateLimits) -> Self {
        Self {
            gate: Gate::new(limits),
            runnable_batches: VecDeque::new(),
            batches: Slab::new(),
            last_batch_serial: 0,
            lanes: Slab::new(),
            lane_by_key: HashMap::new(),
            queues: Slab::new(),
            last_pushed_queue: usize::MAX,
            delayed_jobs: Slab::new(),
            timers: BinaryHeap::new(),
            last_timer_seq: 0,
            timer_sweep_threshold: 0,
            deadlines: BTreeSet::new(),
            eviction_candidates: VecDeque::new(),
            rejected_jobs: Vec::new(),
            unreachable_jobs: Vec::new(),
            final_round_candidates: Vec::new(),
            queued_count: 0,
        }
    }

    pub(crate) fn add_batch(&mut self, limits: BatchLimits) -> BatchId {
        self.last_batch_serial += 1;
        let serial = self.last_batch_serial;
        let index = self.batches.insert(Batch::new(serial, limits));
        self.deadlines
            .extend(limits.deadline.map(|deadline| (deadline, index)));
        BatchId { index, serial }
    }

    /// Decides what starts now. A started job is in flight when this returns.
    ///
    /// Some jobs may turn out never to start: see [`Self::take_rejected`] and
    /// [`Self::take_unreachable`].
    pub(crate) fn next_start(&mut self, now: Time) -> StartDecision<J> {
        self.fire_timers(now);
        self.begin_due_final_rounds();
        while let Some(&batch) = self.runnable_batches.front() {
            match self.gate.check(now) {
                Admission::Granted => {}
                Admission::Blocked => break,
                Admission::NotBefore(at) => {
                    self.reject_batches_ending_by(at);
                    return self.decision_without_start(Some(at));
                }
                Admission::NoLaterThan(at) => return self.decision_without_start(Some(at)),
            }
            self.runnable_batches.pop_front();
            match self.batches[batch].gate.check(now) {
                Admission::Granted => {}
                refusal => {
                    self.park_batch(batch, refusal);
                    continue;
                }
            }
            let started = self.start_from_batch(batch, now);
            let checked = &mut self.batches[batch];
            if checked.run_queue.is_empty() {
                checked.run_state = RunState::Idle;
            } else {
                self.runnable_batches.push_back(batch);
            }
            if let Some((slot, job)) = started {
                return StartDecision::Start(slot, job);
            }
            self.begin_due_final_rounds();
        }
        self.decision_without_start(None)
    }

    /// Takes a slot back. Requests that waited for it may start now.
    ///
    /// To start the job again, [requeue](Self::requeue) it before.
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
        self.note_final_round_if_due(batch);
        if is_scout {
            self.lanes[lane].gate.finish_scout();
            self.batches[batch].scout_deadline = Time::default();
        }
        self.lanes[lane].breaker.probe_dropped(probe);
        if self.lanes[lane].gate.leave() || is_scout || probe.is_some() {
            self.wake_next_in_lane(lane);
        }
        if self.queues[queue].gate.leave() {
            self.unpark_queue(queue);
        }
        if self.batches[batch].is_removed {
            self.remove_settled_queue(batch, queue);
        } else {
            self.note_eviction_candidate_if_idle(queue);
        }
    }

    /// Takes the jobs that can no longer start, because their batch is over or they were abandoned.
    pub(crate) fn take_rejected(&mut self) -> Vec<J> {
        std::mem::take(&mut self.rejected_jobs)
    }

    /// Takes the jobs that ended because the circuit breaker of their lane rejects queued jobs.
    pub(crate) fn take_unreachable(&mut self) -> Vec<J> {
        std::mem::take(&mut self.unreachable_jobs)
    }

    /// The number of jobs that wait to start.
    pub(crate) fn queued_count(&self) -> usize {
        self.queued_count
    }

    /// Whether the batch leaves a slot idle only because no host of its queued jobs admits a start.
    ///
    /// Not while a scout of the batch is in flight, because it is likely to admit the others soon.
    pub(crate) fn is_host_limited(&self, batch: BatchId, now: Time) -> bool {
        self.find_live_batch(batch).is_some_and(|batch| {
            batch.run_state == RunState::Idle
                && batch.queued_count > 0
                && batch.scout_deadline <= now
                && !batch.gate.is_full()
                && !batch.gate.is_held()
                && !self.gate.is_full()
        })
    }

    /// The decision if nothing may start now. `at` is an instant at which to check again.
    fn decision_without_start(&self, at: Option<Time>) -> StartDecision<J> {
        if self.queued_count == 0 {
            return StartDecision::Idle;
        }
        at.into_iter()
            .chain(self.next_timer())
            .min()
            .map_or(StartDecision::Idle, StartDecision::WaitUntil)
    }
}
