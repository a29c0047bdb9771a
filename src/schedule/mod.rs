//! Decides which job may start next, and when. A job is one request on its way to a result; it may
//! start more than once, for a retry or a redirect.
//!
//! The schedule is a pure state machine. It uses no clock, no socket and no task: callers pass
//! `now`. If nothing may start yet, the schedule returns the instant of the next call. The rules
//! are thus tested exactly in virtual time.
//!
//! # Queues and gates
//!
//! ```text
//!                  Schedule ─────────────── gate: limits of the whole Fetcher
//!                      │
//!               runnable batches
//!            ┌─────────┴──────────┐
//!            │                 Tenant ──── gate: limits of the batches of one tenant (optional)
//!            │                    │
//!         Batch 1              Batch 2 ──── gate: limits of one batch
//!            │                    │
//!        run queue            run queue
//!        ┌───┴───┐            ┌───┴───┐
//!      Queue   Queue        Queue   Queue ─ the jobs of one batch for one route
//!        │       │            │       │
//!      Share   Share        Share   Share ─ gate: one batch's share of one lane
//!        │       └─────┐ ┌────┘       │
//!     Lane a         Lane b        Lane c ─ gate: limits of one lane (usually a host)
//! ```
//!
//! A **lane** is a host, or a `limit_by` key of the user. A [**route**](route) is a way to reach a
//! lane: directly, or through one proxy. A **queue** holds the jobs of one batch for one route. A
//! **share** is the part of a lane that one batch uses. A **gate** checks limits before a start. A
//! job starts if four [gates](gate) grant the start: those of the schedule, of the batch, of the
//! lane and of the share. A batch may belong to a [**tenant**](tenant), a group of batches with
//! common limits, whose gate must grant the start, too. So must the route. It has a [circuit
//! breaker](breaker), an adaptive limit, and a [scout], the first request, for whose result other
//! requests wait. A started job holds a [`Slot`], the right to be on the wire, until its worker
//! **settles** (returns) the slot.
//!
//! # Budgets
//!
//! A [budget] limits the costs of requests, for example the tokens per minute or the cents in
//! total. A lane, a batch, a tenant and the schedule may have budgets. They are checked last, after
//! the gates and the route, and charged together or not at all. A job that waits for a budget thus
//! holds no slot and no other budget. The cost of a job is an estimate. It is charged at the start
//! and [settled](charge) when the actual cost is known, which may take the level of a budget below
//! zero. A job whose cost can never be covered leaves the schedule at once.
//!
//! # Parking and waking
//!
//! If a gate refuses a queue or batch, the queue or batch is [parked](parking) at that gate. It is
//! not checked again until the gate may have opened. A start therefore takes constant time, however
//! many batches and lanes wait. Only the queues of one share, one per route, are compared with each
//! other. This invariant ensures that no slot stays unused without a reason:
//!
//! > A batch or queue with a ready job is either runnable, or parked on a gate that refuses it. If
//! > a lane, share or route is open but has parked queues, one of them has been woken, and its
//! > batch is runnable. As an exception, a queue may stay parked on an open share while another
//! > queue of the share is parked on the lane. If a tenant is open but has parked batches, one of
//! > its batches has been woken and is runnable.
//!
//! If a gate opens at a known instant, a [timer] is set for that instant. A timer that fires
//! needlessly only causes a check.
//!
//! A queue that a budget refuses is parked at the budget. Only the first of the parked queues is
//! checked, when the level may cover its cost, when another queue no longer reserves the budget, or
//! after a refund.
//!
//! # Fairness
//!
//! Batches take turns, and within a batch its queues take turns ([`run_queue`]). The turns of
//! batches are counted in virtual time, as in start-time fair queueing (P. Goyal and others, 1996).
//! A batch that has missed turns, for example while its rate refused starts, goes before other
//! batches once per round. Each batch thus reaches its rate if the rate is below its fair share. A
//! queue with a larger part of the batch's jobs gets proportionally more turns. Within a batch,
//! jobs of a higher [priority] start first, and requeued jobs start before fresh ones. A lane wakes
//! its parked queues in the order in which they were parked. A batch with several routes in a lane
//! has at most one queue parked on the lane.
//!
//! A [budget serves queues](budget_queues) in the order in which budgets have refused them, so that
//! small costs do not overtake a large one forever.
//!
//! # Memory
//!
//! A batch is kept, with its budgets, until it is removed and its last slot is settled. Idle
//! queues, routes and lanes are kept for later jobs of the same host, and are [evicted](evict) when
//! queues are added. Memory is thus proportional to the hosts and proxies in use, not to all hosts
//! and proxies ever used. A lane is not evicted before its budgets are full again, so a lane that
//! has used a total stays.

