//! The state of a batch, of a lane, of a batch's share of a lane, and of a queue.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::concurrency::ConcurrencyLimit;
use super::gate::{Gate, GateLimits};
use super::index_hash::SlabIndexMap;
use super::limits::{BatchLimits, LaneLimits};
use super::parking::{ParkingLot, ParkingLotId};
use super::priority::{PriorityLevel, ReadyJobs};
use super::queue_budgets::QueueBudgets;
use super::retry_budget::RetryBudgetState;
use super::route::RouteMap;
use super::run_queue::{RunQueue, RunQueueRank};
use super::run_state::RunState;
use super::time::Time;
use super::timer::EarliestTimer;

/// The state of one batch.
pub(super) struct Batch {
    /// Distinguishes the batch from an earlier batch with the same slab index.
    pub(super) batch_serial: u64,
    pub(super) gate: Gate,
    /// The slab index of the batch's tenant.
    pub(super) tenant: Option<usize>,
    /// Whether the tenant has woken this batch, and the batch has not been checked since.
    pub(super) is_woken_by_tenant: bool,
    /// The limits in each lane, on the requests of this batch only.
    pub(super) per_lane_limits: GateLimits,
    pub(super) deadline: Option<Time>,
    /// The instant until which other requests wait for the last scout of the batch. A scout is the
    /// first request to an origin whose protocol is unknown.
    pub(super) scout_alone_until: Time,
    /// Whether the batch has been removed. A removed batch is kept until its last slot is settled.
    pub(super) is_removed: bool,
    /// Whether the batch accepts no more jobs. Jobs in flight still deliver their results.
    pub(super) is_closed: bool,
    /// The keys of the lanes for which the batch accepts no more jobs.
    pub(super) closed_lane_keys: BTreeSet<Box<str>>,
    pub(super) run_state: RunState,
    /// The virtual time of the next turn of the batch.
    pub(super) next_turn_virtual_time: u64,
    pub(super) run_queue: RunQueue,
    /// The slab indices of the batch's shares of lanes, by the slab index of the lane.
    pub(super) share_by_lane: SlabIndexMap<usize>,
    /// The number of ready and delayed jobs of the batch.
    pub(super) queued_count: usize,
    /// The number of queued jobs that were abandoned since the last removal of abandoned jobs.
    pub(super) abandoned_count_since_removal: usize,
    /// The slab indices of the delayed jobs that wait for the final round.
    pub(super) final_round_jobs: Vec<usize>,
    /// Whether the caller may push more jobs. The final round does not begin while this is true.
    pub(super) expects_more_jobs: bool,
    pub(super) earliest_timer: EarliestTimer,
    /// The slab indices of the budgets of this batch.
    pub(super) budgets: Box<[usize]>,
}

/// The state of one lane: usually a host, or else the requests that share a `limit_by` key.
pub(super) struct Lane {
    pub(super) lane_key: Arc<str>,
    pub(super) gate: Gate,
    /// The number of starts in this lane so far.
    pub(super) start_count: u64,
    pub(super) retry_budget: RetryBudgetState,
    pub(super) routes: RouteMap,
    /// The slab indices of the budgets of this lane.
    pub(super) budgets: Box<[usize]>,
    /// The queues that the gate of this lane has refused, at most one per batch.
    pub(super) parking_lot: ParkingLot,
    /// Whether the schedule's list of eviction candidates contains this lane.
    pub(super) is_eviction_candidate: bool,
}

/// The part of one lane that one batch uses.
pub(super) struct LaneShare {
    pub(super) gate: Gate,
    /// The queues of this share, by their routes.
    pub(super) queues: RouteMap,
    /// The queues that this share has refused, and the queues that wait for
    /// [`Self::queue_with_lane_turn`].
    pub(super) parking_lot: ParkingLot,
    /// The queue that is parked on the lane, or that the lane has woken. The batch's other queues
    /// in the lane wait for it, so that a batch has one turn per lane, however many routes it uses.
    pub(super) queue_with_lane_turn: Option<usize>,
}

