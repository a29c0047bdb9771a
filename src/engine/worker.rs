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

use super::job::HopStats;
use super::timeouts::AttemptTimeouts;
use super::{ActiveJob, Effects, Engine, Job, Slot, State};
use crate::error::panic_message;
use crate::exchange::ExchangeRequest;
use crate::exchange::decision::{FinalRound, HopDecision, NextStep};
use crate::schedule::{HostObservation, LaneId, Time};
use crate::wire::{AttemptClock, Phase};
use crate::{Error, ErrorKind, Response, Timings};

/// Tells a worker to give up the exchange it has in hand.
///
/// It is raised under the engine's lock, for a worker known to hold the job that is meant, and lowered under the same
/// lock when the worker takes another; so it never hits the wrong one.
#[derive(Default)]
pub(super) struct CancelFlag {
    flag: AtomicBool,
    waker: AtomicWaker,
    /// Whether there is a waker; only the worker's own task looks at it.
    is_registered: AtomicBool,
}

impl CancelFlag {
    pub(super) fn set(&self) {
        self.flag.store(true, Ordering::Release);
        self.waker.wake();
    }

    fn is_set(&self) -> bool {
        self.flag.load(Ordering::Acquire)
    }

    fn clear(&self) {
        if self.is_set() {
            self.flag.store(false, Ordering::Release);
            // That took the waker.
            self.is_registered.store(false, Ordering::Relaxed);
        }
    }

    /// The waker of a task is always the same: once is enough.
    fn register(&self, waker: &Waker) {
        if !self.is_registered.load(Ordering::Relaxed) {
            self.waker.register(waker);
            self.is_registered.store(true, Ordering::Relaxed);
        }
    }
}

