//! One open batch, as its reader holds it: jobs go in, results come out.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Waker};

use tokio::runtime::Id;

use super::{BatchControl, Effects, Engine, Job, JobOptions, ResultCounts, State, runtimes};
use crate::exchange::decision::{FinalRound, HopDecision};
use crate::schedule::{BatchId, BatchLimits, Time};
use crate::{Error, ErrorKind, Request};

const SAVE_TO_WITH_HANDLER: &str = "its body is to be saved, and to be read by a handler";

/// Where the results of a batch wait for their reader.
pub(super) struct BatchState {
    batch: BatchId,
    runtime: Id,
    results: VecDeque<Box<Job>>,
    /// Jobs that have been pushed and not put here yet.
    unfinished: usize,
    pub(super) counts: ResultCounts,
    /// None for the single fetches.
    control: Option<Arc<BatchControl>>,
    wake_interest: WakeInterest,
    /// Whether it is in the list of those that wish for other hosts.
    is_host_limit_waiter: bool,
    pub(super) waker: Option<Waker>,
}

/// When the reader wants to be woken.
#[derive(Copy, Clone, Debug, Default)]
pub(crate) struct WakeInterest {
    /// At each result, or only once so few jobs are open.
    pub(crate) each_result: bool,
    pub(crate) refill_mark: usize,
    /// Also when a slot is idle for want of a host that may start: the reader has more inputs.
    pub(crate) when_host_limited: bool,
}

impl BatchState {
    pub(super) fn batch(&self) -> BatchId {
        self.batch
    }

    /// A batch's number is used again; its name is not.
    pub(super) fn has_id(&self, batch: BatchId) -> bool {
        self.batch == batch
    }

    pub(super) fn runtime(&self) -> Id {
        self.runtime
    }

    pub(super) fn unfinished(&self) -> usize {
        self.unfinished
    }

    /// How many results its reader has let go, if it is a batch's.
    pub(super) fn delivered(&self) -> Option<usize> {
        self.control.as_ref().map(|control| control.delivered())
    }

    pub(super) fn push_result(&mut self, job: Box<Job>) -> Option<Waker> {
        self.counts.record(&job);
        self.results.push_back(job);
        self.unfinished -= 1;
        if self.wake_interest.each_result || self.unfinished <= self.wake_interest.refill_mark {
            self.waker.take()
        } else {
            None
        }
    }
}

impl State {
    /// Wakes the readers of batches that could use a slot if they had a job for another host. Any change may leave one
    /// so: a slot that another batch gave back, a host of its own that paused.
    pub(super) fn wake_host_limit_waiters(&mut self, now: Time, effects: &mut Effects) {
        let mut host_limit_waiters = std::mem::take(&mut self.host_limit_waiters);
        host_limit_waiters.retain(|&batch| {
            let is_host_limited = self.schedule.is_host_limited(batch, now);
            let Some(batch_state) = self.batch_state_mut(batch) else {
                return false;
            };
            batch_state.is_host_limit_waiter =
                batch_state.wake_interest.when_host_limited && !is_host_limited;
            if batch_state.wake_interest.when_host_limited && is_host_limited {
                effects.wakers.extend(batch_state.waker.take());
            }
            batch_state.is_host_limit_waiter
        });
        self.host_limit_waiters = host_limit_waiters;
    }
}

impl State {
    /// ResultCounts a job that was put back, if it was.
    pub(super) fn count_retry<E>(
        &mut self,
        batch: BatchId,
        requeued: Result<(), E>,
    ) -> Result<(), E> {
        if let Some(batch_state) = self.batch_state_mut(batch) {
            batch_state.counts.retries += usize::from(requeued.is_ok());
        }
        requeued
    }
}

/// An open batch. Dropping it cancels what is in flight and forgets what waits.
pub(crate) struct OpenBatch {
    engine: Arc<Engine>,
    batch: BatchId,
    runtime: Id,
    options: Arc<JobOptions>,
    control: Arc<BatchControl>,
}

