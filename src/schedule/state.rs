//! The state of a batch, of a lane, of a share, and of a queue.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::concurrency::ConcurrencyLimit;
use super::gate::{Gate, GateLimits};
use super::index_hash::IndexMap;
use super::limits::{BatchLimits, LaneLimits};
use super::parking::{ParkingLot, ParkingLotId};
use super::priority::{PriorityLevel, ReadyJobs};
use super::retry_budget::RetryBudgetState;
use super::route::RouteMap;
use super::run_queue::{RunQueue, RunQueueRank};
use super::run_state::RunState;
use super::time::Time;
use super::timer::EarliestTimer;

/// The state of one batch.
pub(super) struct Batch {
    /// Distinguishes the batch from an earlier batch with the same slab index.
    pub(super) serial: u64,
    pub(super) gate: Gate,
    /// The limits of each lane, counting only the requests of this batch.
    pub(super) per_lane_limits: GateLimits,
    pub(super) deadline: Option<Time>,
    /// The instant until which the last scout of the batch is alone on its route. A scout is the
    /// first request to an origin whose protocol is unknown.
    pub(super) scout_deadline: Time,
    /// Whether the batch has been removed. It is kept only until its last slot is settled.
    pub(super) is_removed: bool,
    /// Whether the batch accepts no more jobs, although jobs in flight still deliver their results.
    pub(super) is_closed: bool,
    /// The keys of the lanes for which the batch accepts no more jobs.
    pub(super) closed_lane_keys: BTreeSet<Box<str>>,
    pub(super) run_state: RunState,
    /// The virtual time of the batch's next turn, if the batch stays runnable.
    pub(super) next_turn_virtual_time: u64,
    pub(super) run_queue: RunQueue,
    /// The slab index of the batch's share of each lane, by the slab index of the lane.
    pub(super) share_by_lane: IndexMap<usize>,
    /// The number of jobs of the batch that are not in flight, ready or delayed.
    pub(super) queued_count: usize,
    /// The number of queued jobs abandoned since abandoned jobs were last removed.
    pub(super) abandoned_count: usize,
    /// The slab indices of the delayed jobs that wait for the final round.
    pub(super) final_round_jobs: Vec<usize>,
    /// Whether the caller may push more jobs. The final round does not begin before.
    pub(super) expects_more_jobs: bool,
    pub(super) earliest_timer: EarliestTimer,
}

/// The state of one lane: usually a host, or else the requests that share a `limit_by` key.
pub(super) struct Lane {
    pub(super) key: Arc<str>,
    pub(super) gate: Gate,
    /// The number of starts in this lane so far.
    pub(super) start_count: u64,
    pub(super) retry_budget: RetryBudgetState,
    pub(super) routes: RouteMap,
    /// The queues that the gate of this lane has refused, at most one of each share.
    pub(super) parking_lot: ParkingLot,
    /// Whether the schedule's list of eviction candidates contains this lane.
    pub(super) is_eviction_candidate: bool,
}

/// One batch's share of one lane.
pub(super) struct LaneShare {
    pub(super) gate: Gate,
    /// The queues of this share, by their routes.
    pub(super) queues: RouteMap,
    /// The queues that this share has refused, and those that wait behind
    /// [`Self::queue_with_lane_turn`].
    pub(super) parking_lot: ParkingLot,
    /// The queue that is parked on the lane, or that the lane has woken. The other queues of the
    /// share wait behind it, so that a batch has one turn per lane, however many routes it uses.
    pub(super) queue_with_lane_turn: Option<usize>,
}

