//! A batch under way, as its reader's own task drives it.
//!
//! The reader pulls the inputs (they may borrow from its stack) and the workers run them; the look-ahead window keeps
//! the workers busy while the reader is elsewhere. Every ending is this, with an order of its own on top.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use slab::Slab;
use tokio::task::coop::poll_proceed;
use tokio::time::{Instant, Sleep, sleep_until};

use super::follow::Frontier;
use super::initial_window;
use super::inputs::Inputs;
use crate::engine::{
    BatchControl, BodyBudget, BodyHandler, ControlOwner, Engine, Job, JobOptions, OpenBatch,
    RequestPolicy, WakeInterest, instant_after,
};
use crate::limits::{Retry, Timeouts};
use crate::schedule::{BatchLimits, GateLimits};
use crate::{ErrorKind, Request, Result};

/// So many jobs are handed in under one lock.
const JOBS_PER_PUSH: usize = 128;

/// What a batch was asked to be.
pub(super) struct BatchOptions {
    pub(super) policy: Arc<RequestPolicy>,
    pub(super) overall: GateLimits,
    pub(super) per_lane: GateLimits,
    pub(super) retry: Retry,
    pub(super) timeouts: Timeouts,
    pub(super) deadline: Option<Duration>,
    /// How far inputs are read ahead at first, and at most.
    pub(super) initial_window: usize,
    pub(super) max_window: usize,
    pub(super) handler: Option<Arc<dyn BodyHandler>>,
    pub(super) body_budget: Option<Arc<BodyBudget>>,
    pub(super) control: ControlOwner,
}

/// What of a finished job is its result.
pub(super) type ExtractResult<R> = fn(&mut Job) -> Result<R>;

/// Who reads the results, and so what the run owes it.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(super) enum ConsumerKind {
    /// Takes each result as it comes; after the deadline it takes no more inputs.
    Stream,
    /// Wants all of them at the end, also those the deadline has overtaken.
    Gather,
}

pub(super) struct BatchRun<'a, T> {
    engine: Arc<Engine>,
    options: BatchOptions,
    consumer_kind: ConsumerKind,
    inputs: Option<Inputs<'a, T>>,
    /// None before the first poll, and after the end.
    open_batch: Option<OpenBatch>,
    started: bool,
    tags: Slab<T>,
    ready: VecDeque<Box<Job>>,
    /// Inputs pulled so far.
    inputs_pulled: usize,
    /// Inputs pulled whose results the reader has not let go.
    undelivered: usize,
    window: usize,
    deadline: Option<Pin<Box<Sleep>>>,
    /// Orders of a handle that were heeded.
    seen_commands: usize,
    stopped_by: Option<ErrorKind>,
    /// Refused since the last were handed in: they are done, and were never pushed.
    rejected: usize,
    /// What results led to, if that is followed.
    frontier: Option<Box<Frontier<T>>>,
}

impl<'a, T> BatchRun<'a, T> {
    pub(super) fn new(
        engine: Arc<Engine>,
        options: BatchOptions,
        consumer_kind: ConsumerKind,
        inputs: Inputs<'a, T>,
    ) -> Self {
        Self {
            window: options.initial_window,
            engine,
            options,
            consumer_kind,
            inputs: Some(inputs),
            open_batch: None,
            started: false,
            tags: Slab::new(),
            ready: VecDeque::new(),
            inputs_pulled: 0,
            undelivered: 0,
            deadline: None,
            seen_commands: 0,
            stopped_by: None,
            rejected: 0,
            frontier: None,
        }
    }

    /// The next finished job, in the order of completion. It keeps its place in the window until it is [released].
    ///
    /// [released]: Self::release
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<(T, Box<Job>)>> {
        if !self.started {
            self.start();
        }
        // Results that are always there must not keep the task from giving way.
        let coop = ready!(poll_proceed(cx));
        loop {
            self.check_deadline(cx);
            self.apply_commands();
            if self.undelivered <= self.refill_mark() {
                self.fill_window(cx);
            }
            if let Some(job) = self.ready.pop_front() {
                coop.made_progress();
                let tag = self.tags.remove(job.tag_key);
                return Poll::Ready(Some((tag, job)));
            }
            if self.tags.is_empty() && !self.has_more_inputs() {
                self.open_batch = None;
                return Poll::Ready(None);
            }
            ready!(self.poll_results(cx));
        }
    }

    /// At so few outstanding the window is filled again: half of it, but never so few that a slot would be idle.
    fn refill_mark(&self) -> usize {
        let busy = self.options.overall.concurrency.min(self.window);
        (self.window / 2).max(busy - 1)
    }

