//! How many jobs wait, and why: counted when somebody asks, so that a start costs nothing for it.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::Arc;

use super::state::IndexHasher;
use super::{Batch, BatchId, Queue, RunState, Schedulable, Schedule, Time};

/// What keeps a job from starting.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) enum BlockReason {
    /// So many are in flight already; or it is its turn next.
    Concurrency,
    /// So many were started lately.
    Rate,
    /// It is to be tried again later or at the end of its batch, or its host asked to be left alone.
    Backoff,
    /// Its host cannot be reached.
    Breaker,
    /// Its lane is held until what it needs is there.
    LaneHeld,
    /// Its batch is held.
    BatchPaused,
}

impl BlockReason {
    const COUNT: usize = 6;
}

/// What a lane has to do yet.
#[derive(Clone, Debug)]
pub(crate) struct LaneLoad {
    pub(crate) lane: Arc<str>,
    pub(crate) queued: usize,
    pub(crate) in_flight: usize,
    /// What keeps the next of them; those in a back-off aside, if there are others.
    pub(crate) block_reason: BlockReason,
}

/// What waits and what is in flight.
#[derive(Debug, Default)]
pub(crate) struct ScheduleStats {
    pub(crate) in_flight: usize,
    queued_by_reason: [usize; BlockReason::COUNT],
    /// The lanes with something waiting that have the most to do, the first of them first.
    pub(crate) busiest_lanes: Vec<LaneLoad>,
}

impl ScheduleStats {
    pub(crate) fn queued_for(&self, why: BlockReason) -> usize {
        self.queued_by_reason[why as usize]
    }

    pub(crate) fn total_queued(&self) -> usize {
        self.queued_by_reason.iter().sum()
    }
}

/// So many lanes are named.
const NAMED: usize = 5;

/// A lane's number and its load.
type Counted = (usize, usize, usize, BlockReason);

impl<J: Schedulable> Schedule<J> {
    /// Of one batch. Costs a look at each lane it has.
    pub(crate) fn batch_stats(&self, batch: BatchId, now: Time) -> ScheduleStats {
        let mut census = ScheduleStats::default();
        let Some(of) = self.live(batch) else {
            return census;
        };
        census.in_flight = of.gate.in_flight();
        let mut longest = Vec::new();
        let mut count = |queue| rank(&mut longest, self.count_queue(of, queue, now, &mut census));
        if of.queues.len() > self.queues.len() / 4 {
            // In the order in which they lie, which is several times faster.
            let queues = self.queues.iter().map(|(_, queue)| queue);
            queues
                .filter(|queue| queue.batch == batch.index)
                .for_each(count);
        } else {
            let queues = of.queues.values();
            queues.for_each(|&queue| count(&self.queues[queue]));
        }
        census.busiest_lanes = self.named_loads(longest);
        census
    }

    /// Of all there is. Costs a look at each lane of each batch.
    pub(crate) fn stats(&self, now: Time) -> ScheduleStats {
        let mut census = ScheduleStats {
            in_flight: self.gate.in_flight(),
            ..ScheduleStats::default()
        };
        let mut loads: HashMap<usize, Counted, BuildHasherDefault<IndexHasher>> =
            HashMap::default();
        for (_, queue) in &self.queues {
            let batch = &self.batches[queue.batch];
            if batch.removed {
                continue;
            }
            let load = self.count_queue(batch, queue, now, &mut census);
            let sum = loads.entry(load.0).or_insert((load.0, 0, 0, load.3));
            if sum.1 == 0 {
                sum.3 = load.3;
            }
            sum.1 += load.1;
            sum.2 += load.2;
        }
        let mut longest = Vec::new();
        loads
            .into_values()
            .for_each(|load| rank(&mut longest, load));
        census.busiest_lanes = self.named_loads(longest);
        census
    }

    fn count_queue(
        &self,
        batch: &Batch,
        queue: &Queue<J>,
        now: Time,
        census: &mut ScheduleStats,
    ) -> Counted {
        let ready = queue.ready.len();
        let mut why = BlockReason::Backoff;
        census.queued_by_reason[why as usize] += queue.backing_off;
        if ready > 0 {
            why = self.why(batch, queue, now);
            census.queued_by_reason[why as usize] += ready;
        }
        let waiting = ready + queue.backing_off;
        (queue.lane, waiting, queue.gate.in_flight(), why)
    }

    /// What keeps a queue from starting: the gate it is parked on, or what it has not come past yet.
    fn why(&self, batch: &Batch, queue: &Queue<J>, now: Time) -> BlockReason {
        if batch.gate.is_held() {
            return BlockReason::BatchPaused;
        }
        let why = match queue.place {
            RunState::ParkedOnLane => {
                let lane = &self.lanes[queue.lane];
                let is_shut = lane.breaker.is_shut(now);
                is_shut
                    .then_some(BlockReason::Breaker)
                    .or_else(|| lane.gate.why(now))
            }
            RunState::Parked => queue.gate.why(now),
            RunState::Runnable | RunState::Idle => {
                batch.gate.why(now).or_else(|| self.gate.why(now))
            }
        };
        why.unwrap_or(BlockReason::Concurrency)
    }

    fn named_loads(&self, loads: Vec<Counted>) -> Vec<LaneLoad> {
        let named = |(lane, waiting, in_flight, why): Counted| LaneLoad {
            lane: Arc::clone(&self.lanes[lane].key),
            queued: waiting,
            in_flight,
            block_reason: why,
        };
        loads.into_iter().map(named).collect()
    }
}

/// Keeps the few with the most to do in their order, of those that have something waiting.
fn rank(longest: &mut Vec<Counted>, load: Counted) {
    if load.1 == 0 {
        return;
    }
    let goes_before = |other: &Counted| (other.1 + other.2, load.0) >= (load.1 + load.2, other.0);
    let place = longest.partition_point(goes_before);
    if place < NAMED {
        longest.truncate(NAMED - 1);
        longest.insert(place, load);
    }
}
