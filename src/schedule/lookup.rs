//! Finds batches, lanes and queues, and keeps the counts of queued jobs.

use std::sync::Arc;

use super::route::{Route, RouteKey};
use super::state::{Batch, Lane, LaneShare, Queue};
use super::{BatchId, LaneLimits, Schedulable, Schedule, Time};

impl<J: Schedulable> Schedule<J> {
    /// The batch with this id, including a removed batch that has slots in flight.
    pub(super) fn find_batch(&self, id: BatchId) -> Option<&Batch> {
        self.batches
            .get(id.index)
            .filter(|batch| batch.serial == id.serial)
    }

    /// The batch with this id, unless the batch is removed.
    pub(super) fn find_live_batch(&self, id: BatchId) -> Option<&Batch> {
        self.find_batch(id).filter(|batch| !batch.is_removed)
    }

    /// Whether a batch is removed, or its deadline has passed at `at`.
    pub(super) fn is_batch_over(&self, batch: BatchId, at: Time) -> bool {
        self.find_live_batch(batch)
            .is_none_or(|batch| batch.deadline.is_some_and(|deadline| deadline <= at))
    }

    pub(super) fn increment_queued_count(&mut self, batch: usize) {
        self.batches[batch].queued_count += 1;
        self.queued_count += 1;
    }

    /// Records that jobs of a batch have started or left the schedule.
    pub(super) fn decrement_queued_count(&mut self, batch: usize, count: usize) {
        if count > 0 {
            self.batches[batch].queued_count -= count;
            self.queued_count -= count;
            self.note_final_round_if_due(batch);
        }
    }

    /// The queue of a batch for this route. `limits` is called only if the lane or the route is
    /// new.
    pub(super) fn find_or_add_queue<L: Into<LaneLimits>>(
        &mut self,
        batch: usize,
        key: RouteKey<'_>,
        limits: impl FnOnce() -> L,
        now: Time,
    ) -> usize {
        // Consecutive jobs are often for the same lane, and comparing a key costs less than hashing
        // it.
        if let Some(last) = self.queues.get(self.last_pushed_queue)
            && last.batch == batch
            && *self.lanes[last.lane].key == *key.lane
            && self.routes[last.route].proxy.as_deref() == key.proxy
        {
            return self.last_pushed_queue;
        }
        self.last_pushed_queue = self.find_or_add_queue_by_key(batch, key, limits, now);
        self.last_pushed_queue
    }

    fn find_or_add_queue_by_key<L: Into<LaneLimits>>(
        &mut self,
        batch: usize,
        key: RouteKey<'_>,
        limits: impl FnOnce() -> L,
        now: Time,
    ) -> usize {
        if let Some(lane) = self.lane_by_key.get(key.lane)
            && let Some(&share) = self.batches[batch].shares.get(lane)
            && let Some(queue) = self.shares[share].queues.get(key.proxy)
        {
            return queue;
        }
        self.evict_idle(now);
        let lane = self.lane_by_key.get(key.lane).copied();
        let route = lane.and_then(|lane| self.lanes[lane].routes.get(key.proxy));
        let route = route.unwrap_or_else(|| self.add_route(lane, key, limits().into()));
        self.add_queue(batch, route)
    }

    /// Adds a route, and its lane unless that exists.
    fn add_route(&mut self, lane: Option<usize>, key: RouteKey<'_>, limits: LaneLimits) -> usize {
        let lane = lane.unwrap_or_else(|| self.add_lane(key.lane, limits));
        let proxy: Option<Arc<str>> = key.proxy.map(Into::into);
        let route = self.routes.insert(Route::new(lane, proxy.clone(), limits));
        self.lanes[lane].routes.insert(proxy, route);
        route
    }

    fn add_lane(&mut self, key: &str, limits: LaneLimits) -> usize {
        let key: Arc<str> = key.into();
        let lane = self.lanes.insert(Lane::new(Arc::clone(&key), limits));
        self.lane_by_key.insert(key, lane);
        lane
    }

    fn add_queue(&mut self, batch: usize, route: usize) -> usize {
        let limits = self.batches[batch].per_lane_limits;
        let target = &mut self.routes[route];
        target.queue_count += 1;
        let lane = target.lane;
        let shares = &mut self.shares;
        let share = *self.batches[batch]
            .shares
            .entry(lane)
            .or_insert_with(|| shares.insert(LaneShare::new(limits)));
        let queue = Queue::new(batch, lane, share, route, limits);
        let queue = self.queues.insert(queue);
        shares[share].queues.insert(target.proxy.clone(), queue);
        queue
    }
}