    /// What came before all inputs were pulled: the deadline, or an order to take no more.
    pub(super) fn stopped_by(&self) -> Option<ErrorKind> {
        self.stopped_by
    }

    pub(super) fn control(&self) -> &Arc<BatchControl> {
        self.options.control.control()
    }

    /// The reader has let go of a result: its place in the window is free.
    pub(super) fn mark_delivered(&mut self) {
        self.undelivered -= 1;
        self.control()
            .set_delivered(self.inputs_pulled - self.undelivered);
    }

    /// How many inputs were pulled so far.
    pub(super) fn inputs_pulled(&self) -> usize {
        self.inputs_pulled
    }

    /// How many inputs there are at least: what the iterator says of itself.
    pub(super) fn min_expected_inputs(&self) -> usize {
        match &self.inputs {
            Some(Inputs::Iter(inputs)) => inputs.size_hint().0,
            _ => 0,
        }
    }

    /// The batch begins, and its deadline with it, when it is first polled.
    fn start(&mut self) {
        let deadline_at = self
            .options
            .deadline
            .map(|limit| instant_after(Instant::now(), limit));
        let deadline = deadline_at.map(|at| self.engine.time(at));
        let limits = BatchLimits {
            overall: self.options.overall,
            per_lane: self.options.per_lane,
            deadline,
        };
        let options = JobOptions {
            policy: Arc::clone(&self.options.policy),
            retry: self.options.retry.clone(),
            timeouts: self.options.timeouts.clone(),
            deadline,
            handler: self.options.handler.clone(),
            body_budget: self.options.body_budget.clone(),
        };
        self.open_batch = Some(OpenBatch::open(
            &self.engine,
            limits,
            Arc::new(options),
            self.control(),
        ));
        self.deadline = deadline_at.map(|at| Box::pin(sleep_until(at)));
        self.started = true;
    }

    /// Takes what has come, or waits for it. Ready when there is something to look at again.
    fn poll_results(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(open_batch) = &self.open_batch else {
            // An input panicked in an earlier poll, and the batch went with it.
            self.tags.clear();
            self.stop_following();
            return Poll::Ready(());
        };
        let can_take_more = self.has_more_inputs() && self.undelivered < self.options.max_window;
        let wake_interest = WakeInterest {
            each_result: self.consumer_kind == ConsumerKind::Stream,
            refill_mark: if self.has_more_inputs() {
                self.refill_mark()
            } else {
                0
            },
            when_host_limited: can_take_more,
        };
        let is_host_limited = open_batch.take_results(&mut self.ready, wake_interest, cx);
        if is_host_limited {
            let pulled_before = self.inputs_pulled;
            if self.undelivered >= self.window {
                self.window = self.window.saturating_mul(2).min(self.options.max_window);
            }
            self.fill_window(cx);
            // The end of the inputs is something to say, too.
            if self.inputs_pulled > pulled_before || !self.has_more_inputs() {
                return Poll::Ready(());
            }
        }
        // An order that came before the waker was left would not be heard of again.
        if !self.ready.is_empty() || self.seen_commands != self.control().consumer_commands() {
            return Poll::Ready(());
        }
        Poll::Pending
    }

    /// Stops pulling inputs once the deadline has come.
    fn check_deadline(&mut self, cx: &mut Context<'_>) {
        let Some(deadline) = &mut self.deadline else {
            return;
        };
        if deadline.as_mut().poll(cx).is_pending() {
            return;
        }
        self.deadline = None;
        self.stop_inputs(ErrorKind::Deadline);
    }

    /// Does what a handle has ordered, as far as it concerns the inputs; the schedule has done its part.
    fn apply_commands(&mut self) {
        let consumer_commands = self.control().consumer_commands();
        if std::mem::replace(&mut self.seen_commands, consumer_commands) == consumer_commands {
            return;
        }
        if let Some(concurrency) = self.control().commanded_concurrency() {
            self.options.overall.concurrency = concurrency;
            let window = initial_window(concurrency).min(self.options.max_window);
            self.window = self.window.max(window);
        }
        if self.control().are_inputs_closed() {
            self.stop_inputs(ErrorKind::Cancelled);
        }
    }

    fn stop_inputs(&mut self, reason: ErrorKind) {
        self.stop_following();
        // What is left of an iterator is owed an answer to one who gathers. A stream may never end.
        let keeps_inputs = self.consumer_kind == ConsumerKind::Gather
            && self
                .inputs
                .as_ref()
                .is_some_and(|inputs| !inputs.is_stream());
        if !keeps_inputs && self.inputs.take().is_some() {
            self.stopped_by = Some(reason);
        }
    }

