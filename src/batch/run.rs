//! A running batch, driven by its consumer's task.
//!
//! The consumer's task pulls the inputs, which may borrow from its stack, and pushes jobs to the
//! engine, whose workers run them. The look-ahead window keeps the workers busy while the consumer
//! does something else. Every future and stream of a batch wraps a [`BatchRun`].

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use slab::Slab;
use tokio::task::coop::poll_proceed;
use tokio::time::{Instant, Sleep, sleep_until};

use super::frontier::Frontier;
use super::inputs::Inputs;
use super::options::BatchOptions;
use super::window::LookAheadWindow;
use crate::engine::{
    BatchControl, ControlOwner, Engine, Job, JobOptions, OpenBatch, WakeConditions, instant_after,
};
use crate::error::ErrorKind;
use crate::request::Request;

/// Largest number of jobs pushed in one critical section.
const MAX_JOBS_PER_PUSH: usize = 128;

#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(super) enum ConsumerKind {
    /// The consumer takes each result as it completes. After the deadline, no more inputs are
    /// pulled.
    TakesEachResult,
    /// The consumer takes all results at the end. After the deadline, the rest of an iterator is
    /// pulled to give each input a result.
    TakesAllResultsAtEnd,
}

pub(super) struct BatchRun<'a, T> {
    engine: Arc<Engine>,
    options: BatchOptions,
    control: ControlOwner,
    consumer_kind: ConsumerKind,
    inputs: Option<Inputs<'a, T>>,
    /// Found requests that are not queued yet; `None` if the batch does not follow results.
    frontier: Option<Box<Frontier<T>>>,
    /// The batch in the engine; `None` before the first poll and after the end.
    open_batch: Option<OpenBatch>,
    has_started: bool,
    /// Tags of the jobs without a delivered result, by [`Job::tag_key`].
    tags: Slab<T>,
    ready_results: VecDeque<Box<Job>>,
    pulled_input_count: usize,
    /// Number of inputs rejected since the last push. A rejected input has a result, but was never
    /// pushed.
    rejected_count_since_push: usize,
    look_ahead_window: LookAheadWindow,
    deadline_timer: Option<Pin<Box<Sleep>>>,
    /// Number of handle commands that the consumer has applied.
    applied_command_count: usize,
    inputs_stop_reason: Option<ErrorKind>,
}

impl<'a, T> BatchRun<'a, T> {
    pub(super) fn new(
        engine: Arc<Engine>,
        mut options: BatchOptions,
        control: ControlOwner,
        inputs: Inputs<'a, T>,
        consumer_kind: ConsumerKind,
    ) -> Self {
        let concurrency = engine
            .limits
            .batch_concurrency(&options.limit_settings, options.tenant.as_deref());
        options.limit_settings.concurrency = Some(concurrency);
        let look_ahead_window = LookAheadWindow::new(concurrency, options.look_ahead);
        Self {
            engine,
            options,
            control,
            consumer_kind,
            inputs: Some(inputs),
            frontier: None,
            open_batch: None,
            has_started: false,
            tags: Slab::new(),
            ready_results: VecDeque::new(),
            pulled_input_count: 0,
            rejected_count_since_push: 0,
            look_ahead_window,
            deadline_timer: None,
            applied_command_count: 0,
            inputs_stop_reason: None,
        }
    }

    /// Returns the next finished job, in the order of completion. The job occupies the window until
    /// [`mark_delivered`](Self::mark_delivered) is called.
    pub(super) fn poll_next_job(&mut self, cx: &mut Context<'_>) -> Poll<Option<(T, Box<Job>)>> {
        if !self.has_started {
            self.start_batch_and_deadline();
        }
        // Without this, a task that always finds results ready would starve other tasks.
        let coop = ready!(poll_proceed(cx));
        loop {
            self.stop_inputs_if_deadline_passed(cx);
            self.apply_commands_to_inputs();
            if self.look_ahead_window.undelivered_count()
                <= self.look_ahead_window.refill_threshold()
            {
                self.fill_window(cx);
            }
            if let Some(job) = self.ready_results.pop_front() {
                coop.made_progress();
                let tag = self.tags.remove(job.tag_key);
                return Poll::Ready(Some((tag, job)));
            }
            if self.tags.is_empty() && !self.has_more_inputs() {
                self.open_batch = None;
                return Poll::Ready(None);
            }
            ready!(self.poll_finished_jobs_or_command(cx));
        }
    }

    /// Marks a result as delivered, which frees its place in the window.
    pub(super) fn mark_delivered(&mut self, request: &Request) {
        self.look_ahead_window.remove_delivered_input(request);
        self.control().set_delivered_result_count(
            self.pulled_input_count - self.look_ahead_window.undelivered_count(),
        );
    }

