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
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use atomic_waker::AtomicWaker;
use tokio::runtime::Id;
use tokio::task::unconstrained;
use tokio::time::{Sleep, sleep_until};

use super::clocks::Clocks;
use super::job::Tally;
use super::{Afterwards, Engine, Job, Running, Slot, State};
use crate::error::panic_message;
use crate::exchange::Asked;
use crate::exchange::verdict::{Last, Next, Verdict};
use crate::schedule::{Evidence, Payer, Time};
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
    /// Whether there is a waker; only the worker's own task looks at it.
    listens: AtomicBool,
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
        if self.is_raised() {
            self.raised.store(false, Ordering::Release);
            // That took the waker.
            self.listens.store(false, Ordering::Relaxed);
        }
    }

    /// The waker of a task is always the same: once is enough.
    fn listen(&self, waker: &Waker) {
        if !self.listens.load(Ordering::Relaxed) {
            self.waker.register(waker);
            self.listens.store(true, Ordering::Relaxed);
        }
    }
}

pub(super) struct Worker {
    engine: Arc<Engine>,
    runtime: Id,
    /// Its place among the running.
    place: usize,
    signal: Arc<Signal>,
    progress: Progress,
    held: Option<(Slot, Box<Job>)>,
    started: Time,
    /// Set while it is being polled: what drops it then is a panic of its own.
    awake: AtomicBool,
}

impl Worker {
    pub(super) fn new(
        engine: &Arc<Engine>,
        state: &mut State,
        runtime: Id,
        slot: Slot,
        job: Box<Job>,
        now: Time,
    ) -> Self {
        let signal = Arc::new(Signal::default());
        let place = state.running.insert(Running {
            signal: Arc::clone(&signal),
            batch: slot.batch(),
            lane: slot.lane(),
            reply: None,
        });
        state.running[place].takes(&slot, &job, place);
        Self {
            engine: Arc::clone(engine),
            runtime,
            place,
            signal,
            progress: Progress::new(engine.epoch).keeping_connections(),
            held: Some((slot, job)),
            started: now,
            awake: AtomicBool::new(false),
        }
    }

    pub(super) async fn run(mut self) {
        self.awake.store(true, Ordering::Relaxed);
        // One timer serves all exchanges. It is left where it is when a deadline moves away from it, and looked at again
        // when it fires; so an exchange that ends in time costs no timer operation.
        let mut timer = pin!(sleep_until(self.engine.instant(self.started)));
        let mut armed_for = Time::NEVER;
        while let Some((slot, job)) = &mut self.held {
            job.result = None;
            job.authorize();
            let mut reading = std::mem::take(&mut job.reading);
            let mut charge = job.charge.take();
            self.progress.reset(self.engine.instant(self.started));
            let clocks = Clocks::new(job, self.started);
            let span = job.span().cloned();
            let payer = slot.payer();
            let pay = || self.engine.pay(payer);
            let outcome = {
                let asked = Asked {
                    request: job.hop(),
                    follows: job.follows(),
                    renews: job.may_renew(),
                    case: job.case(&pay),
                };
                let exchange = job.terms.manners.exchange.run(
                    &self.engine.transport,
                    asked,
                    &mut reading,
                    charge.as_mut(),
                    &self.progress,
                );
                let mut exchange = pin!(Some(exchange));
                let mut watched = Watched {
                    engine: &self.engine,
                    exchange: exchange.as_mut(),
                    signal: &self.signal,
                    span,
                };
                let outcome = poll_fn(|cx| {
                    self.awake.store(true, Ordering::Relaxed);
                    let timer = timer.as_mut();
                    let poll = watched.poll(cx, &self.progress, &clocks, timer, &mut armed_for);
                    self.awake.store(poll.is_ready(), Ordering::Relaxed);
                    let phase = self.progress.phase();
                    let answered = matches!(phase, Phase::Body | Phase::Stream);
                    if slot.is_scout() && phase != Phase::Connect || slot.is_probe() && answered {
                        self.engine.report(slot);
                    }
                    poll
                })
                .await;
                // A transport may panic as it is dropped, too.
                caught(|| exchange.set(None)).and(outcome)
            };
            if let Some((_, job)) = &mut self.held {
                job.reading = reading;
                job.charge = charge;
            }
            self.settle(outcome);
        }
    }

