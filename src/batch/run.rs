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

use super::first_window;
use super::follow::Followed;
use super::inputs::Inputs;
use crate::engine::{
    Buffer, Engine, Feed, Helm, Job, Manners, ReadBody, Steered, Terms, Wish, after,
};
use crate::limits::{Retry, Timeouts};
use crate::schedule::{BatchLimits, Limits};
use crate::{ErrorKind, Request, Result};

/// So many jobs are handed in under one lock.
const CHUNK: usize = 128;

/// What a batch was asked to be.
pub(super) struct Plan {
    pub(super) manners: Arc<Manners>,
    pub(super) whole: Limits,
    pub(super) per_lane: Limits,
    pub(super) retry: Retry,
    pub(super) timeouts: Timeouts,
    pub(super) deadline: Option<Duration>,
    /// How far inputs are read ahead at first, and at most.
    pub(super) window: usize,
    pub(super) look_ahead: usize,
    pub(super) handler: Option<Arc<dyn ReadBody>>,
    pub(super) buffer: Option<Arc<Buffer>>,
    pub(super) steered: Steered,
}

/// What of a finished job is its result.
pub(super) type Take<R> = fn(&mut Job) -> Result<R>;

/// Who reads the results, and so what the run owes it.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(super) enum Reader {
    /// Takes each result as it comes; after the deadline it takes no more inputs.
    Stream,
    /// Wants all of them at the end, also those the deadline has overtaken.
    Gather,
}

pub(super) struct Run<'a, T> {
    engine: Arc<Engine>,
    plan: Plan,
    reader: Reader,
    inputs: Option<Inputs<'a, T>>,
    /// None before the first poll, and after the end.
    feed: Option<Feed>,
    started: bool,
    tags: Slab<T>,
    ready: VecDeque<Box<Job>>,
    /// Inputs pulled so far.
    admitted: usize,
    /// Inputs pulled whose results the reader has not let go.
    outstanding: usize,
    window: usize,
    deadline: Option<Pin<Box<Sleep>>>,
    /// Orders of a handle that were heeded.
    heeded: usize,
    cut_short: Option<ErrorKind>,
    /// Refused since the last were handed in: they are done, and were never pushed.
    refused: usize,
    /// What results led to, if that is followed.
    followed: Option<Box<Followed<T>>>,
}

