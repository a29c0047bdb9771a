//! A worker: a task that runs one exchange after another for as long as it finds work.
//!
//! A worker is made with a job in hand, and after each takes the next in the same critical section in which it settles
//! the last. Whatever happens to it, what it holds is settled: a panic is caught and becomes the result, and a worker
//! that is dropped, as when its runtime ends, settles as it goes.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use atomic_waker::AtomicWaker;
use tokio::time::{Instant, Sleep, sleep_until};

use super::{Afterwards, Engine, Job, Running, Slot, State};
use crate::exchange::verdict::{Next, Verdict};
use crate::limits::Timeouts;
use crate::schedule::Time;
use crate::wire::{Phase, Progress};
use crate::{Error, ErrorKind, Response, Timings};

/// Tells a worker to give up the exchange it has in hand.
///
/// It is raised under the engine's lock, for a worker known to hold the job that is meant, and lowered under the same
/// lock when the worker takes another; so it never hits the wrong one.
#[derive(Default)]
pub(super) struct Signal {
    raised: AtomicBool,
    waker: AtomicWaker,
}

impl Signal {
    pub(super) fn raise(&self) {
        self.raised.store(true, Ordering::Release);
        self.waker.wake();
    }

    fn is_raised(&self) -> bool {
        self.raised.load(Ordering::Acquire)
    }

    fn lower(&self) {
        self.raised.store(false, Ordering::Release);
    }
}

pub(super) struct Worker {
    engine: Arc<Engine>,
    runtime: usize,
    /// Its place among the running.
    place: usize,
    signal: Arc<Signal>,
    progress: Progress,
    held: Option<(Slot, Box<Job>)>,
    started: Time,
}

impl Worker {
    pub(super) fn new(
        engine: &Arc<Engine>,
        state: &mut State,
        runtime: usize,
        slot: Slot,
        job: Box<Job>,
        now: Time,
    ) -> Self {
        let signal = Arc::new(Signal::default());
        let running = Running {
            signal: Arc::clone(&signal),
            batch: slot.batch(),
            reply: job.reply.clone(),
        };
        Self {
            engine: Arc::clone(engine),
            runtime,
            place: state.running.insert(running),
            signal,
            progress: Progress::new(engine.epoch),
            held: Some((slot, job)),
            started: now,
        }
    }

    pub(super) async fn run(mut self) {
        // One timer serves all exchanges. It is left where it is when a deadline moves away from it, and looked at again
        // when it fires; so an exchange that ends in time costs no timer operation.
        let mut timer = pin!(sleep_until(self.engine.instant(self.started)));
        let mut armed = false;
        while let Some((slot, job)) = &mut self.held {
            job.result = None;
            let started = self.engine.instant(self.started);
            self.progress.reset(started);
            let clocks = Clocks::new(&self.engine, job, started);
            let span = job.span().cloned();
            let outcome = {
                let exchange = self.engine.exchange.run(
                    job.hop(),
                    job.follows(&self.engine.rules),
                    &self.progress,
                );
                let mut exchange = pin!(Some(exchange));
                let mut watched = Watched {
                    exchange: exchange.as_mut(),
                    signal: &self.signal,
                    span,
                };
                let outcome = poll_fn(|cx| {
                    let timer = timer.as_mut();
                    let outcome = watched.poll(cx, &self.progress, &clocks, timer, &mut armed);
                    if slot.is_scout() && self.progress.phase() != Phase::Connect {
                        self.engine.report(slot);
                    }
                    outcome
                })
                .await;
                // A transport may panic as it is dropped, too.
                caught(|| exchange.set(None)).and(outcome)
            };
            self.settle(outcome);
        }
    }

