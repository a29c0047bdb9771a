//! Removes batches that have ended, and evicts idle queues, routes and lanes. A lane is a host or a
//! `limit_by` key; a route is a way to reach it; a queue holds the jobs of one batch for one route.
//!
//! An idle queue, route or lane is kept for a while, because the next job is often for the same
//! host. Each added queue evicts the oldest idle queues, routes and lanes. Memory is thus
//! proportional to the hosts and proxies in use, not to all hosts and proxies ever used.

use super::run_state::RunState;
use super::{BatchId, Schedulable, Schedule, Time};

/// The number of eviction candidates that are checked when a queue is added. An added queue causes
/// at most three candidates: the queue, its route and its lane. Twice as many checks keep the list
/// of candidates short, even if half of the checks evict nothing.
const EVICTION_CHECKS_PER_NEW_QUEUE: usize = 6;

/// A queue, route or lane that may be evicted, by its slab index.
pub(super) enum EvictionCandidate {
    Queue(usize),
    Route(usize),
    Lane(usize),
}

impl<J: Schedulable> Schedule<J> {
    /// Removes a batch and returns its queued jobs. The caller must still settle the slots of the
    /// requests in flight.
    pub(crate) fn remove_batch(&mut self, batch: BatchId) -> Vec<J> {
        let mut jobs = Vec::new();
        if self.find_live_batch(batch).is_some() {
            self.move_queued_jobs_of_batch(batch.index, &mut jobs);
            self.remove_batch_without_queued_jobs(batch.index);
        }
        jobs
    }

    /// Removes a batch that has no queued jobs. A queue with requests in flight stays until their
    /// slots are settled.
    fn remove_batch_without_queued_jobs(&mut self, batch: usize) {
        let removed = &mut self.batches[batch];
        removed.is_removed = true;
        if let Some(deadline) = removed.deadline {
            self.deadlines.remove(&(deadline, batch));
        }
        match std::mem::replace(&mut removed.run_state, RunState::Idle) {
            RunState::Runnable => {
                self.overdue_batches.retain(|&other| other != batch);
                self.runnable_batches.retain(|&other| other != batch);
            }
            RunState::ParkedAtTenant => self.remove_batch_from_tenant_list(batch),
            RunState::Idle | RunState::ParkedOnOwnLimit | RunState::ParkedInLot(_) => {}
        }
        self.forward_wakeup_of_tenant(batch);
        let queues: Vec<usize> = self.batches[batch]
            .share_by_lane
            .values()
            .flat_map(|&share| self.shares[share].queues.indices())
            .collect();
        for &queue in &queues {
            self.remove_queue_from_lot(queue);
        }
        self.clear_run_queue(batch);
        for queue in queues {
            self.queues[queue].run_state = RunState::Idle;
            if self.queues[queue].concurrency_limit.in_flight() == 0 {
                self.remove_queue(queue);
            }
        }
        self.forget_removed_batch_if_unused(batch);
    }

    /// Continues the removal of a batch after a slot was settled: removes the queue if it has no
    /// requests in flight, and the batch if it has no queues.
    pub(super) fn finish_batch_removal_after_settle(&mut self, batch: usize, queue: usize) {
        if self.queues[queue].concurrency_limit.in_flight() == 0 {
            self.remove_queue(queue);
        }
        self.forget_removed_batch_if_unused(batch);
    }

    /// Removes the state of a removed batch that has no queues. If the batch is the last one of a
    /// removed tenant, the state of the tenant is removed, too.
    fn forget_removed_batch_if_unused(&mut self, batch: usize) {
        if self.batches[batch].share_by_lane.is_empty() {
            let forgotten = self.batches.remove(batch);
            self.remove_budgets(&forgotten.budgets);
            if let Some(tenant) = forgotten.tenant {
                self.decrement_batch_count_of_tenant(tenant);
            }
        }
    }

    /// Makes a queue an eviction candidate if it has no jobs.
    pub(super) fn add_eviction_candidate_if_idle(&mut self, queue: usize) {
        let noted = &mut self.queues[queue];
        if !noted.is_eviction_candidate && !noted.has_queued_or_in_flight_job() {
            noted.is_eviction_candidate = true;
            self.eviction_candidates
                .push_back(EvictionCandidate::Queue(queue));
        }
    }