mod adaptive;
mod admission;
mod block_reason;
mod breaker;
mod budget;
mod budget_levels;
mod budget_queues;
mod charge;
mod concurrency;
mod control;
mod evict;
mod feedback;
mod final_round;
mod find;
mod gate;
mod gcra;
mod health;
mod index_hash;
mod lane_hold;
mod limits;
mod parking;
mod priority;
mod push;
mod queue_budgets;
mod remove_jobs;
mod retry_budget;
mod route;
mod run_queue;
mod run_state;
mod scout;
mod slot;
mod start;
mod state;
mod stats;
mod tenant;
mod time;
mod timer;
mod unaffordable_jobs;

#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;

use slab::Slab;

use admission::Admission;

pub(crate) use adaptive::ConcurrencyBounds;
pub(crate) use block_reason::BlockReason;
pub(crate) use breaker::BreakerConfig;
use budget::Budget;
pub(crate) use budget::{
    BudgetAnnouncement, BudgetConfig, BudgetKind, UnaffordableJob, UnaffordableReason,
};
pub(crate) use budget_levels::{BudgetLevel, BudgetScope, ChargedBudget};
pub(crate) use charge::{Charge, CostOutcome};
use evict::EvictionCandidate;
use gate::Gate;
pub(crate) use gate::{GateLimits, GcraRate};
pub(crate) use gcra::BudgetRate;
pub(crate) use health::{RouteHealth, RouteObservation};
pub(crate) use limits::{BatchLimits, LaneLimits};
use parking::ParkingLotId;
pub(crate) use priority::PriorityLevel;
pub(crate) use retry_budget::RetryBudgetConfig;
use route::Route;
pub(crate) use route::RouteKey;
use run_state::RunState;
pub(crate) use slot::{BatchId, LaneId, Slot};
use state::{Batch, DelayedJob, Lane, LaneShare, Queue};
pub(crate) use stats::{LaneLoad, ScheduleStats};
use tenant::Tenant;
pub(crate) use tenant::TenantId;
pub(crate) use time::Time;
use timer::TimerTarget;

/// A job that the schedule can queue.
pub(crate) trait Schedulable {
    /// Whether the caller no longer waits for the result of this job. An abandoned job is rejected
    /// instead of started, and does not count against a limit.
    fn is_abandoned(&self) -> bool;

    fn priority_level(&self) -> PriorityLevel {
        PriorityLevel::Normal
    }

    /// The cost of the next start on the budgets of this name. `None`: their default cost. Must not
    /// change while the job is queued.
    fn stated_cost(&self, _budget_name: &str) -> Option<u64> {
        None
    }

    /// Whether the charge of an earlier start pays for the next start. It is the charge that
    /// [`Schedule::take_charge`] returned, on the same lane. Such a job starts before all others of
    /// its queue.
    fn has_carried_charge(&self) -> bool {
        false
    }

    /// Takes the charge that pays for the next start. Called at the start.
    fn take_carried_charge(&mut self) -> Option<Charge> {
        None
    }
}

/// The result of [`Schedule::start_next_job`].
#[derive(Debug)]
pub(crate) enum StartDecision<J> {
    /// The job starts, and holds the slot.
    Start(Slot, J),
    /// Nothing may start before this instant, unless the schedule is changed earlier.
    WaitUntil(Time),
    /// Nothing may start until the schedule is changed.
    WaitForChange,
}

/// The state of all batches and lanes. The [module documentation](self) explains the design.
pub(crate) struct Schedule<J> {
    /// The limits over all batches and lanes.
    gate: Gate,
    /// The batches that have missed turns. They are checked before other batches.
    overdue_batches: VecDeque<usize>,
    /// The other batches with ready jobs, in the order of their turns.
    runnable_batches: VecDeque<usize>,
    /// The number of rounds of turns so far, on the same scale as
    /// [`Batch::next_turn_virtual_time`].
    virtual_time: u64,
    batches: Slab<Batch>,
    last_batch_serial: u64,
    tenants: Slab<Tenant>,
    lanes: Slab<Lane>,
    lane_by_key: HashMap<Arc<str>, usize>,
    routes: Slab<Route>,
    shares: Slab<LaneShare>,
    queues: Slab<Queue<J>>,
    budgets: Slab<Budget>,
    last_budget_serial: u64,
    /// The slab indices of the budgets that apply to all jobs.
    overall_budgets: Box<[usize]>,
    last_ticket_number: u64,
    /// The slab index of the queue of the last push. The queue may no longer exist.
    last_pushed_queue: usize,
    delayed_jobs: Slab<DelayedJob<J>>,
    /// The timers, earliest first. The sequence number orders timers for the same instant.
    timers: BinaryHeap<Reverse<(Time, u64, TimerTarget)>>,
    last_timer_seq: u64,
    /// The number of timers at which obsolete timers are removed.
    timer_sweep_threshold: usize,
    /// The batch deadlines that have not passed, with the slab indices of the batches.
    deadlines: BTreeSet<(Time, usize)>,
    eviction_candidates: VecDeque<EvictionCandidate>,
    /// The jobs that [`Self::take_rejected_jobs`] returns.
    rejected_jobs: Vec<J>,
    /// The jobs that [`Self::take_unreachable_jobs`] returns.
    unreachable_jobs: Vec<J>,
    /// Jobs that [`Self::take_unaffordable_jobs`] returns.
    unaffordable_jobs: Vec<UnaffordableJob<J>>,
    /// The batches whose final round (the last attempts of failed jobs) may be due.
    final_round_candidates: Vec<usize>,
    queued_count: usize,
}