    /// Books the outcome and takes the next job, in one critical section.
    fn settle(&mut self, outcome: Result<Response, Error>) {
        let Some((slot, mut job)) = self.held.take() else {
            return;
        };
        let now = self.engine.now();
        let verdict = job.book(
            &self.engine.rules,
            outcome,
            self.timings(&job, now),
            self.progress.is_sent(),
        );
        let mut afterwards = Afterwards::default();
        {
            let batch = slot.batch();
            let mut state = self.engine.lock();
            let state = &mut *state;
            self.engine
                .conclude(state, slot, job, verdict, now, &mut afterwards);
            self.held = self
                .engine
                .start_ready(state, now, Some(self.runtime), &mut afterwards);
            match &self.held {
                Some((slot, job)) => {
                    self.signal.lower();
                    state.running[self.place].takes(slot, job);
                }
                None => {
                    state.running.remove(self.place);
                }
            }
            state.ask_for_other_hosts(batch, &mut afterwards);
        }
        self.started = now;
        afterwards.run();
    }

    /// Where this attempt's time went, if it ends now: the phase it is in gets the rest.
    fn timings(&self, job: &Job, now: Time) -> Timings {
        let progress = &self.progress;
        let now = self.engine.instant(now);
        let queued = Duration::from_nanos(self.started.nanos_since(job.since));
        let until = |phase, end: Instant| if progress.phase() == phase { now } else { end };
        let connected = until(Phase::Connect, progress.connected_at());
        let head = until(Phase::Head, progress.head_at()).max(connected);
        Timings::new(
            queued,
            connected.saturating_duration_since(progress.started_at()),
            head.saturating_duration_since(connected),
            now.saturating_duration_since(head),
        )
    }
}

/// A worker that still holds a job is dropped only by a runtime that ends: its other jobs will not run either.
impl Drop for Worker {
    fn drop(&mut self) {
        let Some((slot, mut job)) = self.held.take() else {
            return;
        };
        let now = self.engine.now();
        let cancelled = Err(Error::of(ErrorKind::Cancelled));
        let timings = self.timings(&job, now);
        let sent = self.progress.is_sent();
        job.book(&self.engine.rules, cancelled, timings, sent);
        let mut afterwards = Afterwards::default();
        {
            let mut state = self.engine.lock();
            state.running.remove(self.place);
            state.end_runtime(self.runtime, &mut afterwards);
            state.settle(slot, Some((job, ErrorKind::Cancelled)), &mut afterwards);
            self.engine
                .start_ready(&mut state, now, None, &mut afterwards);
        }
        afterwards.run();
    }
}

impl Engine {
    /// Does what the verdict says: the job goes back into the schedule, or to its reader.
    fn conclude(
        &self,
        state: &mut State,
        slot: Slot,
        mut job: Box<Job>,
        verdict: Verdict,
        now: Time,
        afterwards: &mut Afterwards,
    ) {
        if let Some(pause) = verdict.pause {
            state.schedule.pause_lane(&slot, now + pause);
        }
        let ended = match verdict.next {
            // This worker was the last of its runtime to be told that it ends.
            Next::Retry(_) | Next::Hop if state.runtime_of(slot.batch()).is_none() => Some(job),
            Next::Retry(wait) if !job.is_out_of_time() => {
                job.since = now;
                state.schedule.push_again(&slot, job, now + wait, now).err()
            }
            Next::Hop => self.push_hop(state, &slot, job, now).err(),
            Next::Done | Next::Retry(_) => Some(job),
        };
        state.settle(
            slot,
            ended.map(|job| (job, ErrorKind::Cancelled)),
            afterwards,
        );
    }
}

impl Engine {
    /// A hop goes back through the schedule: it may be to another host, whose limits it then takes.
    fn push_hop(
        &self,
        state: &mut State,
        slot: &Slot,
        mut job: Box<Job>,
        now: Time,
    ) -> Result<(), Box<Job>> {
        let Some(lane) = job.lane() else {
            return Err(job);
        };
        job.since = now;
        let limits = || self.limits_of(&lane);
        let key = lane.as_str();
        state.schedule.push_elsewhere(slot, key, limits, job, now)
    }
}

