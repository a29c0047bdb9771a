//! The state of a batch, of a lane, and of a queue.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use super::breaker::CircuitBreaker;
use super::gate::{Gate, GateLimits};
use super::index_hash::IndexMap;
use super::limits::{BatchLimits, LaneLimits};
use super::priority::{PriorityLevel, ReadyJobs};
use super::retry_budget::RetryBudgetState;
use super::run_queue::{RunQueue, RunQueueKey};
use super::run_state::RunState;
use super::time::Time;
use super::timer::EarliestTimer;

/// The state of one batch.
pub(super) struct Batch {
    /// Tells this batch from an earlier one with the same index.
    pub(super) serial: u64,
    pub(super) gate: Gate,
    /// The limits of its queues.
    pub(super) per_lane: GateLimits,
    pub(super) deadline: Option<Time>,
    /// The instant until which the last started scout of this batch is alone.
    pub(super) scout_deadline: Time,
    /// The batch accepts no jobs and is kept only until its last slot is settled.
    pub(super) is_removed: bool,
    /// The batch accepts no jobs, but its results are still taken.
    pub(super) is_closed: bool,
    /// The keys of the lanes for which the batch accepts no jobs.
    pub(super) closed_lanes: BTreeSet<Box<str>>,
    pub(super) run_state: RunState,
    pub(super) run_queue: RunQueue,
    /// The queues of this batch, by their lanes.
    pub(super) queues: IndexMap<usize>,
    /// The number of jobs of the batch in the schedule, without those in flight.
    pub(super) queued_count: usize,
    /// The number of jobs abandoned since abandoned jobs were last removed.
    pub(super) abandoned_count: usize,
    /// The delayed jobs that wait for the final round, by their slab indices.
    pub(super) final_round_jobs: Vec<usize>,
    /// Whether the caller may push more jobs. Delays the final round.
    pub(super) expects_more: bool,
    pub(super) timer: EarliestTimer,
}

/// The state of one lane: usually a host, or else the requests that share a `limit_by` key.
pub(super) struct Lane {
    pub(super) key: Arc<str>,
    pub(super) gate: Gate,
    /// The number of starts in this lane so far.
    pub(super) start_count: u64,
    pub(super) breaker: CircuitBreaker,
    pub(super) retry_budget: RetryBudgetState,
    /// The queues parked on this lane, in the order in which they are woken.
    pub(super) parked_queues: VecDeque<usize>,
    /// The number of queues of this lane, over all batches.
    pub(super) queue_count: usize,
    /// Whether it is in the list of eviction candidates.
    pub(super) is_eviction_candidate: bool,
    pub(super) timer: EarliestTimer,
}

/// The jobs of one batch for one lane.
pub(super) struct Queue<J> {
    pub(super) batch: usize,
    pub(super) lane: usize,
    pub(super) gate: Gate,
    pub(super) run_state: RunState,
    /// The key of the valid run queue entry of this queue, while it is runnable.
    pub(super) run_queue_key: RunQueueKey,
    /// The bits of all keys under which the run queue has an entry of this queue, stale or valid.
    pub(super) run_queue_entries: u8,
    pub(super) ready: ReadyJobs<J>,
    /// The number of delayed jobs of this queue.
    pub(super) delayed_count: usize,
    /// How many more jobs of this queue may start before the other queues take their turns.
    pub(super) turns_left: usize,
    /// Whether it is in the list of eviction candidates.
    pub(super) is_eviction_candidate: bool,
    pub(super) timer: EarliestTimer,
}

/// A job that may not start yet: in a backoff, or until the final round.
pub(super) struct DelayedJob<J> {
    pub(super) queue: usize,
    /// When the backoff ends. [`Time::MAX`] for a job that waits for the final round.
    pub(super) not_before: Time,
    pub(super) job: J,
}

impl Batch {
    pub(super) fn new(serial: u64, limits: BatchLimits) -> Self {
        Self {
            serial,
            gate: Gate::new(limits.overall),
            per_lane: limits.per_lane,
            deadline: limits.deadline,
            scout_deadline: Time::default(),
            is_removed: false,
            is_closed: false,
            closed_lanes: BTreeSet::new(),
            run_state: RunState::Idle,
            run_queue: RunQueue::default(),
            queues: IndexMap::default(),
            queued_count: 0,
            abandoned_count: 0,
            final_round_jobs: Vec::new(),
            expects_more: false,
            timer: EarliestTimer::default(),
        }
    }

    /// Whether nothing of this batch is left but its final round.
    pub(super) fn is_final_round_due(&self) -> bool {
        !self.final_round_jobs.is_empty()
            && !self.expects_more
            && self.queued_count == self.final_round_jobs.len()
            && self.gate.in_flight() == 0
    }
}

impl Lane {
    pub(super) fn new(key: Arc<str>, limits: LaneLimits) -> Self {
        Self {
            key,
            gate: Gate::new(limits.gate),
            start_count: 0,
            breaker: CircuitBreaker::new(limits.breaker),
            retry_budget: RetryBudgetState::new(limits.retry_budget),
            parked_queues: VecDeque::new(),
            queue_count: 0,
            is_eviction_candidate: false,
            timer: EarliestTimer::default(),
        }
    }

    /// Whether a new lane would behave the same, or what was learned is out of date.
    pub(super) fn is_evictable(&self, now: Time) -> bool {
        self.gate.is_evictable(now)
            && self.breaker.is_evictable(now)
            && self.retry_budget.is_evictable(now)
    }
}

impl<J> Queue<J> {
    pub(super) fn new(batch: usize, lane: usize, limits: GateLimits) -> Self {
        Self {
            batch,
            lane,
            gate: Gate::new(limits),
            run_state: RunState::Idle,
            run_queue_key: RunQueueKey {
                level: PriorityLevel::Normal,
                woken_by_lane: false,
            },
            run_queue_entries: 0,
            ready: ReadyJobs::new(),
            delayed_count: 0,
            turns_left: 0,
            is_eviction_candidate: false,
            timer: EarliestTimer::default(),
        }
    }

    /// Whether the queue has a job, queued or in flight.
    pub(super) fn is_in_use(&self) -> bool {
        !self.ready.is_empty() || self.delayed_count > 0 || self.gate.in_flight() > 0
    }
}