/// The jobs of one batch for one route of a lane.
pub(super) struct Queue<J> {
    pub(super) batch: usize,
    pub(super) lane: usize,
    pub(super) share: usize,
    pub(super) route: usize,
    /// The adaptive concurrency limit of the batch on this route. Unlimited if the batch sets no
    /// adaptive limit.
    pub(super) concurrency_limit: ConcurrencyLimit,
    pub(super) run_state: RunState,
    /// The parking lot that has woken this queue. `None` if the queue is not runnable because of a
    /// wake-up.
    pub(super) woken_by_lot: Option<ParkingLotId>,
    /// The rank of the valid run-queue entry of this queue. Meaningful only while the queue is
    /// runnable.
    pub(super) run_queue_rank: RunQueueRank,
    /// The `RunQueueRank::rank_bit`s of all run-queue entries of this queue, valid or stale.
    pub(super) run_queue_rank_bits: u8,
    pub(super) ready_jobs: ReadyJobs<J>,
    /// `None` if no budget applies to the jobs of this queue.
    pub(super) budgets: Option<Box<QueueBudgets>>,
    /// The number of delayed jobs of this queue.
    pub(super) delayed_count: usize,
    /// The number of jobs of this queue that may start before other queues take their turns.
    pub(super) turns_left: usize,
    /// Whether the schedule's list of eviction candidates contains this queue.
    pub(super) is_eviction_candidate: bool,
}

/// A job that is in a backoff or waits for the final round.
pub(super) struct DelayedJob<J> {
    pub(super) queue: usize,
    /// The instant at which the backoff ends. [`Time::MAX`] if the job waits for the final round.
    pub(super) not_before: Time,
    pub(super) job: J,
}

impl Batch {
    pub(super) fn new(batch_serial: u64, limits: BatchLimits) -> Self {
        Self {
            batch_serial,
            gate: Gate::new(limits.overall_limits),
            tenant: None,
            is_woken_by_tenant: false,
            per_lane_limits: limits.per_lane_limits,
            deadline: limits.deadline,
            scout_alone_until: Time::default(),
            is_removed: false,
            is_closed: false,
            closed_lane_keys: BTreeSet::new(),
            run_state: RunState::Idle,
            next_turn_virtual_time: 0,
            run_queue: RunQueue::default(),
            share_by_lane: SlabIndexMap::default(),
            queued_count: 0,
            abandoned_count_since_removal: 0,
            final_round_jobs: Vec::new(),
            expects_more_jobs: false,
            earliest_timer: EarliestTimer::default(),
            budgets: Box::default(),
        }
    }

    /// Whether the gate of the batch or of its tenant has refused a start and has not opened since.
    pub(super) fn is_parked(&self) -> bool {
        matches!(
            self.run_state,
            RunState::ParkedOnOwnLimit | RunState::ParkedAtTenant
        )
    }

    /// Whether the batch has jobs that wait for the final round, and no other jobs queued, in
    /// flight or expected.
    pub(super) fn is_final_round_due(&self) -> bool {
        !self.final_round_jobs.is_empty()
            && !self.expects_more_jobs
            && self.queued_count == self.final_round_jobs.len()
            && self.gate.in_flight() == 0
    }
}

impl Lane {
    pub(super) fn new(key: Arc<str>, limits: &LaneLimits) -> Self {
        Self {
            lane_key: key,
            gate: Gate::new(limits.gate_limits),
            start_count: 0,
            retry_budget: RetryBudgetState::new(limits.retry_budget),
            routes: RouteMap::default(),
            budgets: Box::default(),
            parking_lot: ParkingLot::default(),
            is_eviction_candidate: false,
        }
    }

    /// Whether the lane may be removed: a new lane would grant the same starts, or the learned
    /// state is out of date.
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

    /// Whether one queue of the batch in the lane may be removed. The last queue may be removed
    /// only if the share (the batch's part of the lane) may be removed, too.
    pub(super) fn is_one_queue_evictable(&self, now: Time) -> bool {
        self.queues.len() > 1 || self.gate.is_evictable(now)
    }
}

impl<J> Queue<J> {
    /// `limits` are the limits of the batch in the lane.
    pub(super) fn new(
        batch: usize,
        lane: usize,
        share: usize,
        route: usize,
        limits: GateLimits,
        budgets: Option<Box<QueueBudgets>>,
    ) -> Self {
        Self {
            batch,
            lane,
            share,
            route,
            concurrency_limit: limits.adaptive_limit_or_unlimited(),
            run_state: RunState::Idle,
            woken_by_lot: None,
            run_queue_rank: RunQueueRank {
                level: PriorityLevel::Normal,
                is_woken: false,
            },
            run_queue_rank_bits: 0,
            ready_jobs: ReadyJobs::new(),
            budgets,
            delayed_count: 0,
            turns_left: 0,
            is_eviction_candidate: false,
        }
    }

    /// Whether the queue has a job, queued or in flight.
    pub(super) fn has_queued_or_in_flight_job(&self) -> bool {
        !self.ready_jobs.is_empty()
            || self.delayed_count > 0
            || self.concurrency_limit.in_flight() > 0
    }
}