impl<'a, T> Run<'a, T> {
    pub(super) fn new(
        engine: Arc<Engine>,
        plan: Plan,
        reader: Reader,
        inputs: Inputs<'a, T>,
    ) -> Self {
        Self {
            window: plan.window,
            engine,
            plan,
            reader,
            inputs: Some(inputs),
            feed: None,
            started: false,
            tags: Slab::new(),
            ready: VecDeque::new(),
            admitted: 0,
            outstanding: 0,
            deadline: None,
            heeded: 0,
            cut_short: None,
            refused: 0,
            followed: None,
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
        let budget = ready!(poll_proceed(cx));
        loop {
            self.heed_deadline(cx);
            self.heed_orders();
            if self.outstanding <= self.low_water() {
                self.admit(cx);
            }
            if let Some(job) = self.ready.pop_front() {
                budget.made_progress();
                let tag = self.tags.remove(job.tag);
                return Poll::Ready(Some((tag, job)));
            }
            if self.tags.is_empty() && !self.has_more() {
                self.feed = None;
                return Poll::Ready(None);
            }
            ready!(self.poll_feed(cx));
        }
    }

    /// At so few outstanding the window is filled again: half of it, but never so few that a slot would be idle.
    fn low_water(&self) -> usize {
        let busy = self.plan.whole.concurrency.min(self.window);
        (self.window / 2).max(busy - 1)
    }

    /// What came before all inputs were pulled: the deadline, or an order to take no more.
    pub(super) fn cut_short(&self) -> Option<ErrorKind> {
        self.cut_short
    }

    pub(super) fn helm(&self) -> &Arc<Helm> {
        self.plan.steered.helm()
    }

    /// The reader has let go of a result: its place in the window is free.
    pub(super) fn release(&mut self) {
        self.outstanding -= 1;
        self.helm().gave(self.admitted - self.outstanding);
    }

    /// How many inputs were pulled so far.
    pub(super) fn admitted(&self) -> usize {
        self.admitted
    }

    /// How many inputs there are at least: what the iterator says of itself.
    pub(super) fn expected(&self) -> usize {
        match &self.inputs {
            Some(Inputs::Iter(inputs)) => inputs.size_hint().0,
            _ => 0,
        }
    }

    /// The batch begins, and its deadline with it, when it is first polled.
    fn start(&mut self) {
        let ends = self.plan.deadline.map(|limit| after(Instant::now(), limit));
        let deadline = ends.map(|at| self.engine.time(at));
        let limits = BatchLimits {
            whole: self.plan.whole,
            per_lane: self.plan.per_lane,
            deadline,
        };
        let terms = Terms {
            manners: Arc::clone(&self.plan.manners),
            retry: self.plan.retry.clone(),
            timeouts: self.plan.timeouts.clone(),
            deadline,
            handler: self.plan.handler.clone(),
            buffer: self.plan.buffer.clone(),
        };
        self.feed = Some(Feed::open(
            &self.engine,
            limits,
            Arc::new(terms),
            self.helm(),
        ));
        self.deadline = ends.map(|at| Box::pin(sleep_until(at)));
        self.started = true;
    }

    /// Takes what has come, or waits for it. Ready when there is something to look at again.
    fn poll_feed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(feed) = &self.feed else {
            // An input panicked in an earlier poll, and the batch went with it.
            self.tags.clear();
            self.stop_following();
            return Poll::Ready(());
        };
        let may_admit = self.has_more() && self.outstanding < self.plan.look_ahead;
        let wish = Wish {
            each_result: self.reader == Reader::Stream,
            low_water: if self.has_more() { self.low_water() } else { 0 },
            other_hosts: may_admit,
        };
        let wants_other_hosts = feed.take(&mut self.ready, wish, cx);
        if wants_other_hosts {
            let before = self.admitted;
            if self.outstanding >= self.window {
                self.window = self.window.saturating_mul(2).min(self.plan.look_ahead);
            }
            self.admit(cx);
            // The end of the inputs is something to say, too.
            if self.admitted > before || !self.has_more() {
                return Poll::Ready(());
            }
        }
        // An order that came before the waker was left would not be heard of again.
        if !self.ready.is_empty() || self.heeded != self.helm().orders() {
            return Poll::Ready(());
        }
        Poll::Pending
    }

    /// Stops pulling inputs once the deadline has come.
    fn heed_deadline(&mut self, cx: &mut Context<'_>) {
        let Some(deadline) = &mut self.deadline else {
            return;
        };
        if deadline.as_mut().poll(cx).is_pending() {
            return;
        }
        self.deadline = None;
        self.cut_inputs(ErrorKind::Deadline);
    }

    /// Does what a handle has ordered, as far as it concerns the inputs; the schedule has done its part.
    fn heed_orders(&mut self) {
        let orders = self.helm().orders();
        if std::mem::replace(&mut self.heeded, orders) == orders {
            return;
        }
        if let Some(concurrency) = self.helm().concurrency() {
            self.plan.whole.concurrency = concurrency;
            let window = first_window(concurrency).min(self.plan.look_ahead);
            self.window = self.window.max(window);
        }
        if self.helm().is_closed() {
            self.cut_inputs(ErrorKind::Cancelled);
        }
    }

    fn cut_inputs(&mut self, reason: ErrorKind) {
        self.stop_following();
        // What is left of an iterator is owed an answer to one who gathers. A stream may never end.
        let is_owed = self.reader == Reader::Gather
            && self
                .inputs
                .as_ref()
                .is_some_and(|inputs| !inputs.is_stream());
        if !is_owed && self.inputs.take().is_some() {
            self.cut_short = Some(reason);
        }
    }