    /// Whether there is anything left to admit.
    fn has_more_inputs(&self) -> bool {
        let has_links = |frontier: &Frontier<T>| !frontier.is_empty();
        self.inputs.is_some() || self.frontier.as_deref().is_some_and(has_links)
    }

    /// From the start, results may lead to more.
    ///
    /// # Panics
    ///
    /// If it has started.
    #[track_caller]
    pub(super) fn set_frontier(&mut self, frontier: Frontier<T>) {
        assert!(
            !self.started,
            "a batch that is under way was told to follow"
        );
        self.frontier = Some(Box::new(frontier));
    }

    pub(super) fn frontier(&self) -> Option<&Frontier<T>> {
        self.frontier.as_deref()
    }

    pub(super) fn frontier_mut(&mut self) -> Option<&mut Frontier<T>> {
        self.frontier.as_deref_mut()
    }

    fn stop_following(&mut self) {
        if let Some(frontier) = &mut self.frontier {
            frontier.close();
            self.options
                .control
                .control()
                .set_discovered(frontier.followed_count());
        }
    }

    /// A result led to more.
    pub(super) fn enqueue_links(&mut self, index: usize, depth: usize, links: Vec<(T, Request)>) {
        if let Some(frontier) = &mut self.frontier {
            frontier.add(index, depth, links);
            self.options
                .control
                .control()
                .set_discovered(frontier.followed_count());
            self.push_links();
        }
    }

    /// Hands in what results led to, until the window is full.
    fn push_links(&mut self) {
        // It is put back below.
        let Some(open_batch) = self.open_batch.take() else {
            return;
        };
        let mut jobs = Vec::new();
        while self.undelivered < self.window
            && let Some(frontier) = &mut self.frontier
            && let Some((tag, request)) = frontier.pop_next(self.inputs_pulled)
        {
            self.make_job(&open_batch, tag, request, &mut jobs);
            if jobs.len() == JOBS_PER_PUSH {
                self.push_jobs(&open_batch, &mut jobs);
            }
        }
        self.push_jobs(&open_batch, &mut jobs);
        self.open_batch = Some(open_batch);
    }

    /// Hands in what results led to, and then pulls inputs, until the window is full, the inputs end or have none for now.
    fn fill_window(&mut self, cx: &mut Context<'_>) {
        self.push_links();
        if self.inputs.is_none() {
            return;
        }
        // Both are put back below. If an input panics they are dropped as the panic passes, and the batch is cancelled.
        let (Some(mut inputs), Some(open_batch)) = (self.inputs.take(), self.open_batch.take())
        else {
            return;
        };
        let mut jobs = Vec::new();
        let mut inputs_ended = false;
        while self.undelivered < self.window {
            match inputs.poll_next(cx) {
                Poll::Ready(Some((tag, request))) => {
                    if let Some(frontier) = &mut self.frontier {
                        frontier.mark_visited(&request);
                    }
                    self.make_job(&open_batch, tag, request, &mut jobs);
                }
                Poll::Ready(None) => {
                    inputs_ended = true;
                    break;
                }
                Poll::Pending => break,
            }
            if jobs.len() == JOBS_PER_PUSH {
                self.push_jobs(&open_batch, &mut jobs);
            }
        }
        self.push_jobs(&open_batch, &mut jobs);
        self.inputs = (!inputs_ended).then_some(inputs);
        self.open_batch = Some(open_batch);
    }

    fn make_job(
        &mut self,
        open_batch: &OpenBatch,
        tag: T,
        request: Request,
        jobs: &mut Vec<Box<Job>>,
    ) {
        let tag = self.tags.insert(tag);
        match open_batch.new_job(self.inputs_pulled, request) {
            Ok(mut job) => {
                job.tag_key = tag;
                jobs.push(job);
            }
            Err(mut rejected) => {
                rejected.tag_key = tag;
                self.rejected += 1;
                self.ready.push_back(rejected);
            }
        }
        self.inputs_pulled += 1;
        self.undelivered += 1;
    }

    fn push_jobs(&mut self, open_batch: &OpenBatch, jobs: &mut Vec<Box<Job>>) {
        if !jobs.is_empty() || self.rejected > 0 {
            open_batch.push_jobs(jobs, std::mem::take(&mut self.rejected));
        }
    }
}
