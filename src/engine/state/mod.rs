//! The state behind the engine's lock, and the only two ways to reach it.
//!
//! [`Engine::read_state`] looks at the state. [`Engine::update`] changes the state in a
//! [`Transaction`]: one critical section that ends by starting every job that may start. Work that
//! must not be done under the lock is collected in [`Effects`], and done once the lock is released.
//! The fields of [`State`] are private to this module, so no change can skip these steps.

mod effects;
mod transaction;

use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};

use slab::Slab;
use tokio::runtime::{Handle, Id};

pub(super) use effects::{Effects, EngineTask};
pub(super) use transaction::Transaction;

use super::Engine;
use super::batch_state::BatchState;
use super::costs::budget_configs;
use super::job::Job;
use super::limits::EngineLimits;
use super::result_counts::ResultCounts;
use super::result_slot::ResultSlot;
use super::runtimes::Runtimes;
use super::shared_worker_state::SharedWorkerState;
use super::worker::WorkerId;
use crate::error::ErrorKind;
use crate::schedule::{BatchId, LaneId, Schedule, Slot};

pub(super) struct State {
    schedule: Schedule<Box<Job>>,
    /// Open batches, indexed by [`BatchId::index`].
    batches: Vec<Option<BatchState>>,
    /// Result counts of all batches that have ended, added up.
    ended_batch_result_counts: ResultCounts,
    runtimes: Runtimes,
    /// The job that each worker runs. The key is [`WorkerId::active_job_key`].
    active_jobs: Slab<ActiveJob>,
    /// Batches whose consumer is to be woken, to pull more inputs, when a slot is idle because host
    /// limits hold back all queued jobs.
    host_limited_wake_list: Vec<BatchId>,
}

/// A job in flight, with what is needed to cancel the job and to report its progress.
struct ActiveJob {
    worker_state: Arc<SharedWorkerState>,
    batch_id: BatchId,
    lane_id: LaneId,
    result_slot: Option<Arc<ResultSlot<Box<Job>>>>,
}

impl Engine {
    /// Calls `look` with the state, under the engine's lock.
    pub(super) fn read_state<R>(&self, look: impl FnOnce(&State) -> R) -> R {
        look(&self.lock())
    }

    /// Takes the engine's lock, which is held for a few hundred instructions and never across an
    /// await. Code under the lock does not panic, so a poisoned lock still protects a consistent
    /// state.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    pub(super) fn new(limits: &EngineLimits) -> Self {
        let mut schedule = Schedule::new(limits.overall_limits);
        schedule.add_overall_budgets(&budget_configs(&limits.budgets.overall));
        Self {
            schedule,
            batches: Vec::new(),
            ended_batch_result_counts: ResultCounts::default(),
            runtimes: Runtimes::default(),
            active_jobs: Slab::new(),
            host_limited_wake_list: Vec::new(),
        }
    }

    pub(super) fn schedule(&self) -> &Schedule<Box<Job>> {
        &self.schedule
    }

    pub(super) fn runtimes(&self) -> &Runtimes {
        &self.runtimes
    }

    /// Result counts of all batches that have ended, added up.
    pub(super) fn ended_batch_result_counts(&self) -> ResultCounts {
        self.ended_batch_result_counts
    }

    pub(super) fn open_batches(&self) -> impl Iterator<Item = &BatchState> {
        self.batches.iter().flatten()
    }

    /// The state of a batch that has not ended.
    pub(super) fn batch(&self, batch: BatchId) -> Option<&BatchState> {
        let state = self.batches.get(batch.index())?.as_ref();
        state.filter(|state| state.id() == batch)
    }

    fn batch_mut(&mut self, batch: BatchId) -> Option<&mut BatchState> {
        let state = self.batches.get_mut(batch.index())?.as_mut();
        state.filter(|state| state.id() == batch)
    }

    /// The runtime that runs a batch's jobs; `None` if that runtime has ended.
    pub(super) fn runtime_of_batch(&self, batch: BatchId) -> Option<(Id, &Handle)> {
        let runtime = self.batch(batch)?.runtime_id();
        let handle = self.runtimes.handle(runtime)?;
        Some((runtime, handle))
    }

    /// The error kind of a job that can no longer start.
    pub(super) fn error_kind_of_unstartable_job(&self, job: &Job) -> ErrorKind {
        let is_cancelled = self.runtime_of_batch(job.batch_id).is_none()
            || self
                .schedule
                .is_batch_or_lane_closed(job.batch_id, job.lane_key());
        if is_cancelled {
            ErrorKind::Cancelled
        } else {
            ErrorKind::Deadline
        }
    }

    /// The number of body bytes received so far by the jobs in flight, of one batch or (`None`) of
    /// all batches.
    pub(super) fn body_bytes_in_flight(&self, batch: Option<BatchId>) -> u64 {
        let active_jobs = self.active_jobs.iter().map(|(_, active)| active);
        active_jobs
            .filter(|active| batch.is_none_or(|batch| active.batch_id == batch))
            .map(|active| {
                active
                    .worker_state
                    .body_bytes_in_flight
                    .load(Ordering::Relaxed)
            })
            .sum()
    }

    /// Registers the job of a new worker, and returns the worker's key.
    fn add_active_job(
        &mut self,
        worker_state: &Arc<SharedWorkerState>,
        slot: &Slot,
        job: &Job,
    ) -> usize {
        let key = self.active_jobs.insert(ActiveJob {
            worker_state: Arc::clone(worker_state),
            batch_id: slot.batch_id(),
            lane_id: slot.lane_id(),
            result_slot: None,
        });
        self.active_jobs[key].record_started_job(slot, job, key);
        key
    }

    /// Records the next job of a worker. A worker without a next job is removed.
    fn replace_or_remove_active_job(&mut self, worker: WorkerId, next: Option<&(Slot, Box<Job>)>) {
        match next {
            Some((slot, job)) => {
                let active = &mut self.active_jobs[worker.active_job_key];
                active.worker_state.cancel_flag.clear();
                let body_bytes = &active.worker_state.body_bytes_in_flight;
                body_bytes.store(0, Ordering::Relaxed);
                active.record_started_job(slot, job, worker.active_job_key);
            }
            None => {
                self.active_jobs.remove(worker.active_job_key);
            }
        }
    }
}

impl ActiveJob {
    fn record_started_job(&mut self, slot: &Slot, job: &Job, active_job_key: usize) {
        self.batch_id = slot.batch_id();
        self.lane_id = slot.lane_id();
        self.result_slot.clone_from(&job.result_slot);
        if let Some(result_slot) = &self.result_slot {
            result_slot.set_active_job_key(active_job_key);
        }
    }
}