    /// Why the batch stopped pulling inputs early; `None` if it did not.
    pub(super) fn inputs_stop_reason(&self) -> Option<ErrorKind> {
        self.inputs_stop_reason
    }

    pub(super) fn control(&self) -> &Arc<BatchControl> {
        self.control.control()
    }

    pub(super) fn pulled_input_count(&self) -> usize {
        self.pulled_input_count
    }

    /// Lower bound of the number of inputs.
    pub(super) fn min_input_count(&self) -> usize {
        match &self.inputs {
            Some(Inputs::Iter(inputs)) => inputs.size_hint().0,
            _ => 0,
        }
    }

    /// Opens the batch in the engine and starts the deadline, at the first poll.
    fn start_batch_and_deadline(&mut self) {
        let deadline = self.options.deadline;
        let deadline_at = deadline.map(|limit| instant_after(Instant::now(), limit));
        let job_options = JobOptions {
            deadline: deadline_at.map(|at| self.engine.to_time(at)),
            stop_condition: (self.options.job_options.stop_condition.as_ref())
                .map(|condition| condition.with_batch_control(self.control())),
            ..self.options.job_options.clone()
        };
        let open_batch = OpenBatch::open(
            &self.engine,
            &self.options.limit_settings,
            self.options.tenant.as_deref(),
            job_options,
            self.control(),
        );
        if open_batch.has_time_driver() {
            self.deadline_timer = deadline_at.map(|at| Box::pin(sleep_until(at)));
        }
        self.open_batch = Some(open_batch);
        self.has_started = true;
    }

    /// Moves finished jobs from the engine to `ready_results`. Returns ready if the caller may have
    /// to deliver a result, pull inputs or apply a command.
    fn poll_finished_jobs_or_command(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(open_batch) = &self.open_batch else {
            // The input iterator panicked in an earlier poll, which cancelled the batch.
            self.tags.clear();
            self.stop_following();
            return Poll::Ready(());
        };
        let has_more_inputs = self.has_more_inputs();
        let has_stop_condition = self.options.job_options.stop_condition.is_some();
        let wake_conditions = WakeConditions {
            wake_at_each_result: self.consumer_kind == ConsumerKind::TakesEachResult
                || has_stop_condition,
            wake_at_unfinished_job_count: if has_more_inputs {
                self.look_ahead_window.refill_threshold()
            } else {
                0
            },
            wake_when_host_limited: has_more_inputs
                && (self.look_ahead_window.has_room() || self.look_ahead_window.can_grow()),
        };
        let is_host_limited =
            open_batch.take_results_and_set_waker(&mut self.ready_results, wake_conditions, cx);
        // The workers have applied the stop condition to all results except those of requests that
        // never started.
        if has_stop_condition {
            for job in &mut self.ready_results {
                job.drain_batch_if_stop_condition_met();
            }
        }
        if is_host_limited {
            let pulled_before = self.pulled_input_count;
            self.look_ahead_window.grow_if_full();
            self.fill_window(cx);
            // Without more inputs, the batch may be complete, which the caller checks.
            if self.pulled_input_count > pulled_before || !self.has_more_inputs() {
                return Poll::Ready(());
            }
        }
        // A command sent before the waker was stored has not woken this task, so it is checked
        // here.
        if !self.ready_results.is_empty()
            || self.applied_command_count != self.control().commands_for_consumer_count()
        {
            return Poll::Ready(());
        }
        Poll::Pending
    }

    /// Stops pulling inputs once the deadline has passed.
    fn stop_inputs_if_deadline_passed(&mut self, cx: &mut Context<'_>) {
        if let Some(deadline) = &mut self.deadline_timer
            && deadline.as_mut().poll(cx).is_ready()
        {
            self.deadline_timer = None;
            self.stop_inputs(ErrorKind::Deadline);
        }
    }

    /// Applies the effects of commands on the inputs and the look-ahead window. The engine has
    /// already applied all other effects.
    fn apply_commands_to_inputs(&mut self) {
        let commands = self.control().commands_for_consumer_count();
        if std::mem::replace(&mut self.applied_command_count, commands) == commands {
            return;
        }
        if let Some(concurrency) = self.control().commanded_concurrency() {
            self.look_ahead_window.set_concurrency(concurrency);
        }
        if self.control().are_inputs_closed() {
            self.stop_inputs(ErrorKind::Cancelled);
        }
    }

    fn stop_inputs(&mut self, reason: ErrorKind) {
        self.stop_following();
        // `gather` returns a result for every input of an iterator, so it keeps the iterator. A
        // stream may never end, so it is dropped.
        let inputs = self.inputs.as_ref();
        let keeps_inputs = self.consumer_kind == ConsumerKind::TakesAllResultsAtEnd
            && inputs.is_some_and(|inputs| !inputs.is_stream());
        if !keeps_inputs && self.inputs.take().is_some() {
            self.inputs_stop_reason = Some(reason);
        }
    }