impl<J: Schedulable> Schedule<J> {
    /// `limits` apply over all batches and lanes.
    pub(crate) fn new(limits: GateLimits) -> Self {
        Self {
            gate: Gate::new(limits),
            overdue_batches: VecDeque::new(),
            runnable_batches: VecDeque::new(),
            virtual_time: 0,
            batches: Slab::new(),
            last_batch_serial: 0,
            tenants: Slab::new(),
            lanes: Slab::new(),
            lane_by_key: HashMap::new(),
            routes: Slab::new(),
            shares: Slab::new(),
            queues: Slab::new(),
            budgets: Slab::new(),
            last_budget_serial: 0,
            overall_budgets: Box::default(),
            last_ticket_number: 0,
            last_pushed_queue: usize::MAX,
            delayed_jobs: Slab::new(),
            timers: BinaryHeap::new(),
            last_timer_seq: 0,
            timer_sweep_threshold: 0,
            deadlines: BTreeSet::new(),
            eviction_candidates: VecDeque::new(),
            rejected_jobs: Vec::new(),
            unreachable_jobs: Vec::new(),
            unaffordable_jobs: Vec::new(),
            final_round_candidates: Vec::new(),
            queued_count: 0,
        }
    }

    pub(crate) fn add_batch(&mut self, limits: BatchLimits) -> BatchId {
        self.last_batch_serial += 1;
        let batch_serial = self.last_batch_serial;
        let index = self.batches.insert(Batch::new(batch_serial, limits));
        self.deadlines
            .extend(limits.deadline.map(|deadline| (deadline, index)));
        BatchId {
            index,
            batch_serial,
        }
    }

    /// Starts the next job that may start now, or returns when to call again.
    ///
    /// After each call, the caller takes the jobs that will never start with
    /// [`Self::take_rejected_jobs`], [`Self::take_unreachable_jobs`] and
    /// [`Self::take_unaffordable_jobs`].
    pub(crate) fn start_next_job(&mut self, now: Time) -> StartDecision<J> {
        self.fire_due_timers_and_deadlines(now);
        self.begin_due_final_rounds();
        while self.has_runnable_batch() {
            match self.gate.check_admission(now) {
                Admission::Granted => {}
                Admission::RefusedUntilEvent => break,
                Admission::RefusedUntil(at) => {
                    self.reject_queued_jobs_of_batches_ending_by(at);
                    return self.decision_without_start(Some(at));
                }
                Admission::RefusedUntilEventOrInstant(at) => {
                    return self.decision_without_start(Some(at));
                }
            }
            let Some(batch) = self.pop_runnable_batch() else {
                break;
            };
            if let Some(tenant) = self.batches[batch].tenant {
                match self.tenants[tenant].gate.check_admission(now) {
                    Admission::Granted => {}
                    refusal => {
                        self.park_or_reject_batch_at_tenant(tenant, batch, refusal);
                        continue;
                    }
                }
            }
            match self.batches[batch].gate.check_admission(now) {
                Admission::Granted => {}
                refusal => {
                    self.park_or_reject_batch(batch, refusal);
                    self.forward_wakeup_of_tenant(batch);
                    continue;
                }
            }
            let started = self.try_start_job_of_batch(batch, now);
            let checked = &mut self.batches[batch];
            if checked.run_queue.is_empty() {
                checked.run_state = RunState::Idle;
            } else {
                self.runnable_batches.push_back(batch);
            }
            self.forward_wakeup_of_tenant(batch);
            if let Some((slot, job)) = started {
                return StartDecision::Start(slot, job);
            }
            self.begin_due_final_rounds();
        }
        self.decision_without_start(None)
    }

