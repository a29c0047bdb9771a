//! Statistics of queued jobs and requests in flight.
//!
//! The statistics are computed when they are requested, so a start costs nothing.

use std::sync::Arc;

use super::block_reason::BlockReason;
use super::index_hash::SlabIndexMap;
use super::parking::ParkingLotId;
use super::run_state::RunState;
use super::state::{Batch, Queue};
use super::{BatchId, Schedulable, Schedule, Time};

/// The maximum length of [`ScheduleStats::busiest_lanes`].
const MAX_BUSIEST_LANES: usize = 5;

/// The load of one lane (usually a host).
#[derive(Clone, Debug)]
pub(crate) struct LaneLoad {
    pub(crate) lane_key: Arc<str>,
    pub(crate) queued_count: usize,
    pub(crate) in_flight_count: usize,
    /// The reason why ready jobs of the lane have not started. [`BlockReason::Backoff`] if the lane
    /// has only delayed jobs.
    pub(crate) block_reason: BlockReason,
    /// The name of the budget that delays the next ready job, for [`BlockReason::Budget`].
    pub(crate) blocking_budget: Option<Arc<str>>,
}

/// Job counts of one batch or of the whole schedule.
#[derive(Debug, Default)]
pub(crate) struct ScheduleStats {
    pub(crate) in_flight_count: usize,
    queued_count_by_reason: [usize; BlockReason::VARIANT_COUNT],
    /// The lanes with queued jobs that have the most jobs, busiest first.
    pub(crate) busiest_lanes: Vec<LaneLoad>,
}

impl ScheduleStats {
    pub(crate) fn queued_count_for_reason(&self, reason: BlockReason) -> usize {
        self.queued_count_by_reason[reason as usize]
    }

    pub(crate) fn total_queued_count(&self) -> usize {
        self.queued_count_by_reason.iter().sum()
    }
}

/// The load of a lane that is identified by its slab index.
#[derive(Copy, Clone, Debug)]
struct IndexedLaneLoad {
    lane_index: usize,
    queued_count: usize,
    in_flight_count: usize,
    block_reason: BlockReason,
    /// The slab index of the budget at which the queue is parked.
    blocking_budget: Option<usize>,
}

impl IndexedLaneLoad {
    fn queued_and_in_flight_count(&self) -> usize {
        self.queued_count + self.in_flight_count
    }
}

impl<J: Schedulable> Schedule<J> {
    /// Returns the statistics of one batch. The cost is proportional to the number of queues of the
    /// batch.
    pub(crate) fn batch_stats(&self, id: BatchId, now: Time) -> ScheduleStats {
        let mut stats = ScheduleStats::default();
        let Some(batch) = self.find_live_batch(id) else {
            return stats;
        };
        stats.in_flight_count = batch.gate.in_flight();
        let mut busiest = Vec::new();
        // The sums of the loads in lanes with several routes, which have several queues.
        let mut sums: SlabIndexMap<IndexedLaneLoad> = SlabIndexMap::default();
        let mut count = |queue: &Queue<J>| {
            let load = self.add_queue_to_stats(batch, queue, now, &mut stats);
            if self.shares[queue.share].queues.len() == 1 {
                insert_into_busiest_lanes(&mut busiest, load);
            } else {
                add_to_lane_sum(&mut sums, load);
            }
        };
        if batch.share_by_lane.len() > self.queues.len() / 4 {
            // If the batch has many of all queues, to visit all queues in memory order is several
            // times faster.
            self.queues
                .iter()
                .map(|(_, queue)| queue)
                .filter(|queue| queue.batch == id.index)
                .for_each(count);
        } else {
            let shares = batch.share_by_lane.values();
            let queues = shares.flat_map(|&share| self.shares[share].queues.indices());
            queues.for_each(|queue| count(&self.queues[queue]));
        }
        sums.into_values()
            .for_each(|load| insert_into_busiest_lanes(&mut busiest, load));
        stats.busiest_lanes = self.resolve_lane_keys(busiest);
        stats
    }

    /// Returns the statistics of all batches together. The cost is proportional to the number of
    /// queues.
    pub(crate) fn overall_stats(&self, now: Time) -> ScheduleStats {
        let mut stats = ScheduleStats {
            in_flight_count: self.gate.in_flight(),
            ..ScheduleStats::default()
        };
        let mut loads: SlabIndexMap<IndexedLaneLoad> = SlabIndexMap::default();
        for (_, queue) in &self.queues {
            let batch = &self.batches[queue.batch];
            if batch.is_removed {
                continue;
            }
            let load = self.add_queue_to_stats(batch, queue, now, &mut stats);
            add_to_lane_sum(&mut loads, load);
        }
        let mut busiest = Vec::new();
        loads
            .into_values()
            .for_each(|load| insert_into_busiest_lanes(&mut busiest, load));
        stats.busiest_lanes = self.resolve_lane_keys(busiest);
        stats
    }