    /// Books the outcome and takes the next job, in one critical section.
    fn settle(&mut self, outcome: Result<Response, Error>) {
        let Some((slot, mut job)) = self.held.take() else {
            return;
        };
        let now = self.engine.now();
        // Who gets the last results may ask for more at once, and should find the connections at rest.
        if self.engine.waiting.load(Ordering::Relaxed) == 0 {
            self.progress.rest();
        }
        let tally = self.tally(&job, now);
        let evidence = Evidence::of(&outcome, tally.timings, self.progress.phase());
        let payer = slot.payer();
        let pay = || self.engine.pay(payer);
        let verdict = job.book(&self.engine.rules, outcome, tally, &pay);
        job.end_charge(verdict);
        let lane = slot.lane();
        let mut afterwards = Afterwards::default();
        {
            let mut state = self.engine.lock();
            let state = &mut *state;
            if let Some((more, reset)) = self.progress.allowed() {
                state.schedule.heed(&slot, more, reset, now);
            }
            if let Some(evidence) = evidence {
                state.schedule.learn(&slot, evidence, now);
            }
            self.engine
                .conclude(state, slot, job, verdict, now, &mut afterwards);
            self.held = self
                .engine
                .start_ready(state, now, Some(self.runtime), &mut afterwards);
            match &self.held {
                Some((slot, job)) => {
                    self.signal.lower();
                    state.running[self.place].takes(slot, job, self.place);
                }
                None => {
                    state.running.remove(self.place);
                }
            }
        }
        self.started = now;
        // Before others are started, who may want it.
        let stays = |(next, _): &(Slot, Box<Job>)| next.lane() == lane;
        if !self.held.as_ref().is_some_and(stays) {
            self.progress.rest();
        }
        afterwards.run();
    }

    fn tally(&self, job: &Job, now: Time) -> Tally {
        let timings = self.timings(job, now);
        let uncounted = match self.progress.phase() {
            Phase::Stream => timings.body(),
            _ => self.progress.held(),
        };
        Tally {
            timings,
            counted: timings.wire().saturating_sub(uncounted),
            sent: self.progress.is_sent(),
        }
    }

    /// Where this attempt's time went, if it ends now: the phase it is in gets the rest.
    fn timings(&self, job: &Job, now: Time) -> Timings {
        let (phase, marks) = (self.progress.phase(), self.progress.marks());
        let until = |its, end: u64| if phase == its { now.as_nanos() } else { end };
        let connected = until(Phase::Connect, marks.connected);
        let head = until(Phase::Head, marks.head).max(connected);
        let between = |start: u64, end: u64| Duration::from_nanos(end.saturating_sub(start));
        Timings::new(
            Duration::from_nanos(self.started.nanos_since(job.since)),
            between(marks.started, connected),
            between(connected, head),
            between(head, now.as_nanos()),
        )
    }
}

/// A worker that still holds a job is dropped by a runtime that ends, whose other jobs will not run either; or by a panic
/// of its own (of a tracing subscriber, say), which is that one job's.
impl Drop for Worker {
    fn drop(&mut self) {
        let Some((slot, mut job)) = self.held.take() else {
            return;
        };
        let now = self.engine.now();
        let panicked = *self.awake.get_mut() && std::thread::panicking();
        let reason = if panicked {
            ErrorKind::Panicked
        } else {
            ErrorKind::Cancelled
        };
        let tally = self.tally(&job, now);
        job.book_end(Error::of(reason), &tally);
        let mut afterwards = Afterwards::default();
        {
            let mut state = self.engine.lock();
            state.running.remove(self.place);
            if !panicked {
                state.end_runtime(self.runtime, &mut afterwards);
            }
            state.settle(slot, Some((job, reason)), &mut afterwards);
            self.engine
                .start_ready(&mut state, now, None, &mut afterwards);
        }
        afterwards.run();
    }
}