    /// Checks the oldest eviction candidates, and evicts idle ones whose state is not worth
    /// keeping.
    pub(super) fn evict_oldest_idle_candidates(&mut self, now: Time) {
        for _ in 0..EVICTION_CHECKS_PER_NEW_QUEUE {
            match self.eviction_candidates.pop_front() {
                Some(EvictionCandidate::Queue(queue)) => self.evict_queue_if_idle(queue, now),
                Some(EvictionCandidate::Route(route)) => self.evict_route_if_idle(route, now),
                Some(EvictionCandidate::Lane(lane)) => self.evict_lane_if_idle(lane, now),
                None => break,
            }
        }
    }

    fn evict_queue_if_idle(&mut self, queue: usize, now: Time) {
        // The slab index may meanwhile belong to another queue.
        let candidate = self.queues.get_mut(queue);
        let Some(candidate) = candidate.filter(|queue| queue.is_eviction_candidate) else {
            return;
        };
        if candidate.has_queued_or_in_flight_job() || candidate.run_state != RunState::Idle {
            candidate.is_eviction_candidate = false;
        } else if candidate.concurrency_limit.is_evictable(now)
            && candidate.run_queue_rank_bits == 0
            && self.shares[candidate.share].is_one_queue_evictable(now)
        {
            self.remove_queue(queue);
        } else {
            self.eviction_candidates
                .push_back(EvictionCandidate::Queue(queue));
        }
    }

    fn evict_route_if_idle(&mut self, route: usize, now: Time) {
        // The slab index may meanwhile belong to another route.
        let candidate = self.routes.get_mut(route);
        let Some(candidate) = candidate.filter(|route| route.is_eviction_candidate) else {
            return;
        };
        if candidate.queue_count > 0 {
            candidate.is_eviction_candidate = false;
        } else if candidate.is_evictable(now) {
            let evicted = self.routes.remove(route);
            let lane = &mut self.lanes[evicted.lane];
            lane.routes.remove_route(evicted.proxy_key.as_deref());
            if lane.routes.is_empty() && !lane.is_eviction_candidate {
                lane.is_eviction_candidate = true;
                self.eviction_candidates
                    .push_back(EvictionCandidate::Lane(evicted.lane));
            }
        } else {
            self.eviction_candidates
                .push_back(EvictionCandidate::Route(route));
        }
    }

    fn evict_lane_if_idle(&mut self, lane: usize, now: Time) {
        // The slab index may meanwhile belong to another lane.
        let candidate = self.lanes.get(lane);
        let Some(candidate) = candidate.filter(|lane| lane.is_eviction_candidate) else {
            return;
        };
        if !candidate.routes.is_empty() {
            self.lanes[lane].is_eviction_candidate = false;
        } else if candidate.is_evictable(now) && self.are_budgets_pristine(&candidate.budgets, now)
        {
            let evicted = self.lanes.remove(lane);
            self.remove_budgets(&evicted.budgets);
            self.lane_by_key.remove(&evicted.lane_key);
        } else {
            self.eviction_candidates
                .push_back(EvictionCandidate::Lane(lane));
        }
    }

    /// Removes a queue. Also removes the share (the part of the lane that the batch uses) if the
    /// share has no other queue. Makes the route an eviction candidate if the route has no other
    /// queue.
    fn remove_queue(&mut self, queue: usize) {
        let removed = self.queues.remove(queue);
        let route = &mut self.routes[removed.route];
        let share = &mut self.shares[removed.share];
        share.queues.remove_route(route.proxy_key.as_deref());
        if share.queues.is_empty() {
            self.shares.remove(removed.share);
            self.batches[removed.batch]
                .share_by_lane
                .remove(&removed.lane);
        }
        route.queue_count -= 1;
        if route.queue_count == 0 && !route.is_eviction_candidate {
            route.is_eviction_candidate = true;
            self.eviction_candidates
                .push_back(EvictionCandidate::Route(removed.route));
        }
    }
}