    /// Whether inputs, or requests found by following, can still be pulled.
    fn has_more_inputs(&self) -> bool {
        let frontier = self.frontier.as_deref();
        self.inputs.is_some() || frontier.is_some_and(|frontier| !frontier.is_empty())
    }

    /// Makes the batch follow the requests found in results.
    ///
    /// # Panics
    ///
    /// Panics if the batch has started.
    #[track_caller]
    pub(super) fn set_frontier(&mut self, frontier: Frontier<T>) {
        assert!(
            !self.has_started,
            "`follow_links` or `follow_next_link` was called on a batch that was polled"
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
            frontier.stop_following();
            self.control
                .control()
                .set_followed_request_count(frontier.followed_count());
        }
    }

    /// Adds the requests found in a result, and pushes those that fit into the window.
    pub(super) fn enqueue_found_requests(
        &mut self,
        index: usize,
        depth: usize,
        found: Vec<(T, Request)>,
    ) {
        if let Some(frontier) = &mut self.frontier {
            frontier.add_found_requests(index, depth, found);
            self.control
                .control()
                .set_followed_request_count(frontier.followed_count());
            self.push_found_requests();
        }
    }

    /// Pushes found requests until the window is full.
    fn push_found_requests(&mut self) {
        // The open batch is taken out of `self`, so that both can be borrowed, and put back below.
        let Some(open_batch) = self.open_batch.take() else {
            return;
        };
        let mut jobs = Vec::new();
        while self.look_ahead_window.has_room()
            && let Some(frontier) = &mut self.frontier
            && let Some((tag, request)) = frontier.pop_found_request(self.pulled_input_count)
        {
            self.add_job_for_request(&open_batch, tag, request, &mut jobs);
            if jobs.len() == MAX_JOBS_PER_PUSH {
                self.push_jobs(&open_batch, &mut jobs);
            }
        }
        self.push_jobs(&open_batch, &mut jobs);
        self.open_batch = Some(open_batch);
    }

    /// Pushes found requests, then pulls inputs, until the window is full or no input is available.
    fn fill_window(&mut self, cx: &mut Context<'_>) {
        self.push_found_requests();
        if self.inputs.is_none() {
            return;
        }
        // The inputs and the open batch are put back below. If the input iterator panics, both are
        // dropped, which cancels the batch.
        let (Some(mut inputs), Some(open_batch)) = (self.inputs.take(), self.open_batch.take())
        else {
            return;
        };
        let mut jobs = Vec::new();
        let mut have_inputs_ended = false;
        while self.look_ahead_window.has_room() {
            match inputs.poll_next(cx) {
                Poll::Ready(Some((tag, request))) => {
                    if let Some(frontier) = &mut self.frontier {
                        frontier.mark_visited(&request);
                    }
                    self.add_job_for_request(&open_batch, tag, request, &mut jobs);
                }
                Poll::Ready(None) => {
                    have_inputs_ended = true;
                    break;
                }
                Poll::Pending => break,
            }
            if jobs.len() == MAX_JOBS_PER_PUSH {
                self.push_jobs(&open_batch, &mut jobs);
            }
        }
        self.push_jobs(&open_batch, &mut jobs);
        self.inputs = (!have_inputs_ended).then_some(inputs);
        self.open_batch = Some(open_batch);
    }

    /// Makes the job of a request and adds it to `jobs`. A rejected request gets its result at
    /// once.
    fn add_job_for_request(
        &mut self,
        open_batch: &OpenBatch,
        tag: T,
        request: Request,
        jobs: &mut Vec<Box<Job>>,
    ) {
        let tag_key = self.tags.insert(tag);
        match open_batch.new_job(self.pulled_input_count, request) {
            Ok(mut job) => {
                job.tag_key = tag_key;
                self.look_ahead_window
                    .add_input(&job.request, job.lane_key());
                jobs.push(job);
            }
            Err(mut rejected) => {
                rejected.tag_key = tag_key;
                self.look_ahead_window.add_input(&rejected.request, None);
                self.rejected_count_since_push += 1;
                rejected.drain_batch_if_stop_condition_met();
                self.ready_results.push_back(rejected);
            }
        }
        self.pulled_input_count += 1;
    }

    fn push_jobs(&mut self, open_batch: &OpenBatch, jobs: &mut Vec<Box<Job>>) {
        if !jobs.is_empty() || self.rejected_count_since_push > 0 {
            open_batch.push_jobs(jobs, std::mem::take(&mut self.rejected_count_since_push));
        }
    }
}