    /// Takes a slot back, so that another job may start.
    ///
    /// To start the same job again, the caller [requeues](Self::requeue) the job before this call.
    /// Costs that are not [settled](Self::settle_costs) remain the estimate.
    pub(crate) fn settle(&mut self, slot: Slot) {
        let Slot {
            batch_id: BatchId { index: batch, .. },
            lane,
            queue,
            is_scout,
            start_seq,
            probe_id,
        } = slot;
        self.gate.record_end();
        if let Some(tenant) = self.batches[batch].tenant
            && self.tenants[tenant].gate.record_end()
        {
            self.wake_next_batch_of_tenant(tenant);
        }
        if self.batches[batch].gate.record_end() {
            self.unpark_batch(batch);
        }
        self.add_final_round_candidate_if_due(batch);
        let settled = &mut self.queues[queue];
        let (share, route) = (settled.share, settled.route);
        let has_queue_opened = settled.concurrency_limit.record_end();
        if settled.budgets.is_some() {
            self.remove_charge_of_settled_start(queue, start_seq);
        }
        if is_scout {
            self.routes[route].scout_gate.end_wait_for_scout();
            self.batches[batch].scout_alone_until = Time::default();
        }
        self.routes[route]
            .breaker
            .permit_new_probe_if_undecided(probe_id);
        if self.routes[route].concurrency_limit.record_end() || is_scout || probe_id.is_some() {
            self.wake_next_queue_of_lot(ParkingLotId::Route(route));
        }
        if self.routes[route].unavailable_until().is_some() {
            self.move_jobs_ending_before_probe_to_unreachable(route);
        }
        if self.lanes[lane].gate.record_end() {
            self.wake_next_queue_of_lot(ParkingLotId::Lane(lane));
        }
        if self.shares[share].gate.record_end() {
            self.wake_next_queue_of_lot(ParkingLotId::Share(share));
        }
        if has_queue_opened {
            self.unpark_queue_from_own_limit(queue);
        }
        if self.batches[batch].is_removed {
            self.finish_batch_removal_after_settle(batch, queue);
        } else {
            self.add_eviction_candidate_if_idle(queue);
        }
    }

    /// Whether [`Self::take_rejected_jobs`], [`Self::take_unreachable_jobs`] or
    /// [`Self::take_unaffordable_jobs`] returns a job.
    #[inline]
    pub(crate) fn has_jobs_that_never_start(&self) -> bool {
        !self.rejected_jobs.is_empty()
            || !self.unreachable_jobs.is_empty()
            || !self.unaffordable_jobs.is_empty()
    }

    /// Takes the jobs that can no longer start, because their batch has ended or they were
    /// abandoned.
    pub(crate) fn take_rejected_jobs(&mut self) -> Vec<J> {
        std::mem::take(&mut self.rejected_jobs)
    }

    /// Takes the jobs that ended because the circuit breaker of their route rejects queued jobs.
    pub(crate) fn take_unreachable_jobs(&mut self) -> Vec<J> {
        std::mem::take(&mut self.unreachable_jobs)
    }

    /// Takes the jobs that ended because a budget can never cover their costs.
    pub(crate) fn take_unaffordable_jobs(&mut self) -> Vec<UnaffordableJob<J>> {
        std::mem::take(&mut self.unaffordable_jobs)
    }

    /// The number of jobs in the schedule that are not in flight.
    pub(crate) fn queued_count(&self) -> usize {
        self.queued_count
    }

    /// Whether the batch has a free slot and queued jobs, but the hosts of these jobs admit no
    /// start.
    ///
    /// Returns false while other requests wait for a scout of the batch (the first request to an
    /// origin whose protocol is unknown), because they are likely to start soon.
    pub(crate) fn is_batch_blocked_only_by_hosts(&self, batch: BatchId, now: Time) -> bool {
        self.find_live_batch(batch).is_some_and(|batch| {
            batch.run_state == RunState::Idle
                && batch.queued_count > 0
                && batch.scout_alone_until <= now
                && !batch.gate.is_limit_reached()
                && !batch.gate.has_holds()
                && !self
                    .tenant_of(batch)
                    .is_some_and(|tenant| tenant.gate.is_limit_reached())
                && !self.gate.is_limit_reached()
                && !self.has_queue_parked_at_budget_of_batch(batch)
        })
    }

    fn has_runnable_batch(&self) -> bool {
        !self.overdue_batches.is_empty() || !self.runnable_batches.is_empty()
    }

    /// Removes the batch whose turn it is.
    fn pop_runnable_batch(&mut self) -> Option<usize> {
        let overdue = self.overdue_batches.pop_front();
        overdue.or_else(|| self.runnable_batches.pop_front())
    }

    /// Returns the decision if nothing may start now. If `at` is set, the caller must call again at
    /// `at` or earlier.
    fn decision_without_start(&self, at: Option<Time>) -> StartDecision<J> {
        if self.queued_count == 0 {
            return StartDecision::WaitForChange;
        }
        at.into_iter()
            .chain(self.next_timer_or_deadline())
            .min()
            .map_or(StartDecision::WaitForChange, StartDecision::WaitUntil)
    }
}
