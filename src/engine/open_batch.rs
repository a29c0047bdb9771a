//! An open batch, held by its consumer, which pushes jobs and takes results.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Context;

use tokio::runtime::Id;

use super::batch_state::WakeConditions;
use super::control::BatchControl;
use super::costs::budget_configs;
use super::job::Job;
use super::job_options::JobOptions;
use super::tenant_handle::TenantHandle;
use super::{Engine, runtimes};
use crate::limits::LimitSettings;
use crate::request::Request;
use crate::retry::FinalRoundState;
use crate::schedule::BatchId;

/// An open batch. Dropping the `OpenBatch` cancels jobs in flight and drops queued jobs.
pub(crate) struct OpenBatch {
    engine: Arc<Engine>,
    batch_id: BatchId,
    runtime_id: Id,
    has_time_driver: bool,
    job_options: Arc<JobOptions>,
    control: Arc<BatchControl>,
}

impl OpenBatch {
    /// Opens a batch on the current runtime. Commands sent before the opening take effect first.
    ///
    /// # Panics
    ///
    /// Panics if called outside a tokio runtime.
    pub(crate) fn open(
        engine: &Arc<Engine>,
        limits: &LimitSettings,
        tenant: Option<&TenantHandle>,
        options: JobOptions,
        control: &Arc<BatchControl>,
    ) -> Self {
        let limits = limits.batch_limits(options.deadline);
        let tenant = tenant.map(TenantHandle::tenant_id);
        let current_runtime = runtimes::current_runtime();
        let has_time_driver = runtimes::has_time_driver(&current_runtime);
        let ((batch, runtime), effects) = {
            let mut control_state = control.lock();
            engine.update_deferring_effects(|tx| {
                let runtime = tx.runtimes_mut().register_batch_or_fetch(current_runtime);
                let batch = tx.add_batch(limits, tenant, runtime, Some(control));
                if !options.budgets.is_empty() {
                    let budgets = budget_configs(&options.budgets);
                    tx.schedule_mut().add_batch_budgets(batch, &budgets);
                }
                tx.set_expects_more_inputs(batch, true);
                control_state.open_and_apply_kept_commands(tx, batch);
                (batch, runtime)
            })
        };
        drop(effects);
        Self {
            engine: Arc::clone(engine),
            control: Arc::clone(control),
            batch_id: batch,
            runtime_id: runtime,
            has_time_driver,
            job_options: Arc::new(options),
        }
    }

    /// Whether the batch's runtime has a time driver. If not, [`new_job`](Self::new_job) rejects
    /// every job.
    pub(crate) fn has_time_driver(&self) -> bool {
        self.has_time_driver
    }

    /// Makes the job of an input and assigns the job's lane. The caller must hold no lock, because
    /// the callbacks `limit_by` and `host_fn` may run.
    ///
    /// # Errors
    ///
    /// Returns the finished job, with its error, if the request is invalid, the settings forbid it,
    /// or the runtime has no time driver.
    pub(crate) fn new_job(&self, index: usize, request: Request) -> Result<Box<Job>, Box<Job>> {
        let mut job = self.engine.new_job(
            index,
            request,
            self.batch_id,
            &self.job_options,
            self.has_time_driver,
        )?;
        if self.job_options.retry.final_round {
            job.final_round_state = FinalRoundState::FinalRoundPlanned;
        }
        Ok(job)
    }

    /// Pushes jobs into the schedule. `rejected` is the number of inputs that were rejected since
    /// the last push.
    pub(crate) fn push_jobs(&self, jobs: &mut Vec<Box<Job>>, rejected: usize) {
        self.engine.update(|tx| {
            if let Some(batch) = tx.batch_mut(self.batch_id) {
                batch.record_pushed_and_rejected_inputs(jobs.len(), rejected);
            }
            tx.push_jobs(self.batch_id, jobs.drain(..));
        });
    }

    /// Moves all finished jobs into `results`, and sets when to wake the consumer next. Returns
    /// whether the batch is host limited: a slot is idle because host limits hold back all queued
    /// jobs.
    pub(crate) fn take_results_and_set_waker(
        &self,
        results: &mut VecDeque<Box<Job>>,
        wake_conditions: WakeConditions,
        cx: &Context<'_>,
    ) -> bool {
        // Cloning or dropping a waker may run the user's code. The waker is therefore cloned before
        // the critical section, and the replaced waker is dropped after the critical section.
        let waker = cx.waker().clone();
        let wants_host_limited = wake_conditions.wake_when_host_limited;
        let (_old_waker, is_host_limited) = self.engine.update(|tx| {
            let Some(batch) = tx.batch_mut(self.batch_id) else {
                return (None, false);
            };
            batch.take_undelivered_results(results);
            let old_waker = batch.set_wake_conditions_and_waker(wake_conditions, waker);
            if wants_host_limited
                && !std::mem::replace(&mut batch.is_in_host_limited_wake_list, true)
            {
                tx.add_to_host_limited_wake_list(self.batch_id);
            }
            tx.set_expects_more_inputs(self.batch_id, wants_host_limited);
            let is_host_limited =
                wants_host_limited && tx.is_batch_blocked_only_by_hosts(self.batch_id);
            (old_waker, is_host_limited)
        });
        is_host_limited
    }
}

impl Drop for OpenBatch {
    fn drop(&mut self) {
        if let Some(handler) = &self.job_options.body_handler {
            handler.close_to_starts();
        }
        let ((), effects) = {
            let mut control_state = self.control.lock();
            self.engine.update_deferring_effects(|tx| {
                let now = tx.now();
                let counts = tx.state().batch_result_counts(self.batch_id);
                let budgets = tx.state().budget_levels_for_batch(self.batch_id, now);
                control_state.end_batch_and_keep_progress(counts, budgets, now);
                tx.remove_batch(self.batch_id);
                tx.unregister_batch_or_fetch(self.runtime_id);
            })
        };
        drop(effects);
    }
}
