//! What the schedule keeps of a batch, of a lane, and of the jobs that one has in the other.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use super::priority::{ReadyJobs, RunQueue, RunQueueKey};
use super::timer::EarliestTimer;
use super::{
    CircuitBreaker, Gate, GateLimits, LaneLimits, PriorityLevel, RetryBudgetState, Schedulable,
    Schedule, Time,
};

/// Where a queue or a batch is while it is not being looked at.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(super) enum RunState {
    /// Nothing is ready in it.
    Idle,
    /// Among those to be looked at: a batch in the ring, a queue in its batch's ring or among its woken.
    Runnable,
    /// On its own gate, which is closed.
    Parked,
    /// In the line of its lane, whose gate is closed.
    ParkedOnLane,
}

pub(super) struct Batch {
    /// Tells this batch from those that had its number before.
    pub(super) serial: u64,
    pub(super) gate: Gate,
    pub(super) per_lane: GateLimits,
    pub(super) deadline: Option<Time>,
    /// Until then the last scout of it that went out is alone.
    pub(super) scouting_until: Time,
    /// Takes nothing more; only its slots in flight keep it.
    pub(super) removed: bool,
    /// Takes nothing more, but is still read.
    pub(super) closed: bool,
    /// The keys of the lanes that it takes nothing more for.
    pub(super) closed_lanes: BTreeSet<Box<str>>,
    pub(super) place: RunState,
    pub(super) turns: RunQueue,
    /// From lane to queue.
    pub(super) queues: HashMap<usize, usize, BuildHasherDefault<IndexHasher>>,
    /// Jobs that are not in flight.
    pub(super) queued: usize,
    /// Jobs that lost their reader since the last were taken out.
    pub(super) abandoned: usize,
    /// Those of the back-offs that wait for the end of it.
    pub(super) last: Vec<usize>,
    /// Whether more is to come.
    pub(super) more: bool,
    pub(super) alarm: EarliestTimer,
}

pub(super) struct Lane {
    pub(super) key: Arc<str>,
    pub(super) gate: Gate,
    /// How many have started so far.
    pub(super) starts: u64,
    pub(super) breaker: CircuitBreaker,
    pub(super) budget: RetryBudgetState,
    /// The line before a closed gate.
    pub(super) parked: VecDeque<usize>,
    pub(super) queues: usize,
    /// Whether it is in the list of those that may be forgotten.
    pub(super) resting: bool,
    pub(super) alarm: EarliestTimer,
}

pub(super) struct Queue<J> {
    pub(super) batch: usize,
    pub(super) lane: usize,
    pub(super) gate: Gate,
    pub(super) place: RunState,
    /// Its turn among those of its batch, while it has one.
    pub(super) spot: RunQueueKey,
    /// The spots it has a place at, stale ones included.
    pub(super) spots: u8,
    pub(super) ready: ReadyJobs<J>,
    /// Jobs in their back-off.
    pub(super) backing_off: usize,
    /// How many more may start before it is the turn of others.
    pub(super) turns: usize,
    /// Whether it is in the list of those that may be forgotten.
    pub(super) resting: bool,
    pub(super) alarm: EarliestTimer,
}

impl Batch {
    /// Whether all that is left of it waits for its end.
    pub(super) fn is_at_its_end(&self) -> bool {
        !self.last.is_empty()
            && !self.more
            && self.queued == self.last.len()
            && self.gate.in_flight() == 0
    }
}

impl Lane {
    /// Whether forgetting it and making it anew would change nothing of worth.
    pub(super) fn is_at_rest(&self, now: Time) -> bool {
        self.gate.is_at_rest(now) && self.breaker.is_at_rest(now) && self.budget.is_at_rest(now)
    }
}

impl<J> Queue<J> {
    pub(super) fn is_in_use(&self) -> bool {
        !self.ready.is_empty() || self.backing_off > 0 || self.gate.in_flight() > 0
    }
}

impl<J: Schedulable> Schedule<J> {
    pub(super) fn queue_for<L: Into<LaneLimits>>(
        &mut self,
        batch: usize,
        key: &str,
        limits: impl FnOnce() -> L,
        now: Time,
    ) -> usize {
        // Mostly it is that of the job before, and to compare two keys costs less than to hash one.
        if let Some(latest) = self.queues.get(self.latest_queue)
            && latest.batch == batch
            && *self.lanes[latest.lane].key == *key
        {
            return self.latest_queue;
        }
        self.latest_queue = self.other_queue_for(batch, key, limits, now);
        self.latest_queue
    }

    fn other_queue_for<L: Into<LaneLimits>>(
        &mut self,
        batch: usize,
        key: &str,
        limits: impl FnOnce() -> L,
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
            None => self.add_lane(key, limits().into()),
        };
        self.add_queue(batch, lane)
    }

    fn add_lane(&mut self, key: &str, limits: LaneLimits) -> usize {
        let key: Arc<str> = key.into();
        let lane = self.lanes.insert(Lane {
            key: key.clone(),
            gate: Gate::new(limits.gate),
            starts: 0,
            breaker: CircuitBreaker::new(limits.breaker),
            budget: RetryBudgetState::new(limits.retry_budget),
            parked: VecDeque::new(),
            queues: 0,
            resting: false,
            alarm: EarliestTimer::default(),
        });
        self.lane_of.insert(key, lane);
        lane
    }

    fn add_queue(&mut self, batch: usize, lane: usize) -> usize {
        let queue = self.queues.insert(Queue {
            batch,
            lane,
            gate: Gate::new(self.batches[batch].per_lane),
            place: RunState::Idle,
            spot: RunQueueKey {
                level: PriorityLevel::Normal,
                called: false,
            },
            spots: 0,
            ready: ReadyJobs::new(),
            backing_off: 0,
            turns: 0,
            resting: false,
            alarm: EarliestTimer::default(),
        });
        self.batches[batch].queues.insert(lane, queue);
        self.lanes[lane].queues += 1;
        queue
    }
}

pub(super) struct DelayedJob<J> {
    pub(super) queue: usize,
    pub(super) at: Time,
    pub(super) job: J,
}

/// Hashes a slab's index by one multiplication. The indices are ours, so nobody can choose them to collide.
#[derive(Default)]
pub(super) struct IndexHasher(u64);

impl Hasher for IndexHasher {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_usize(usize::from(byte));
        }
    }

    fn write_usize(&mut self, index: usize) {
        // The table takes its place from the low bits and its tag from the high ones: the fold gives both of them.
        self.0 = (self.0 ^ index as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 ^= self.0 >> 32;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