pub(super) struct Worker {
    engine: Arc<Engine>,
    runtime: Id,
    /// Its place among the running.
    active_key: usize,
    cancel_flag: Arc<CancelFlag>,
    clock: AttemptClock,
    current: Option<(Slot, Box<Job>)>,
    started_at: Time,
    /// Set while it is being polled: what drops it then is a panic of its own.
    is_polling: AtomicBool,
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
        let cancel_flag = Arc::new(CancelFlag::default());
        let active_key = state.active.insert(ActiveJob {
            cancel_flag: Arc::clone(&cancel_flag),
            batch: slot.batch(),
            lane: slot.lane_id(),
            result_slot: None,
        });
        state.active[active_key].set_job(&slot, &job, active_key);
        Self {
            engine: Arc::clone(engine),
            runtime,
            active_key,
            cancel_flag,
            clock: AttemptClock::new(engine.epoch).with_sticky_connection(),
            current: Some((slot, job)),
            started_at: now,
            is_polling: AtomicBool::new(false),
        }
    }

    pub(super) async fn run(mut self) {
        self.is_polling.store(true, Ordering::Relaxed);
        // One timer serves all exchanges. It is left where it is when a deadline moves away from it, and looked at again
        // when it fires; so an exchange that ends in time costs no timer operation.
        let mut timer = pin!(sleep_until(self.engine.instant(self.started_at)));
        let mut armed_for = Time::MAX;
        while let Some((slot, job)) = &mut self.current {
            job.result = None;
            job.authorize();
            let mut body_sink = std::mem::take(&mut job.body_sink);
            let mut reservation = job.reservation.take();
            self.clock.reset(self.engine.instant(self.started_at));
            let timeouts = AttemptTimeouts::new(job, self.started_at);
            let span = job.span().cloned();
            let lane_id = slot.lane_id();
            let withdraw_retry = || self.engine.withdraw_retry(lane_id);
            let outcome = {
                let exchange_request = ExchangeRequest {
                    request: job.hop_request(),
                    follow_redirects: job.follows_redirects(),
                    resend_after_401: job.can_reauthorize(),
                    retry_context: job.retry_context(&withdraw_retry),
                };
                let exchange = job.options.policy.exchange.run(
                    &self.engine.transport,
                    exchange_request,
                    &mut body_sink,
                    reservation.as_mut(),
                    &self.clock,
                );
                let mut exchange = pin!(Some(exchange));
                let mut guarded = GuardedExchange {
                    engine: &self.engine,
                    exchange: exchange.as_mut(),
                    cancel_flag: &self.cancel_flag,
                    span,
                };
                let outcome = poll_fn(|cx| {
                    self.is_polling.store(true, Ordering::Relaxed);
                    let timer = timer.as_mut();
                    let poll = guarded.poll(cx, &self.clock, &timeouts, timer, &mut armed_for);
                    self.is_polling.store(poll.is_ready(), Ordering::Relaxed);
                    let phase = self.clock.phase();
                    let head_received = matches!(phase, Phase::Body | Phase::Streaming);
                    if slot.is_scout() && phase != Phase::Connect
                        || slot.is_probe() && head_received
                    {
                        self.engine.finish_scout_or_probe(slot);
                    }
                    poll
                })
                .await;
                // A transport may panic as it is dropped, too.
                catch_panic(|| exchange.set(None)).and(outcome)
            };
            if let Some((_, job)) = &mut self.current {
                job.body_sink = body_sink;
                job.reservation = reservation;
            }
            self.settle(outcome);
        }
    }

    /// Books the outcome and takes the next job, in one critical section.
    fn settle(&mut self, outcome: Result<Response, Error>) {
        let Some((slot, mut job)) = self.current.take() else {
            return;
        };
        let now = self.engine.now();
        // Who gets the last results may ask for more at once, and should find the connections at rest.
        if self.engine.queued_jobs.load(Ordering::Relaxed) == 0 {
            self.clock.release_sticky();
        }
        let stats = self.hop_stats(&job, now);
        let observation = HostObservation::of(&outcome, stats.timings, self.clock.phase());
        let lane_id = slot.lane_id();
        let withdraw_retry = || self.engine.withdraw_retry(lane_id);
        let decision = job.record_hop(&self.engine.limits, outcome, stats, &withdraw_retry);
        job.end_reservation(decision);
        let lane = slot.lane_id();
        let mut effects = Effects::default();
        {
            let mut state = self.engine.lock();
            let state = &mut *state;
            if let Some((remaining, reset_after)) = self.clock.server_limit() {
                state
                    .schedule
                    .observe_server_limit(&slot, remaining, reset_after, now);
            }
            if let Some(observation) = observation {
                state.schedule.record_observation(&slot, observation, now);
            }
            self.engine
                .apply_decision(state, slot, job, decision, now, &mut effects);
            self.current = self
                .engine
                .start_ready(state, now, Some(self.runtime), &mut effects);
            match &self.current {
                Some((slot, job)) => {
                    self.cancel_flag.clear();
                    state.active[self.active_key].set_job(slot, job, self.active_key);
                }
                None => {
                    state.active.remove(self.active_key);
                }
            }
        }
        self.started_at = now;
        // Before others are started, who may want it.
        let stays_in_lane = |(next, _): &(Slot, Box<Job>)| next.lane_id() == lane;
        if !self.current.as_ref().is_some_and(stays_in_lane) {
            self.clock.release_sticky();
        }
        effects.run();
    }

    fn hop_stats(&self, job: &Job, now: Time) -> HopStats {
        let timings = self.hop_timings(job, now);
        let excluded = match self.clock.phase() {
            Phase::Streaming => timings.body(),
            _ => self.clock.paused_for(),
        };
        HopStats {
            timings,
            counted_wire_time: timings.wire().saturating_sub(excluded),
            maybe_sent: self.clock.is_sent(),
        }
    }

    /// Where this attempt's time went, if it ends now: the phase it is in gets the rest.
    fn hop_timings(&self, job: &Job, now: Time) -> Timings {
        let (phase, timestamps) = (self.clock.phase(), self.clock.timestamps());
        let until = |its, end: u64| if phase == its { now.as_nanos() } else { end };
        let connected = until(Phase::Connect, timestamps.connected);
        let head = until(Phase::ResponseHead, timestamps.response_head).max(connected);
        let between = |start: u64, end: u64| Duration::from_nanos(end.saturating_sub(start));
        Timings::new(
            Duration::from_nanos(self.started_at.nanos_since(job.queued_at)),
            between(timestamps.started, connected),
            between(connected, head),
            between(head, now.as_nanos()),
        )
    }
}

/// A worker that still holds a job is dropped by a runtime that ends, whose other jobs will not run either; or by a panic
/// of its own (of a tracing subscriber, say), which is that one job's.
impl Drop for Worker {
    fn drop(&mut self) {
        let Some((slot, mut job)) = self.current.take() else {
            return;
        };
        let now = self.engine.now();
        let panicked = *self.is_polling.get_mut() && std::thread::panicking();
        let reason = if panicked {
            ErrorKind::Panicked
        } else {
            ErrorKind::Cancelled
        };
        let stats = self.hop_stats(&job, now);
        job.record_end(Error::from_kind(reason), &stats);
        let mut effects = Effects::default();
        {
            let mut state = self.engine.lock();
            state.active.remove(self.active_key);
            if !panicked {
                state.end_runtime(self.runtime, &mut effects);
            }
            state.settle(slot, Some((job, reason)), &mut effects);
            self.engine.start_ready(&mut state, now, None, &mut effects);
        }
        effects.run();
    }
}