impl OpenBatch {
    /// Opens a batch that runs on the present runtime, as it was steered before.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub(crate) fn open(
        engine: &Arc<Engine>,
        limits: BatchLimits,
        options: Arc<JobOptions>,
        control: &Arc<BatchControl>,
    ) -> Self {
        let current_runtime = runtimes::current();
        let mut control_state = control.lock();
        let mut state = engine.lock();
        let runtime = state.runtimes.add_user(current_runtime);
        let batch = state.add_batch(limits, runtime, Some(control));
        state.schedule.set_expects_more(batch, true);
        control_state.open(&mut state, batch, engine.now());
        drop((state, control_state));
        Self {
            engine: Arc::clone(engine),
            control: Arc::clone(control),
            batch,
            runtime,
            options,
        }
    }

    /// Makes the job of an input. Its lane is settled here, where `limit_by` may panic without harm.
    ///
    /// # Errors
    ///
    /// The finished job, if the request is invalid.
    pub(crate) fn new_job(&self, index: usize, request: Request) -> Result<Box<Job>, Box<Job>> {
        let mut job = self
            .engine
            .new_job(index, request, self.batch, &self.options)?;
        if self.options.retry.final_round {
            job.final_round = FinalRound::Planned;
        }
        Ok(job)
    }

    /// Hands in jobs, and starts what may start. So many others were refused before.
    pub(crate) fn push_jobs(&self, jobs: &mut Vec<Box<Job>>, rejected: usize) {
        let mut effects = Effects::default();
        {
            let mut state = self.engine.lock();
            let now = self.engine.now();
            if let Some(batch_state) = state.batch_state_mut(self.batch) {
                batch_state.unfinished += jobs.len();
                batch_state.counts.failed += rejected;
            }
            let jobs = jobs.drain(..);
            self.engine
                .push(&mut state, self.batch, jobs, now, &mut effects);
            self.engine.start_ready(&mut state, now, None, &mut effects);
        }
        effects.run();
    }

    /// Takes all results there are, and leaves word when to be woken next. True if a slot is idle for want of a host
    /// that may start.
    pub(crate) fn take_results(
        &self,
        results: &mut VecDeque<Box<Job>>,
        wake_interest: WakeInterest,
        cx: &Context<'_>,
    ) -> bool {
        // Cloned before the lock, and the old one dropped after it: a waker is code of others.
        let waker = cx.waker().clone();
        let mut effects = Effects::default();
        let (_old_waker, is_host_limited) = {
            let mut state = self.engine.lock();
            let state = &mut *state;
            let Some(batch_state) = state.batch_state_mut(self.batch) else {
                return false;
            };
            if results.is_empty() {
                std::mem::swap(results, &mut batch_state.results);
            } else {
                results.append(&mut batch_state.results);
            }
            batch_state.wake_interest = wake_interest;
            let old_waker = batch_state.waker.replace(waker);
            if wake_interest.when_host_limited
                && !std::mem::replace(&mut batch_state.is_host_limit_waiter, true)
            {
                state.host_limit_waiters.push(self.batch);
            }
            if state
                .schedule
                .set_expects_more(self.batch, wake_interest.when_host_limited)
            {
                let now = self.engine.now();
                self.engine.start_ready(state, now, None, &mut effects);
            }
            let is_host_limited = wake_interest.when_host_limited
                && state
                    .schedule
                    .is_host_limited(self.batch, self.engine.now());
            (old_waker, is_host_limited)
        };
        effects.run();
        is_host_limited
    }
}

impl Drop for OpenBatch {
    fn drop(&mut self) {
        if let Some(handler) = &self.options.handler {
            handler.close();
        }
        let mut effects = Effects::default();
        {
            let mut control_state = self.control.lock();
            let mut state = self.engine.lock();
            let now = self.engine.now();
            control_state.finish(state.batch_counts(self.batch).0, now);
            state.remove_batch(self.batch, &mut effects);
            state.leave_runtime(self.runtime, &mut effects);
            // What this batch kept from starting may start now.
            self.engine.start_ready(&mut state, now, None, &mut effects);
        }
        effects.run();
    }
}

impl Engine {
    pub(super) fn new_job(
        &self,
        index: usize,
        request: Request,
        batch: BatchId,
        options: &Arc<JobOptions>,
    ) -> Result<Box<Job>, Box<Job>> {
        let assignment = match options.handler.is_some() && request.save_path().is_some() {
            true => {
                Err(Error::from_kind(ErrorKind::InvalidRequest).with_detail(SAVE_TO_WITH_HANDLER))
            }
            false => self.limits.assign_lane(&request, &options.policy),
        };
        let mut job = Job::new(index, request, batch, Arc::clone(options));
        match assignment {
            Ok((lane, host)) => {
                (job.custom_lane_key, job.host_settings) = (lane, host);
                Ok(job)
            }
            Err(error) => {
                job.result = Some(Err(error));
                job.finish(ErrorKind::InvalidRequest);
                job.end_reservation(HopDecision::DONE);
                Err(job)
            }
        }
    }
}

impl State {
    pub(super) fn add_batch(
        &mut self,
        limits: BatchLimits,
        runtime: Id,
        control: Option<&Arc<BatchControl>>,
    ) -> BatchId {
        let batch = self.schedule.add_batch(limits);
        let batch_state = BatchState {
            batch,
            runtime,
            results: VecDeque::new(),
            unfinished: 0,
            counts: ResultCounts::default(),
            control: control.map(Arc::clone),
            wake_interest: WakeInterest::default(),
            is_host_limit_waiter: false,
            waker: None,
        };
        if self.batches.len() <= batch.index() {
            self.batches.resize_with(batch.index() + 1, || None);
        }
        self.batches[batch.index()] = Some(batch_state);
        batch
    }

    pub(super) fn remove_batch(&mut self, batch: BatchId, effects: &mut Effects) {
        effects
            .dropped_jobs
            .append(&mut self.schedule.remove_batch(batch));
        if let Some(batch_state) = self.batches[batch.index()].take() {
            self.finished_counts += batch_state.counts;
            effects.dropped_jobs.extend(batch_state.results);
            effects.wakers.extend(batch_state.waker);
        }
        self.abort_in_flight(batch, None);
    }

    /// One user of a runtime less. The last takes the batch of its single fetches along.
    pub(super) fn leave_runtime(&mut self, runtime: Id, effects: &mut Effects) {
        if let Some(single_fetches) = self.runtimes.remove_user(runtime) {
            self.remove_batch(single_fetches, effects);
        }
    }
}
