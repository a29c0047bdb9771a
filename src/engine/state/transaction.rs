//! One change of the engine's state.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, MutexGuard};
use std::task::Waker;

use tokio::runtime::{Handle, Id};

use super::{Effects, EngineTask, State};
use crate::engine::Engine;
use crate::engine::batch_state::BatchState;
use crate::engine::control::BatchControl;
use crate::engine::costs::end_unaffordable_job;
use crate::engine::job::Job;
use crate::engine::result_slot::ResultSlot;
use crate::engine::runtimes::Runtimes;
use crate::engine::shared_worker_state::SharedWorkerState;
use crate::engine::worker::{Worker, WorkerId};
use crate::error::ErrorKind;
use crate::schedule::{
    BatchId, BatchLimits, CostOutcome, LaneId, Schedulable as _, Schedule, Slot, StartDecision,
    TenantId, Time,
};

impl Engine {
    /// Changes the state under the engine's lock, and starts every job that may start after the
    /// change. The effects (spawned tasks, wakes and drops) follow once the lock is released.
    ///
    /// The caller must hold no lock. A caller that holds a lock uses
    /// [`update_deferring_effects`](Self::update_deferring_effects) instead.
    pub(in crate::engine) fn update<R>(
        self: &Arc<Self>,
        change: impl FnOnce(&mut Transaction<'_>) -> R,
    ) -> R {
        let (result, effects) = self.update_deferring_effects(change);
        drop(effects);
        result
    }

    /// Changes the state like [`update`](Self::update), but returns the effects instead of
    /// performing them. The caller drops the effects once the caller's own locks are released.
    pub(in crate::engine) fn update_deferring_effects<R>(
        self: &Arc<Self>,
        change: impl FnOnce(&mut Transaction<'_>) -> R,
    ) -> (R, Effects) {
        let mut tx = Transaction::new(self);
        let result = change(&mut tx);
        if tx.may_have_ready_jobs {
            let _none = tx.start_ready_jobs(None);
        }
        (result, tx.effects)
    }

    /// Changes the state for a worker whose job is settled by `change`, and returns the effects
    /// like [`update_deferring_effects`](Self::update_deferring_effects). The first job of the
    /// worker's runtime that may start is returned as the worker's next job.
    pub(in crate::engine) fn update_and_take_next_job(
        self: &Arc<Self>,
        worker: WorkerId,
        now: Time,
        change: impl FnOnce(&mut Transaction<'_>),
    ) -> (Option<(Slot, Box<Job>)>, Effects) {
        let mut tx = Transaction::new(self);
        tx.now = Some(now);
        change(&mut tx);
        let next = tx.start_ready_jobs(Some(worker.runtime_id));
        tx.state.replace_or_remove_active_job(worker, next.as_ref());
        (next, tx.effects)
    }
}

/// A change of the engine's state, made while holding the engine's lock.
pub(in crate::engine) struct Transaction<'a> {
    engine: &'a Arc<Engine>,
    // Fields are dropped in declaration order. If a change panics, the lock is therefore released
    // before the effects take place.
    state: MutexGuard<'a, State>,
    effects: Effects,
    /// The instant of this change, which is read from the clock at first use.
    now: Option<Time>,
    /// Whether the change may have made jobs ready to start.
    may_have_ready_jobs: bool,
}

impl<'a> Transaction<'a> {
    fn new(engine: &'a Arc<Engine>) -> Self {
        Self {
            engine,
            state: engine.lock(),
            effects: Effects::default(),
            now: None,
            may_have_ready_jobs: false,
        }
    }

    /// The instant of this change, which is the same throughout the transaction.
    pub(in crate::engine) fn now(&mut self) -> Time {
        *self.now.get_or_insert_with(|| self.engine.now())
    }

    pub(in crate::engine) fn engine(&self) -> &'a Arc<Engine> {
        self.engine
    }

    pub(in crate::engine) fn state(&self) -> &State {
        &self.state
    }

    /// Returns the schedule for a change that may make jobs ready to start.
    pub(in crate::engine) fn schedule_mut(&mut self) -> &mut Schedule<Box<Job>> {
        self.may_have_ready_jobs = true;
        &mut self.state.schedule
    }

    pub(in crate::engine) fn runtimes_mut(&mut self) -> &mut Runtimes {
        &mut self.state.runtimes
    }

    /// The state of a batch that has not ended.
    pub(in crate::engine) fn batch_mut(&mut self, batch: BatchId) -> Option<&mut BatchState> {
        self.state.batch_mut(batch)
    }

    /// Makes the transaction look for jobs that have become ready to start because time has passed.
    pub(in crate::engine) fn set_may_have_ready_jobs(&mut self) {
        self.may_have_ready_jobs = true;
    }

    /// Wakes a task once the lock is released.
    pub(in crate::engine) fn defer_wake(&mut self, waker: Option<Waker>) {
        self.effects.wakers_to_wake.extend(waker);
    }

    /// Spawns a task once the lock is released.
    pub(in crate::engine) fn defer_spawn(&mut self, handle: Handle, task: EngineTask) {
        self.effects.tasks_to_spawn.push((handle, task));
    }

    /// Drops jobs once the lock is released.
    pub(in crate::engine) fn defer_job_drop(&mut self, mut jobs: Vec<Box<Job>>) {
        for job in &mut jobs {
            self.settle_carried_charge(job);
        }
        self.effects.jobs_to_drop.extend(jobs);
    }

    /// Withdraws a retry from the retry budget of a lane. Returns false if the budget is spent. A
    /// withdrawal makes no job ready to start.
    pub(in crate::engine) fn withdraw_from_retry_budget(&mut self, lane: LaneId) -> bool {
        let now = self.now();
        self.state.schedule.try_withdraw_retry_from_lane(lane, now)
    }

    /// Sets whether a batch's consumer has more inputs. Without more inputs, the batch may begin
    /// its final round (the last retries of failed jobs).
    pub(in crate::engine) fn set_expects_more_inputs(
        &mut self,
        batch: BatchId,
        expects_more_inputs: bool,
    ) {
        if self
            .state
            .schedule
            .set_expects_more_jobs(batch, expects_more_inputs)
        {
            self.may_have_ready_jobs = true;
        }
    }

    pub(in crate::engine) fn add_batch(
        &mut self,
        limits: BatchLimits,
        tenant: Option<TenantId>,
        runtime: Id,
        control: Option<&Arc<BatchControl>>,
    ) -> BatchId {
        let batch = self.schedule_mut().add_batch(limits);
        if let Some(tenant) = tenant {
            self.schedule_mut().add_batch_to_tenant(batch, tenant);
        }
        let batches = &mut self.state.batches;
        if batches.len() <= batch.index() {
            batches.resize_with(batch.index() + 1, || None);
        }
        batches[batch.index()] = Some(BatchState::new(batch, runtime, control));
        batch
    }

    /// Ends a batch: cancels its jobs in flight, and drops its queued jobs and undelivered results.
    pub(in crate::engine) fn remove_batch(&mut self, batch: BatchId) {
        let queued = self.schedule_mut().remove_batch(batch);
        self.defer_job_drop(queued);
        if let Some(ended) = self.state.batches[batch.index()].take() {
            self.state.ended_batch_result_counts += ended.result_counts;
            let (results, waker) = ended.into_undelivered_results_and_waker();
            self.effects.jobs_to_drop.extend(results);
            self.effects.wakers_to_wake.extend(waker);
        }
        self.cancel_jobs_in_flight(batch, None);
    }

    /// Unregisters an open batch or single fetch from its runtime. After the last one, the
    /// runtime's batches of single fetches also end.
    pub(in crate::engine) fn unregister_batch_or_fetch(&mut self, runtime: Id) {
        let single_fetches = self.state.runtimes.unregister_batch_or_fetch(runtime);
        for batch in single_fetches.into_batches() {
            self.remove_batch(batch);
        }
    }

    /// Removes a tenant and the batches of its single fetches.
    pub(in crate::engine) fn remove_tenant(&mut self, tenant: TenantId) {
        for batch in self.runtimes_mut().take_single_fetch_batches(tenant) {
            self.remove_batch(batch);
        }
        self.schedule_mut().remove_tenant(tenant);
    }

    /// Ends a runtime and cancels the queued jobs of its batches. A job in flight is settled by the
    /// destructor of its worker.
    pub(in crate::engine) fn end_runtime_and_cancel_queued(&mut self, runtime: Id) {
        self.state.runtimes.mark_ended(runtime);
        let batches: Vec<BatchId> = self
            .state
            .open_batches()
            .filter(|batch| batch.runtime_id() == runtime)
            .map(BatchState::id)
            .collect();
        for batch in batches {
            for job in self.schedule_mut().take_queued_jobs_of_batch(batch) {
                self.deliver_job(job, ErrorKind::Cancelled);
            }
        }
    }

    /// Cancels the jobs in flight of a batch: all jobs, or only the jobs in `lane`.
    pub(in crate::engine) fn cancel_jobs_in_flight(&self, batch: BatchId, lane: Option<LaneId>) {
        for (_, active) in &self.state.active_jobs {
            if active.batch_id == batch && lane.is_none_or(|lane| active.lane_id == lane) {
                active.worker_state.cancel_flag.set();
            }
        }
    }

    /// Cancels the single fetch that owns this result slot. Returns false if the fetch is not in
    /// flight.
    pub(in crate::engine) fn cancel_single_fetch_in_flight(
        &self,
        result_slot: &Arc<ResultSlot<Box<Job>>>,
    ) -> bool {
        let active = result_slot
            .active_job_key()
            .and_then(|key| self.state.active_jobs.get(key));
        // The worker may be running another job by now.
        let is_ours = |own: &Arc<_>| Arc::ptr_eq(own, result_slot);
        match active.filter(|active| active.result_slot.as_ref().is_some_and(is_ours)) {
            Some(active) => {
                active.worker_state.cancel_flag.set();
                true
            }
            None => false,
        }
    }

    /// Removes the active job of a worker that is being dropped.
    pub(in crate::engine) fn remove_worker(&mut self, worker: WorkerId) {
        self.state.active_jobs.remove(worker.active_job_key);
    }

    /// Delivers a job to its consumer. `reason` becomes the job's error if the job has no result.
    pub(in crate::engine) fn deliver_job(&mut self, job: Box<Job>, reason: ErrorKind) {
        self.deliver_job_with_reason_fn(job, |_, _| reason);
    }

    /// Delivers a job to its consumer. `reason` returns the kind of the job's error, and is called
    /// only if the job has no result.
    pub(in crate::engine) fn deliver_job_with_reason_fn(
        &mut self,
        mut job: Box<Job>,
        reason: impl Fn(&State, &Job) -> ErrorKind,
    ) {
        self.settle_carried_charge(&mut job);
        job.complete_result_with_history(|job| reason(&self.state, job));
        match job.result_slot.take() {
            Some(result_slot) if result_slot.is_abandoned() => self.effects.jobs_to_drop.push(job),
            Some(result_slot) => {
                if let Some(batch) = self.state.batch_mut(job.batch_id) {
                    batch.result_counts.record_result(&job);
                }
                self.effects
                    .wakers_to_wake
                    .extend(result_slot.store_result(job));
            }
            None => match self.state.batch_mut(job.batch_id) {
                Some(batch) => self.effects.wakers_to_wake.extend(batch.push_result(job)),
                None => self.effects.jobs_to_drop.push(job),
            },
        }
    }

    /// Settles the charge of a job that was going to be repeated, but never starts again.
    #[inline]
    fn settle_carried_charge(&mut self, job: &mut Box<Job>) {
        if let Some(charge) = job.take_carried_charge() {
            self.schedule_mut().settle_charge_as_estimated(charge);
        }
    }

    /// Starts every job that may start. The first started job of the runtime `worker_runtime` is
    /// returned, for an existing worker. Every other started job gets a new worker.
    fn start_ready_jobs(&mut self, worker_runtime: Option<Id>) -> Option<(Slot, Box<Job>)> {
        let now = self.now();
        let mut worker_job = None;
        let next_wakeup = loop {
            let next_wakeup = self.start_jobs(worker_runtime, &mut worker_job, now);
            if !self.state.schedule.has_jobs_that_never_start() {
                break next_wakeup;
            }
            // The delivery of a job with a carried charge may let other jobs start.
            self.deliver_jobs_that_never_start();
        };
        self.wake_consumers_for_more_inputs(now);
        let queued = self.state.schedule.queued_count();
        self.engine.queued_job_count.store(queued, Relaxed);
        if let Some(at) = next_wakeup {
            let new_timers = self.state.runtimes.schedule_timer_wakeup(self.engine, at);
            let tasks = new_timers.map(|(handle, timer)| (handle, EngineTask::Timer(timer)));
            self.effects.tasks_to_spawn.extend(tasks);
        }
        worker_job
    }

    /// Starts every job that may start, and returns when to look for the next one. The first
    /// started job of the runtime `worker_runtime` becomes the `worker_job`, if there is none.
    fn start_jobs(
        &mut self,
        worker_runtime: Option<Id>,
        worker_job: &mut Option<(Slot, Box<Job>)>,
        now: Time,
    ) -> Option<Time> {
        loop {
            match self.state.schedule.start_next_job(now) {
                StartDecision::Start(slot, job) => {
                    match self.state.runtime_of_batch(slot.batch_id()) {
                        Some((runtime, _))
                            if worker_runtime == Some(runtime) && worker_job.is_none() =>
                        {
                            *worker_job = Some((slot, job));
                        }
                        Some((runtime, handle)) => {
                            let handle = handle.clone();
                            self.start_worker(runtime, handle, slot, job, now);
                        }
                        None => {
                            self.deliver_job(job, ErrorKind::Cancelled);
                            let schedule = &mut self.state.schedule;
                            schedule.settle_costs(&slot, &CostOutcome::Unsent, now);
                            schedule.settle(slot);
                        }
                    }
                }
                StartDecision::WaitUntil(at) => return Some(at),
                StartDecision::WaitForChange => return None,
            }
        }
    }

    /// Delivers the jobs that the schedule has given up.
    #[cold]
    fn deliver_jobs_that_never_start(&mut self) {
        for job in self.state.schedule.take_rejected_jobs() {
            let reason = self.state.error_kind_of_unstartable_job(&job);
            self.deliver_job(job, reason);
        }
        for job in self.state.schedule.take_unreachable_jobs() {
            self.deliver_job(job, ErrorKind::HostDown);
        }
        for unaffordable in self.state.schedule.take_unaffordable_jobs() {
            let job = end_unaffordable_job(unaffordable);
            self.deliver_job(job, ErrorKind::Budget);
        }
    }

    fn start_worker(&mut self, runtime: Id, handle: Handle, slot: Slot, job: Box<Job>, now: Time) {
        let worker_state = Arc::new(SharedWorkerState::default());
        let active_job_key = self.state.add_active_job(&worker_state, &slot, &job);
        let id = WorkerId {
            runtime_id: runtime,
            active_job_key,
        };
        let worker = Worker::new(self.engine, id, worker_state, (slot, job), now);
        self.defer_spawn(handle, EngineTask::Worker(worker));
    }

    /// Wakes the consumers of host-limited batches, so that the consumers pull more inputs. A batch
    /// is host limited if it could use an idle slot for a job of another host. Any change can make
    /// a batch host limited, for example when another batch returns a slot or when a host is
    /// paused.
    fn wake_consumers_for_more_inputs(&mut self, now: Time) {
        let state = &mut *self.state;
        let mut waiters = std::mem::take(&mut state.host_limited_wake_list);
        waiters.retain(|&id| {
            let is_host_limited = state.schedule.is_batch_blocked_only_by_hosts(id, now);
            let Some(batch) = state.batch_mut(id) else {
                return false;
            };
            self.effects
                .wakers_to_wake
                .extend(batch.take_consumer_waker_if_host_limited(is_host_limited));
            batch.is_in_host_limited_wake_list
        });
        state.host_limited_wake_list = waiters;
    }

    /// Whether a slot of the batch is idle because host limits hold back all queued jobs of the
    /// batch.
    pub(in crate::engine) fn is_batch_blocked_only_by_hosts(&mut self, batch: BatchId) -> bool {
        let now = self.now();
        self.state
            .schedule
            .is_batch_blocked_only_by_hosts(batch, now)
    }

    /// Registers a batch whose consumer is to be woken when a slot is idle because host limits hold
    /// back all queued jobs of the batch.
    pub(in crate::engine) fn add_to_host_limited_wake_list(&mut self, batch: BatchId) {
        self.state.host_limited_wake_list.push(batch);
    }
}
