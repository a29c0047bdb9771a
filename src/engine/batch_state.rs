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

/// The state of an open batch, or of the batch that holds a runtime's single fetches.
pub(super) struct BatchState {
    id: BatchId,
    runtime: Id,
    /// Finished jobs that the consumer has not taken.
    results: VecDeque<Box<Job>>,
    /// Number of pushed jobs that have no result.
    unfinished: usize,
    pub(super) result_counts: ResultCounts,
    /// The control shared with the batch's handles; `None` for the batch of single fetches.
    control: Option<Arc<BatchControl>>,
    wake_interest: WakeInterest,
    /// Whether the batch is in [`State::host_limit_waiters`](super::state::State).
    pub(super) is_host_limit_waiter: bool,
    waker: Option<Waker>,
}

/// When to wake a batch's consumer (the task that takes the results).
#[derive(Copy, Clone, Debug, Default)]
pub(crate) struct WakeInterest {
    /// Wake the consumer at each result.
    pub(crate) each_result: bool,
    /// Wake the consumer when at most this many jobs are unfinished.
    pub(crate) refill_mark: usize,
    /// Wake the consumer, to pull more inputs, when a slot is idle because host limits hold back
    /// all queued jobs.
    pub(crate) when_host_limited: bool,
}

impl BatchState {
    pub(super) fn new(id: BatchId, runtime: Id, control: Option<&Arc<BatchControl>>) -> Self {
        Self {
            id,
            runtime,
            results: VecDeque::new(),
            unfinished: 0,
            result_counts: ResultCounts::default(),
            control: control.cloned(),
            wake_interest: WakeInterest::default(),
            is_host_limit_waiter: false,
            waker: None,
        }
    }

    /// The id of the batch. A later batch may have the same index, but never the same id.
    pub(super) fn id(&self) -> BatchId {
        self.id
    }

    pub(super) fn runtime(&self) -> Id {
        self.runtime
    }

    /// Number of inputs pulled: inputs that became jobs, and inputs that were rejected.
    pub(super) fn inputs_pulled(&self) -> usize {
        self.result_counts.completed() + self.unfinished
    }

    /// Number of results the consumer has taken; `None` for single fetches.
    pub(super) fn delivered_results(&self) -> Option<usize> {
        self.control
            .as_ref()
            .map(|control| control.delivered_results())
    }

    /// Counts jobs that are being pushed, and inputs that were rejected before they became jobs.
    pub(super) fn add_inputs(&mut self, pushed: usize, rejected: usize) {
        self.unfinished += pushed;
        self.result_counts.failed += rejected;
    }

    /// Adds a finished job. Returns the consumer's waker if the consumer is to be woken.
    pub(super) fn push_result(&mut self, job: Box<Job>) -> Option<Waker> {
        self.result_counts.record_result(&job);
        self.results.push_back(job);
        self.unfinished -= 1;
        if self.wake_interest.each_result || self.unfinished <= self.wake_interest.refill_mark {
            self.waker.take()
        } else {
            None
        }
    }

    /// Moves all undelivered results into `results`.
    pub(super) fn take_results(&mut self, results: &mut VecDeque<Box<Job>>) {
        if results.is_empty() {
            std::mem::swap(results, &mut self.results);
        } else {
            results.append(&mut self.results);
        }
    }

    /// Sets when to wake the consumer next. Returns the replaced waker, whose destructor may be the
    /// user's code.
    pub(super) fn set_waker(&mut self, interest: WakeInterest, waker: Waker) -> Option<Waker> {
        self.wake_interest = interest;
        self.waker.replace(waker)
    }

    pub(super) fn take_waker(&mut self) -> Option<Waker> {
        self.waker.take()
    }

    /// Updates whether the consumer is still to be woken when the batch becomes host limited (a
    /// slot is idle because host limits hold back all queued jobs). Returns the consumer's waker if
    /// the batch is host limited now.
    pub(super) fn update_host_limited(&mut self, is_host_limited: bool) -> Option<Waker> {
        let wants_wakeup = self.wake_interest.when_host_limited;
        self.is_host_limit_waiter = wants_wakeup && !is_host_limited;
        if wants_wakeup && is_host_limited {
            self.waker.take()
        } else {
            None
        }
    }

    /// Ends the batch, and returns the undelivered results and the consumer's waker.
    pub(super) fn into_undelivered(self) -> (VecDeque<Box<Job>>, Option<Waker>) {
        (self.results, self.waker)
    }
}