impl Engine {
    /// Takes a retry out of a host's budget. SingleFetch this without the lock.
    fn withdraw_retry(&self, lane_id: LaneId) -> bool {
        self.lock().schedule.withdraw_retry(lane_id, self.now())
    }

    /// Does what the decision says: the job goes back into the schedule, or to its reader.
    fn apply_decision(
        self: &Arc<Self>,
        state: &mut State,
        slot: Slot,
        mut job: Box<Job>,
        decision: HopDecision,
        now: Time,
        effects: &mut Effects,
    ) {
        if let Some(pause) = decision.host_pause {
            state.schedule.pause_lane(&slot, now + pause);
        }
        let finished = match decision.next {
            // This worker was the last of its runtime to be told that it ends.
            NextStep::Retry(_)
            | NextStep::FinalRound
            | NextStep::NextHop
            | NextStep::RenewToken
                if state.runtime_of(slot.batch()).is_none() =>
            {
                Some(job)
            }
            NextStep::Retry(wait) if !job.is_out_of_time() => {
                job.queued_at = now;
                let requeued = state.schedule.requeue(&slot, job, now + wait, now);
                state.count_retry(slot.batch(), requeued).err()
            }
            NextStep::FinalRound if !job.is_out_of_time() => {
                job.queued_at = now;
                job.final_round = FinalRound::Running;
                let requeued = state.schedule.requeue_for_final_round(&slot, job, now);
                state.count_retry(slot.batch(), requeued).err()
            }
            NextStep::NextHop => self.requeue_hop(state, &slot, job, now, effects).err(),
            NextStep::RenewToken => self
                .requeue_after_401(state, &slot, job, now, effects)
                .err(),
            NextStep::Done | NextStep::Retry(_) | NextStep::FinalRound => Some(job),
        };
        // Without a result yet, a job ends here between two hops.
        let finished = finished.map(|job| {
            let reason = state.end_reason(&job);
            (job, reason)
        });
        state.settle(slot, finished, effects);
    }

    /// A hop goes back through the schedule: it may be to another host, whose limits it then takes.
    fn requeue_hop(
        self: &Arc<Self>,
        state: &mut State,
        slot: &Slot,
        mut job: Box<Job>,
        now: Time,
        effects: &mut Effects,
    ) -> Result<(), Box<Job>> {
        let Some(lane) = job.lane() else {
            return Err(job);
        };
        job.queued_at = now;
        let limits = || self.lane_limits(&lane);
        let key = lane.key();
        let token_cell = job.token_cell().cloned();
        state
            .schedule
            .requeue_in_lane(slot, key, limits, job, now)?;
        self.ensure_token(state, token_cell.as_ref(), key, slot.batch(), effects);
        Ok(())
    }
}

/// An exchange under its clocks and its signal, inside its span.
struct GuardedExchange<'a, F> {
    engine: &'a Engine,
    exchange: Pin<&'a mut Option<F>>,
    cancel_flag: &'a CancelFlag,
    span: Option<tracing::Span>,
}

impl<F: Future<Output = Result<Response, Error>>> GuardedExchange<'_, F> {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        clock: &AttemptClock,
        timeouts: &AttemptTimeouts<'_>,
        mut timer: Pin<&mut Sleep>,
        armed_for: &mut Time,
    ) -> Poll<F::Output> {
        // Looked at before the exchange too: what was given up must not start.
        if self.cancel_flag.is_set() {
            return Poll::Ready(Err(Error::from_kind(ErrorKind::Cancelled)));
        }
        if let Poll::Ready(outcome) = self.poll_exchange(cx) {
            return Poll::Ready(outcome);
        }
        self.cancel_flag.register(cx.waker());
        if self.cancel_flag.is_set() {
            return Poll::Ready(Err(Error::from_kind(ErrorKind::Cancelled)));
        }
        let Some((at, kind)) = timeouts.next_timeout(clock) else {
            return Poll::Pending;
        };
        // Who was polled since it was set, and has not run out, knows whom to wake.
        let is_armed = at >= *armed_for && !timer.is_elapsed();
        if at < *armed_for {
            *armed_for = at;
            timer.as_mut().reset(self.engine.instant(at));
        }
        // Exempt from tokio's budget, which may be spent: the timer would not be told then whom to wake.
        while !is_armed && pin!(unconstrained(timer.as_mut())).poll(cx).is_ready() {
            if self.engine.now() >= at {
                return Poll::Ready(Err(timeouts.timeout_error(kind)));
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
        catch_panic(|| exchange.poll(cx)).unwrap_or_else(|panicked| Poll::Ready(Err(panicked)))
    }
}

/// Runs what may run a transport's code.
fn catch_panic<T>(run: impl FnOnce() -> T) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|panic| {
        Error::from_kind(ErrorKind::Panicked).with_detail(panic_message(&*panic).to_owned())
    })
}