    /// Adds the jobs of a queue to `stats`, and returns the load of the queue.
    fn add_queue_to_stats(
        &self,
        batch: &Batch,
        queue: &Queue<J>,
        now: Time,
        stats: &mut ScheduleStats,
    ) -> IndexedLaneLoad {
        let ready_count = queue.ready_jobs.len();
        let mut block_reason = BlockReason::Backoff;
        stats.queued_count_by_reason[block_reason as usize] += queue.delayed_count;
        if ready_count > 0 {
            block_reason = self.block_reason_of_queue(batch, queue, now);
            stats.queued_count_by_reason[block_reason as usize] += ready_count;
        }
        IndexedLaneLoad {
            lane_index: queue.lane,
            queued_count: ready_count + queue.delayed_count,
            in_flight_count: queue.concurrency_limit.in_flight(),
            block_reason,
            blocking_budget: match queue.run_state {
                RunState::ParkedInLot(ParkingLotId::Budget(budget)) => Some(budget),
                _ => None,
            },
        }
    }

    /// Returns the reason why the ready jobs of a queue have not started. If the queue is parked,
    /// the reason is that of the refusing gate. Otherwise, the reason is that of the gate of the
    /// batch, tenant or schedule.
    fn block_reason_of_queue(&self, batch: &Batch, queue: &Queue<J>, now: Time) -> BlockReason {
        if batch.gate.has_holds() {
            return BlockReason::BatchPaused;
        }
        let reason = match queue.run_state {
            RunState::ParkedInLot(ParkingLotId::Route(route)) => {
                self.routes[route].block_reason(now)
            }
            RunState::ParkedInLot(ParkingLotId::Budget(_)) => Some(BlockReason::Budget),
            RunState::ParkedInLot(ParkingLotId::Lane(lane)) => {
                self.lanes[lane].gate.block_reason(now)
            }
            // If the share (the batch's part of the lane) is open, the queue waits for another
            // queue of the share, which the lane has refused.
            RunState::ParkedInLot(ParkingLotId::Share(share)) => self.shares[share]
                .gate
                .block_reason(now)
                .or_else(|| self.lanes[queue.lane].gate.block_reason(now)),
            RunState::ParkedOnOwnLimit | RunState::ParkedAtTenant => None,
            RunState::Runnable | RunState::Idle => batch
                .gate
                .block_reason(now)
                .or_else(|| self.tenant_of(batch)?.gate.block_reason(now))
                .or_else(|| self.gate.block_reason(now)),
        };
        reason.unwrap_or(BlockReason::Concurrency)
    }

    fn resolve_lane_keys(&self, loads: Vec<IndexedLaneLoad>) -> Vec<LaneLoad> {
        let with_key = |load: IndexedLaneLoad| LaneLoad {
            lane_key: Arc::clone(&self.lanes[load.lane_index].lane_key),
            queued_count: load.queued_count,
            in_flight_count: load.in_flight_count,
            block_reason: load.block_reason,
            blocking_budget: load
                .blocking_budget
                .filter(|_| load.block_reason == BlockReason::Budget)
                .map(|budget| Arc::clone(&self.budgets[budget].name)),
        };
        loads.into_iter().map(with_key).collect()
    }
}

/// Adds the load of a queue to the sum of its lane. The first queue with queued jobs determines the
/// block reason.
fn add_to_lane_sum(sums: &mut SlabIndexMap<IndexedLaneLoad>, load: IndexedLaneLoad) {
    let sum = sums.entry(load.lane_index).or_insert(IndexedLaneLoad {
        queued_count: 0,
        in_flight_count: 0,
        ..load
    });
    if sum.queued_count == 0 {
        sum.block_reason = load.block_reason;
        sum.blocking_budget = load.blocking_budget;
    }
    sum.queued_count += load.queued_count;
    sum.in_flight_count += load.in_flight_count;
}

/// Inserts a load into the list of the busiest lanes, busiest first. Ignores a load that has no
/// queued jobs or is too small. Of equal loads, the lane with the lower index comes first.
fn insert_into_busiest_lanes(busiest: &mut Vec<IndexedLaneLoad>, load: IndexedLaneLoad) {
    if load.queued_count == 0 {
        return;
    }
    let precedes = |other: &IndexedLaneLoad| {
        (other.queued_and_in_flight_count(), load.lane_index)
            >= (load.queued_and_in_flight_count(), other.lane_index)
    };
    let rank = busiest.partition_point(precedes);
    if rank < MAX_BUSIEST_LANES {
        busiest.truncate(MAX_BUSIEST_LANES - 1);
        busiest.insert(rank, load);
    }
}
