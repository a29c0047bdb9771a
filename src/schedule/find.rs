//! Finds batches, lanes and queues, and keeps the counts of queued jobs.

use std::sync::Arc;

use super::budget::BudgetScopeId;
use super::route::{Route, RouteKey};
use super::state::{Batch, Lane, LaneShare, Queue};
use super::tenant::Tenant;
use super::{BatchId, LaneLimits, Schedulable, Schedule, Time};

impl<J: Schedulable> Schedule<J> {
    /// Returns the batch with this id. A removed batch is returned while its slots are in flight.
    pub(super) fn find_batch(&self, id: BatchId) -> Option<&Batch> {
        self.batches
            .get(id.index)
            .filter(|batch| batch.batch_serial == id.batch_serial)
    }

    /// Returns the batch with this id, unless the batch is removed.
    pub(super) fn find_live_batch(&self, id: BatchId) -> Option<&Batch> {
        self.find_batch(id).filter(|batch| !batch.is_removed)
    }

    pub(super) fn tenant_of(&self, batch: &Batch) -> Option<&Tenant> {
        batch.tenant.map(|tenant| &self.tenants[tenant])
    }

    /// Whether a batch is removed, or its deadline is not after `at`.
    pub(super) fn is_batch_removed_or_past_deadline(&self, batch: BatchId, at: Time) -> bool {
        self.find_live_batch(batch)
            .is_none_or(|batch| batch.deadline.is_some_and(|deadline| deadline <= at))
    }

    pub(super) fn increment_queued_count(&mut self, batch: usize) {
        self.batches[batch].queued_count += 1;
        self.queued_count += 1;
    }

    /// Subtracts jobs that have started or left the schedule from the counts of queued jobs.
    pub(super) fn decrement_queued_count(&mut self, batch: usize, count: usize) {
        if count > 0 {
            self.batches[batch].queued_count -= count;
            self.queued_count -= count;
            self.add_final_round_candidate_if_due(batch);
        }
    }

    /// Returns the queue of a batch for a route, and adds the queue if it does not exist. Calls
    /// `limits` only if the lane or the route does not exist.
    pub(super) fn find_or_add_queue<L: Into<LaneLimits>>(
        &mut self,
        batch: usize,
        key: RouteKey<'_>,
        limits: impl FnOnce() -> L,
        now: Time,
    ) -> usize {
        // Consecutive jobs often have the same lane. To compare keys costs less than to hash a key.
        if let Some(last) = self.queues.get(self.last_pushed_queue)
            && last.batch == batch
            && *self.lanes[last.lane].lane_key == *key.lane_key
            && self.routes[last.route].proxy_key.as_deref() == key.proxy_key
        {
            return self.last_pushed_queue;
        }
        self.last_pushed_queue = self.find_or_add_queue_uncached(batch, key, limits, now);
        self.last_pushed_queue
    }

    fn find_or_add_queue_uncached<L: Into<LaneLimits>>(
        &mut self,
        batch: usize,
        key: RouteKey<'_>,
        limits: impl FnOnce() -> L,
        now: Time,
    ) -> usize {
        if let Some(lane) = self.lane_by_key.get(key.lane_key)
            && let Some(&share) = self.batches[batch].share_by_lane.get(lane)
            && let Some(queue) = self.shares[share].queues.index_of(key.proxy_key)
        {
            return queue;
        }
        self.evict_oldest_idle_candidates(now);
        let lane = self.lane_by_key.get(key.lane_key).copied();
        let route = lane.and_then(|lane| self.lanes[lane].routes.index_of(key.proxy_key));
        let route = route.unwrap_or_else(|| self.add_route_and_lane(lane, key, limits().into()));
        self.add_queue(batch, route)
    }

    /// Adds a route. Adds the lane of the route, too, if `lane` is `None`.
    fn add_route_and_lane(
        &mut self,
        lane: Option<usize>,
        key: RouteKey<'_>,
        limits: LaneLimits,
    ) -> usize {
        let lane = lane.unwrap_or_else(|| self.add_lane(key.lane_key, &limits));
        let proxy: Option<Arc<str>> = key.proxy_key.map(Into::into);
        let route = self.routes.insert(Route::new(lane, proxy.clone(), &limits));
        self.lanes[lane].routes.insert_route(proxy, route);
        route
    }

    fn add_lane(&mut self, key: &str, limits: &LaneLimits) -> usize {
        let key: Arc<str> = key.into();
        let lane = self.lanes.insert(Lane::new(Arc::clone(&key), limits));
        self.lane_by_key.insert(key, lane);
        if let Some(budgets) = &limits.budgets {
            self.lanes[lane].budgets = self.add_budgets(BudgetScopeId::Lane(lane), budgets);
        }
        lane
    }

    fn add_queue(&mut self, batch: usize, route: usize) -> usize {
        let limits = self.batches[batch].per_lane_limits;
        let target = &mut self.routes[route];
        target.queue_count += 1;
        let lane = target.lane;
        let budgets = self.budgets_of_new_queue(batch, lane);
        let shares = &mut self.shares;
        let share = *self.batches[batch]
            .share_by_lane
            .entry(lane)
            .or_insert_with(|| shares.insert(LaneShare::new(limits)));
        let queue = Queue::new(batch, lane, share, route, limits, budgets);
        let queue = self.queues.insert(queue);
        let proxy = self.routes[route].proxy_key.clone();
        self.shares[share].queues.insert_route(proxy, queue);
        queue
    }
}