/// The jobs of one batch for one route of a lane.
pub(super) struct Queue<J> {
    pub(super) batch: usize,
    pub(super) lane: usize,
    pub(super) share: usize,
    pub(super) route: usize,
    /// The adaptive limit of the share, as learned on this route. Otherwise unlimited.
    pub(super) concurrency_limit: ConcurrencyLimit,
    pub(super) run_state: RunState,
    /// The lot that has woken this queue, while it is runnable for that reason.
    pub(super) woken_by: Option<ParkingLotId>,
    /// The rank of this queue's valid entry in the run queue. Meaningful only while the queue is
    /// runnable.
    pub(super) run_queue_rank: RunQueueRank,
    /// The `RunQueueRank::bit`s of this queue's entries in the run queue, stale or valid.
    pub(super) run_queue_rank_bits: u8,
    pub(super) ready_jobs: ReadyJobs<J>,
    /// The number of delayed jobs of this queue.
    pub(super) delayed_count: usize,
    /// How many more jobs of this queue may start before the other queues take their turns.
    pub(super) turns_left: usize,
    /// Whether the schedule's list of eviction candidates contains this queue.
    pub(super) is_eviction_candidate: bool,
}

/// A job that is in a backoff or waits for the final round.
pub(super) struct DelayedJob<J> {
    pub(super) queue: usize,
    /// The instant at which the backoff ends. [`Time::MAX`] for a job that waits for the final
    /// round.
    pub(super) not_before: Time,
    pub(super) job: J,
}

impl Batch {
    pub(super) fn new(serial: u64, limits: BatchLimits) -> Self {
        Self {
            serial,
            gate: Gate::new(limits.overall_limits),
            per_lane_limits: limits.per_lane_limits,
            deadline: limits.deadline,
            scout_deadline: Time::default(),
            is_removed: false,
            is_closed: false,
            closed_lane_keys: BTreeSet::new(),
            run_state: RunState::Idle,
            next_turn_virtual_time: 0,
            run_queue: RunQueue::default(),
            share_by_lane: IndexMap::default(),
            queued_count: 0,
            abandoned_count: 0,
            final_round_jobs: Vec::new(),
            expects_more_jobs: false,
            earliest_timer: EarliestTimer::default(),
        }
    }

    /// Whether the batch has final-round jobs and no others, queued, in flight or expected.
    pub(super) fn is_final_round_due(&self) -> bool {
        !self.final_round_jobs.is_empty()
            && !self.expects_more_jobs
            && self.queued_count == self.final_round_jobs.len()
            && self.gate.in_flight() == 0
    }
}

impl Lane {
    pub(super) fn new(key: Arc<str>, limits: LaneLimits) -> Self {
        Self {
            key,
            gate: Gate::new(limits.gate_limits),
            start_count: 0,
            retry_budget: RetryBudgetState::new(limits.retry_budget),
            routes: RouteMap::default(),
            parking_lot: ParkingLot::default(),
            is_eviction_candidate: false,
        }
    }

    /// Whether a new lane would behave the same, or the learned state of this lane is out of date.
    pub(super) fn is_evictable(&self, now: Time) -> bool {
        self.gate.is_evictable(now) && self.retry_budget.is_evictable(now)
    }
}

impl LaneShare {
    pub(super) fn new(limits: GateLimits) -> Self {
        Self {
            gate: Gate::new(limits),
            queues: RouteMap::default(),
            parking_lot: ParkingLot::default(),
            queue_with_lane_turn: None,
        }
    }

    /// Whether one queue of this share may be evicted. The share is removed with its last queue.
    pub(super) fn is_evictable_with_a_queue(&self, now: Time) -> bool {
        self.queues.len() > 1 || self.gate.is_evictable(now)
    }
}

impl<J> Queue<J> {
    /// `limits` are those of the share.
    pub(super) fn new(
        batch: usize,
        lane: usize,
        share: usize,
        route: usize,
        limits: GateLimits,
    ) -> Self {
        Self {
            batch,
            lane,
            share,
            route,
            concurrency_limit: limits.adaptive_concurrency_limit(),
            run_state: RunState::Idle,
            woken_by: None,
            run_queue_rank: RunQueueRank {
                level: PriorityLevel::Normal,
                is_woken: false,
            },
            run_queue_rank_bits: 0,
            ready_jobs: ReadyJobs::new(),
            delayed_count: 0,
            turns_left: 0,
            is_eviction_candidate: false,
        }
    }

    /// Whether the queue has a job, queued or in flight.
    pub(super) fn is_in_use(&self) -> bool {
        !self.ready_jobs.is_empty()
            || self.delayed_count > 0
            || self.concurrency_limit.in_flight() > 0
    }
}
