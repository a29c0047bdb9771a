//! The engine's record of an open batch: results waiting for the consumer, and when to wake it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;

use tokio::runtime::Id;

use super::control::BatchControl;
use super::job::Job;
use super::progress::ResultCounts;
use crate::schedule::BatchId;

/// A batch that is open, or the batch that all single fetches of a runtime share.
pub(super) struct BatchState {
    id: BatchId,
    runtime: Id,
    /// Results the consumer has not taken.
    results: VecDeque<Box<Job>>,
    /// Number of jobs that were pushed and have no result.
    unfinished: usize,
    pub(super) result_counts: ResultCounts,
    /// `None` for single fetches.
    control: Option<Arc<BatchControl>>,
    wake_interest: WakeInterest,
    /// Whether the batch is in [`State::host_limit_waiters`](super::state::State).
    pub(super) is_host_limit_waiter: bool,
    waker: Option<Waker>,
}

/// When a batch's consumer wants to be woken.
#[derive(Copy, Clone, Debug, Default)]
pub(crate) struct WakeInterest {
    /// At each result.
    pub(crate) each_result: bool,
    /// When no more than this many jobs are unfinished.
    pub(crate) refill_mark: usize,
    /// When a slot is idle because no host of the queued jobs may start, since the consumer has
    /// more inputs.
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

    /// Identifies the batch. Its index is reused by later batches; the whole id is not.
    pub(super) fn id(&self) -> BatchId {
        self.id
    }

    pub(super) fn runtime(&self) -> Id {
        self.runtime
    }

    /// Number of inputs that became jobs, or were rejected before that.
    pub(super) fn inputs_pulled(&self) -> usize {
        self.result_counts.completed() + self.unfinished
    }

    /// Number of results the consumer has taken; `None` for single fetches.
    pub(super) fn delivered_results(&self) -> Option<usize> {
        self.control
            .as_ref()
            .map(|control| control.delivered_results())
    }

    /// Adds newly pushed jobs, and inputs that were rejected before they became jobs.
    pub(super) fn add_inputs(&mut self, pushed: usize, rejected: usize) {
        self.unfinished += pushed;
        self.result_counts.failed += rejected;
    }

    /// Adds a result, and returns the waker to wake for it.
    pub(super) fn push_result(&mut self, job: Box<Job>) -> Option<Waker> {
        self.result_counts.record(&job);
        self.results.push_back(job);
        self.unfinished -= 1;
        if self.wake_interest.each_result || self.unfinished <= self.wake_interest.refill_mark {
            self.waker.take()
        } else {
            None
        }
    }

    /// Moves the results into `results`.
    pub(super) fn take_results(&mut self, results: &mut VecDeque<Box<Job>>) {
        if results.is_empty() {
            std::mem::swap(results, &mut self.results);
        } else {
            results.append(&mut self.results);
        }
    }

    /// Sets when to wake the consumer next, and returns the waker this replaces, which may be the
    /// user's code to drop.
    pub(super) fn set_waker(&mut self, interest: WakeInterest, waker: Waker) -> Option<Waker> {
        self.wake_interest = interest;
        self.waker.replace(waker)
    }

    pub(super) fn take_waker(&mut self) -> Option<Waker> {
        self.waker.take()
    }

    /// Decides whether the batch remains a host-limit waiter, and returns the waker to wake if it
    /// just became host limited.
    pub(super) fn update_host_limited(&mut self, is_host_limited: bool) -> Option<Waker> {
        let wants_wakeup = self.wake_interest.when_host_limited;
        self.is_host_limit_waiter = wants_wakeup && !is_host_limited;
        if wants_wakeup && is_host_limited {
            self.waker.take()
        } else {
            None
        }
    }

    /// Takes the batch apart as it ends.
    pub(super) fn into_undelivered(self) -> (VecDeque<Box<Job>>, Option<Waker>) {
        (self.results, self.waker)
    }
}