    /// Whether there is anything left to admit.
    fn has_more(&self) -> bool {
        let waits = |followed: &Followed<T>| !followed.is_empty();
        self.inputs.is_some() || self.followed.as_deref().is_some_and(waits)
    }

    /// From the start, results may lead to more.
    ///
    /// # Panics
    ///
    /// If it has started.
    #[track_caller]
    pub(super) fn follow(&mut self, followed: Followed<T>) {
        assert!(
            !self.started,
            "a batch that is under way was told to follow"
        );
        self.followed = Some(Box::new(followed));
    }

    pub(super) fn followed(&self) -> Option<&Followed<T>> {
        self.followed.as_deref()
    }

    pub(super) fn followed_mut(&mut self) -> Option<&mut Followed<T>> {
        self.followed.as_deref_mut()
    }

    fn stop_following(&mut self) {
        if let Some(followed) = &mut self.followed {
            followed.close();
            self.plan.steered.helm().found(followed.count());
        }
    }

    /// A result led to more.
    pub(super) fn lead_to(&mut self, index: usize, depth: usize, links: Vec<(T, Request)>) {
        if let Some(followed) = &mut self.followed {
            followed.offer(index, depth, links);
            self.plan.steered.helm().found(followed.count());
            self.admit_followed();
        }
    }

    /// Hands in what results led to, until the window is full.
    fn admit_followed(&mut self) {
        // It is put back below.
        let Some(feed) = self.feed.take() else { return };
        let mut jobs = Vec::new();
        while self.outstanding < self.window
            && let Some(followed) = &mut self.followed
            && let Some((tag, request)) = followed.next(self.admitted)
        {
            self.make_job(&feed, tag, request, &mut jobs);
            if jobs.len() == CHUNK {
                self.hand_in(&feed, &mut jobs);
            }
        }
        self.hand_in(&feed, &mut jobs);
        self.feed = Some(feed);
    }

    /// Hands in what results led to, and then pulls inputs, until the window is full, the inputs end or have none for now.
    fn admit(&mut self, cx: &mut Context<'_>) {
        self.admit_followed();
        if self.inputs.is_none() {
            return;
        }
        // Both are put back below. If an input panics they are dropped as the panic passes, and the batch is cancelled.
        let (Some(mut inputs), Some(feed)) = (self.inputs.take(), self.feed.take()) else {
            return;
        };
        let mut jobs = Vec::new();
        let mut ended = false;
        while self.outstanding < self.window {
            match inputs.poll_next(cx) {
                Poll::Ready(Some((tag, request))) => {
                    if let Some(followed) = &mut self.followed {
                        followed.note_input(&request);
                    }
                    self.make_job(&feed, tag, request, &mut jobs);
                }
                Poll::Ready(None) => {
                    ended = true;
                    break;
                }
                Poll::Pending => break,
            }
            if jobs.len() == CHUNK {
                self.hand_in(&feed, &mut jobs);
            }
        }
        self.hand_in(&feed, &mut jobs);
        self.inputs = (!ended).then_some(inputs);
        self.feed = Some(feed);
    }

    fn make_job(&mut self, feed: &Feed, tag: T, request: Request, jobs: &mut Vec<Box<Job>>) {
        let tag = self.tags.insert(tag);
        match feed.job(self.admitted, request) {
            Ok(mut job) => {
                job.tag = tag;
                jobs.push(job);
            }
            Err(mut refused) => {
                refused.tag = tag;
                self.refused += 1;
                self.ready.push_back(refused);
            }
        }
        self.admitted += 1;
        self.outstanding += 1;
    }

    fn hand_in(&mut self, feed: &Feed, jobs: &mut Vec<Box<Job>>) {
        if !jobs.is_empty() || self.refused > 0 {
            feed.push(jobs, std::mem::take(&mut self.refused));
        }
    }
}