impl Engine {
    /// Takes a retry out of a host's budget. Call this without the lock.
    fn pay(&self, payer: Payer) -> bool {
        self.lock().schedule.pay(payer, self.now())
    }

    /// Does what the verdict says: the job goes back into the schedule, or to its reader.
    fn conclude(
        self: &Arc<Self>,
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
            Next::Retry(_) | Next::Last | Next::Hop | Next::Renew
                if state.runtime_of(slot.batch()).is_none() =>
            {
                Some(job)
            }
            Next::Retry(wait) if !job.is_out_of_time() => {
                job.since = now;
                let put_back = state.schedule.push_again(&slot, job, now + wait, now);
                state.count_retry(slot.batch(), put_back).err()
            }
            Next::Last if !job.is_out_of_time() => {
                job.since = now;
                job.last = Last::Now;
                let put_back = state.schedule.push_last(&slot, job, now);
                state.count_retry(slot.batch(), put_back).err()
            }
            Next::Hop => self.push_hop(state, &slot, job, now, afterwards).err(),
            Next::Renew => self.push_renewed(state, &slot, job, now, afterwards).err(),
            Next::Done | Next::Retry(_) | Next::Last => Some(job),
        };
        // Without a result yet, a job ends here between two hops.
        let ended = ended.map(|job| {
            let reason = state.reason(&job);
            (job, reason)
        });
        state.settle(slot, ended, afterwards);
    }

    /// A hop goes back through the schedule: it may be to another host, whose limits it then takes.
    fn push_hop(
        self: &Arc<Self>,
        state: &mut State,
        slot: &Slot,
        mut job: Box<Job>,
        now: Time,
        afterwards: &mut Afterwards,
    ) -> Result<(), Box<Job>> {
        let Some(lane) = job.lane() else {
            return Err(job);
        };
        job.since = now;
        let limits = || self.limits_of(&lane);
        let key = lane.as_str();
        let keeper = job.keeper().cloned();
        state.schedule.push_elsewhere(slot, key, limits, job, now)?;
        self.heed_token(state, keeper.as_ref(), key, slot.batch(), afterwards);
        Ok(())
    }
}

/// An exchange under its clocks and its signal, inside its span.
struct Watched<'a, F> {
    engine: &'a Engine,
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
        armed_for: &mut Time,
    ) -> Poll<F::Output> {
        // Looked at before the exchange too: what was given up must not start.
        if self.signal.is_raised() {
            return Poll::Ready(Err(Error::of(ErrorKind::Cancelled)));
        }
        if let Poll::Ready(outcome) = self.poll_exchange(cx) {
            return Poll::Ready(outcome);
        }
        self.signal.listen(cx.waker());
        if self.signal.is_raised() {
            return Poll::Ready(Err(Error::of(ErrorKind::Cancelled)));
        }
        let Some((at, clock)) = clocks.next(progress) else {
            return Poll::Pending;
        };
        // Who was polled since it was set, and has not run out, knows whom to wake.
        let knows = at >= *armed_for && !timer.is_elapsed();
        if at < *armed_for {
            *armed_for = at;
            timer.as_mut().reset(self.engine.instant(at));
        }
        // Exempt from tokio's budget, which may be spent: the timer would not be told then whom to wake.
        while !knows && pin!(unconstrained(timer.as_mut())).poll(cx).is_ready() {
            if self.engine.now() >= at {
                return Poll::Ready(Err(clocks.ran_out(clock)));
            }
            *armed_for = at;
            timer.as_mut().reset(self.engine.instant(at));
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
        .map_err(|panic| Error::of(ErrorKind::Panicked).because(panic_message(&*panic).to_owned()))
}