/// The instants at which this attempt's clocks run out.
struct Clocks<'a> {
    timeouts: &'a Timeouts,
    /// Those that do not depend on how far the exchange has come: the earliest of them.
    fixed: Option<(Instant, ErrorKind)>,
}

impl<'a> Clocks<'a> {
    fn new(engine: &Engine, job: &'a Job, started: Instant) -> Self {
        let timeouts = &job.terms.timeouts;
        let request = job
            .request
            .attempt_timeout()
            .map(|limit| limit.saturating_sub(job.hops().wire()))
            .map(|left| (started + left, ErrorKind::RequestTimeout));
        let left = timeouts.total.map(|total| total.saturating_sub(job.wire()));
        let total = left.map(|left| (started + left, ErrorKind::TotalTimeout));
        let deadline = job
            .terms
            .deadline
            .map(|deadline| (engine.instant(deadline), ErrorKind::Deadline));
        Self {
            timeouts,
            fixed: [request, total, deadline]
                .into_iter()
                .flatten()
                .min_by_key(|(at, _)| *at),
        }
    }

    /// The next to run out, and the error it would be.
    fn next(&self, progress: &Progress) -> Option<(Instant, ErrorKind)> {
        let (since, limit, kind) = match progress.phase() {
            Phase::Connect => (
                progress.started_at(),
                self.timeouts.connect,
                ErrorKind::ConnectTimeout,
            ),
            Phase::Head => (
                progress.connected_at(),
                self.timeouts.first_byte,
                ErrorKind::FirstByteTimeout,
            ),
            Phase::Body => (
                progress.touched_at(),
                self.timeouts.body_idle,
                ErrorKind::BodyIdleTimeout,
            ),
        };
        let phase = limit.map(|limit| (since + limit, kind));
        phase
            .into_iter()
            .chain(self.fixed)
            .min_by_key(|(at, _)| *at)
    }
}

/// An exchange under its clocks and its signal, inside its span.
struct Watched<'a, F> {
    exchange: Pin<&'a mut Option<F>>,
    signal: &'a Signal,
    span: Option<tracing::Span>,
}

impl<F: Future<Output = Result<Response, Error>>> Watched<'_, F> {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        progress: &Progress,
        clocks: &Clocks<'_>,
        mut timer: Pin<&mut Sleep>,
        armed: &mut bool,
    ) -> Poll<F::Output> {
        // Looked at before the exchange too: what was given up must not start.
        if self.signal.is_raised() {
            return Poll::Ready(Err(Error::of(ErrorKind::Cancelled)));
        }
        if let Poll::Ready(outcome) = self.poll_exchange(cx) {
            return Poll::Ready(outcome);
        }
        self.signal.waker.register(cx.waker());
        if self.signal.is_raised() {
            return Poll::Ready(Err(Error::of(ErrorKind::Cancelled)));
        }
        let Some((at, clock)) = clocks.next(progress) else {
            return Poll::Pending;
        };
        if !*armed || at < timer.deadline() {
            *armed = true;
            timer.as_mut().reset(at);
        }
        while timer.as_mut().poll(cx).is_ready() {
            if Instant::now() >= at {
                return Poll::Ready(Err(Error::of(clock)));
            }
            timer.as_mut().reset(at);
        }
        Poll::Pending
    }

    fn poll_exchange(&mut self, cx: &mut Context<'_>) -> Poll<F::Output> {
        let _entered = self.span.as_ref().map(tracing::Span::enter);
        let Some(exchange) = self.exchange.as_mut().as_pin_mut() else {
            return Poll::Pending;
        };
        // After a panic the exchange is not polled again, only dropped.
        caught(|| exchange.poll(cx)).unwrap_or_else(|panicked| Poll::Ready(Err(panicked)))
    }
}

/// Runs what may run a transport's code.
fn caught<T>(run: impl FnOnce() -> T) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(run))
        .map_err(|panic| Error::of(ErrorKind::Panicked).because(message(&*panic)))
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("a panic without a message").to_owned()
}
