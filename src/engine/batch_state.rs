//! The engine's record of an open batch: undelivered results, and when to wake the consumer (the
//! task that takes the results).

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;

use tokio::runtime::Id;

use super::control::BatchControl;
use super::job::Job;
use super::result_counts::ResultCounts;
use crate::schedule::BatchId;

/// The state of an open batch, or of a batch that holds single fetches of a runtime.
pub(super) struct BatchState {
    id: BatchId,
    runtime_id: Id,
    /// Finished jobs that the consumer has not taken.
    undelivered_results: VecDeque<Box<Job>>,
    /// Number of pushed jobs that have no result.
    unfinished_job_count: usize,
    pub(super) result_counts: ResultCounts,
    /// The control shared with the batch's handles; `None` for the batch of single fetches.
    control: Option<Arc<BatchControl>>,
    wake_conditions: WakeConditions,
    /// Whether the batch is in [`State::host_limited_wake_list`](super::state::State).
    pub(super) is_in_host_limited_wake_list: bool,
    consumer_waker: Option<Waker>,
}

/// When to wake a batch's consumer (the task that takes the results).
#[derive(Copy, Clone, Debug, Default)]
pub(crate) struct WakeConditions {
    /// Wake the consumer at each result.
    pub(crate) wake_at_each_result: bool,
    /// Wake the consumer when at most this many jobs are unfinished.
    pub(crate) wake_at_unfinished_job_count: usize,
    /// Wake the consumer, to pull more inputs, when a slot is idle because host limits hold back
    /// all queued jobs.
    pub(crate) wake_when_host_limited: bool,
}

impl BatchState {
    pub(super) fn new(id: BatchId, runtime: Id, control: Option<&Arc<BatchControl>>) -> Self {
        Self {
            id,
            runtime_id: runtime,
            undelivered_results: VecDeque::new(),
            unfinished_job_count: 0,
            result_counts: ResultCounts::default(),
            control: control.cloned(),
            wake_conditions: WakeConditions::default(),
            is_in_host_limited_wake_list: false,
            consumer_waker: None,
        }
    }

    /// The id of the batch. A later batch may have the same index, but never the same id.
    pub(super) fn id(&self) -> BatchId {
        self.id
    }

    pub(super) fn runtime_id(&self) -> Id {
        self.runtime_id
    }

    /// Number of inputs pulled: inputs that became jobs, and inputs that were rejected.
    pub(super) fn pulled_input_count(&self) -> usize {
        self.result_counts.completed() + self.unfinished_job_count
    }

    /// Number of results the consumer has taken; `None` for single fetches.
    pub(super) fn delivered_result_count(&self) -> Option<usize> {
        self.control
            .as_ref()
            .map(|control| control.delivered_result_count())
    }

    /// Counts jobs that are being pushed, and inputs that were rejected before they became jobs.
    pub(super) fn record_pushed_and_rejected_inputs(&mut self, pushed: usize, rejected: usize) {
        self.unfinished_job_count += pushed;
        self.result_counts.failed += rejected;
    }

    /// Adds a finished job. Returns the consumer's waker if the consumer is to be woken.
    pub(super) fn push_result(&mut self, job: Box<Job>) -> Option<Waker> {
        self.result_counts.record_result(&job);
        self.undelivered_results.push_back(job);
        self.unfinished_job_count -= 1;
        if self.wake_conditions.wake_at_each_result
            || self.unfinished_job_count <= self.wake_conditions.wake_at_unfinished_job_count
        {
            self.consumer_waker.take()
        } else {
            None
        }
    }

    /// Moves all undelivered results into `results`.
    pub(super) fn take_undelivered_results(&mut self, results: &mut VecDeque<Box<Job>>) {
        if results.is_empty() {
            std::mem::swap(results, &mut self.undelivered_results);
        } else {
            results.append(&mut self.undelivered_results);
        }
    }

    /// Sets when to wake the consumer next. Returns the replaced waker, whose destructor may run
    /// the user's code.
    pub(super) fn set_wake_conditions_and_waker(
        &mut self,
        conditions: WakeConditions,
        waker: Waker,
    ) -> Option<Waker> {
        self.wake_conditions = conditions;
        self.consumer_waker.replace(waker)
    }

    pub(super) fn take_consumer_waker(&mut self) -> Option<Waker> {
        self.consumer_waker.take()
    }

    /// Returns the consumer's waker if the batch is host limited: a slot is idle because host
    /// limits hold back all queued jobs. Otherwise, the batch stays in the wake list if its
    /// consumer is to be woken once it is host limited.
    pub(super) fn take_consumer_waker_if_host_limited(
        &mut self,
        is_host_limited: bool,
    ) -> Option<Waker> {
        let wants_wakeup = self.wake_conditions.wake_when_host_limited;
        self.is_in_host_limited_wake_list = wants_wakeup && !is_host_limited;
        if wants_wakeup && is_host_limited {
            self.consumer_waker.take()
        } else {
            None
        }
    }

    /// Ends the batch, and returns the undelivered results and the consumer's waker.
    pub(super) fn into_undelivered_results_and_waker(self) -> (VecDeque<Box<Job>>, Option<Waker>) {
        (self.undelivered_results, self.consumer_waker)
    }
}
