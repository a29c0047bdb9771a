//! A job: one input of a batch on its way to its result.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::StatusCode;
use tokio::time::Instant;

use super::hop::HopState;
use super::{EngineLimits, RequestPolicy, instant_after};
use crate::exchange::decision::{FinalRound, HopDecision, NextStep, RetryContext};
use crate::exchange::{BodyBudget, BodyHandler, BodySink, Reservation};
use url::Url;

use crate::limits::{Host, Priority, Retry, Timeouts};
use crate::request::origin;
use crate::schedule::{self, BatchId, PriorityLevel, Time};
use crate::timings::AttemptList;
use crate::{Attempt, Error, ErrorKind, Outcome, Redirect, Request, Response, Timings};

/// What all jobs of a batch have in common.
pub(crate) struct JobOptions {
    pub(crate) policy: Arc<RequestPolicy>,
    pub(crate) retry: Retry,
    pub(crate) timeouts: Timeouts,
    pub(crate) deadline: Option<Time>,
    /// Who reads the bodies, if they are not kept.
    pub(crate) handler: Option<Arc<dyn BodyHandler>>,
    /// What they are counted in, if it is bounded.
    pub(crate) body_budget: Option<Arc<BodyBudget>>,
}

/// What a hop took.
pub(super) struct HopStats {
    pub(super) timings: Timings,
    /// What of its time on the wire the timeouts count.
    pub(super) counted_wire_time: Duration,
    /// Whether any of it may have reached the server.
    pub(super) maybe_sent: bool,
}

impl JobOptions {
    /// The same, with bodies read by a handler.
    pub(super) fn with_handler(&self, handler: Arc<dyn BodyHandler>) -> Self {
        Self {
            policy: Arc::clone(&self.policy),
            retry: self.retry.clone(),
            timeouts: self.timeouts.clone(),
            deadline: self.deadline,
            handler: Some(handler),
            body_budget: None,
        }
    }
}

pub(crate) struct Job {
    pub(crate) index: usize,
    pub(crate) request: Request,
    /// The reader's own number for what it keeps beside the job.
    pub(crate) tag: usize,
    pub(super) batch: BatchId,
    /// The lane's key, where it is not the origin.
    pub(super) custom_lane_key: Option<Arc<str>>,
    /// What is particular to its host, if that was exchange_request for as it was met.
    pub(super) host_settings: Option<Arc<Host>>,
    /// What came back: at the end the result, between two attempts what the last one came to.
    pub(crate) result: Option<Result<Response, Error>>,
    pub(super) options: Arc<JobOptions>,
    /// Since when it waits in the schedule.
    pub(super) queued_at: Time,
    /// Time on the wire in the attempts so far, as far as it counts.
    wire_time: Duration,
    pub(super) result_slot: Option<Arc<ResultSlot>>,
    /// Where it is, if not where the request says.
    pub(super) hop_state: Option<Box<HopState>>,
    /// Where its body goes. A worker has it in hand during an exchange.
    pub(super) body_sink: BodySink,
    /// Its part in what the batch holds, if that is bounded.
    pub(super) reservation: Option<Reservation>,
    span: Option<Box<tracing::Span>>,
    attempts: AttemptList,
    maybe_sent: bool,
    /// How many of the attempts cost no retry.
    uncharged: u32,
    pub(super) final_round: FinalRound,
}

impl Job {
    pub(super) fn new(
        index: usize,
        request: Request,
        batch: BatchId,
        options: Arc<JobOptions>,
    ) -> Box<Self> {
        Box::new(Self {
            index,
            span: span(index, &request),
            body_sink: BodySink::for_request(&request, options.handler.as_ref()),
            reservation: options
                .body_budget
                .as_ref()
                .map(|budget| Reservation::new(budget, index)),
            request,
            tag: 0,
            batch,
            custom_lane_key: None,
            host_settings: None,
            result: None,
            options,
            queued_at: Time::default(),
            wire_time: Duration::ZERO,
            result_slot: None,
            hop_state: None,
            attempts: AttemptList::default(),
            maybe_sent: false,
            uncharged: 0,
            final_round: FinalRound::NotPlanned,
        })
    }

    /// The key of the lane it belongs to; none if its URL is not one.
    pub(super) fn lane(&self) -> Option<JobLane> {
        let url = self.hop_request().shared_url()?;
        Some(JobLane {
            url: Arc::clone(url),
            custom_key: self.custom_lane_key.clone(),
            host_settings: self.host_settings.clone(),
        })
    }

    /// The same, borrowed.
    pub(super) fn lane_key(&self) -> Option<&str> {
        match &self.custom_lane_key {
            Some(key) => Some(key),
            None => self.hop_request().shared_url().map(|url| origin(url)),
        }
    }

    /// Whether the time it may spend on the wire is spent.
    pub(super) fn is_out_of_time(&self) -> bool {
        self.options
            .timeouts
            .total
            .is_some_and(|total| total <= self.wire_time())
    }

    pub(super) fn span(&self) -> Option<&tracing::Span> {
        self.span.as_deref()
    }

    /// What its present attempt is decided by.
    pub(super) fn retry_context<'a>(
        &'a self,
        withdraw_retry: &'a (dyn Fn() -> bool + Sync),
    ) -> RetryContext<'a> {
        RetryContext {
            request: self.hop_request(),
            retry: &self.options.retry,
            retries: self.attempts.len() as u32 - self.uncharged,
            throttled: self.uncharged,
            final_round: self.final_round,
            withdraw_retry,
        }
    }

    /// Time on the wire so far, hops of the present attempt included.
    pub(super) fn wire_time(&self) -> Duration {
        self.wire_time + self.earlier_hop_timings().wire()
    }

    /// What the hops before the present one took, in the present attempt.
    pub(super) fn earlier_hop_timings(&self) -> Timings {
        self.hop_state
            .as_ref()
            .map_or(Timings::default(), |hop_state| hop_state.timings)
    }

    /// Books what a hop came to, and judges it.
    pub(super) fn record_hop(
        &mut self,
        limits: &EngineLimits,
        outcome: Result<Response, Error>,
        stats: HopStats,
        withdraw_retry: &(dyn Fn() -> bool + Sync),
    ) -> HopDecision {
        self.maybe_sent |= stats.maybe_sent;
        let outcome = match outcome {
            Ok(response) => match self.follow_redirect(limits, &response, stats.timings) {
                Ok(true) => {
                    return HopDecision {
                        next: NextStep::NextHop,
                        ..HopDecision::DONE
                    };
                }
                Ok(false) if self.try_reauthorize(&response, stats.timings) => {
                    return HopDecision {
                        next: NextStep::RenewToken,
                        ..HopDecision::DONE
                    };
                }
                Ok(false) => Ok(response),
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
        self.record_attempt(outcome, stats, withdraw_retry)
    }

    /// Books an attempt that nothing comes after. It runs no code of others, as a subscriber's: it may be called while
    /// one of them panics.
    pub(super) fn record_end(&mut self, error: Error, stats: &HopStats) {
        let timings = self.earlier_hop_timings() + stats.timings;
        self.attempts
            .push(Attempt::new(Outcome::Error(error.kind()), timings));
        if let Some(hop_state) = &mut self.hop_state {
            hop_state.timings = Timings::default();
        }
        self.maybe_sent |= stats.maybe_sent;
        self.result = Some(Err(error));
    }

    fn record_attempt(
        &mut self,
        outcome: Result<Response, Error>,
        stats: HopStats,
        withdraw_retry: &(dyn Fn() -> bool + Sync),
    ) -> HopDecision {
        let timings = self.earlier_hop_timings() + stats.timings;
        let mut outcome = outcome.map_err(|error| self.with_body_hint(error));
        let decision = self.decide(&mut outcome, stats.maybe_sent, withdraw_retry);
        let attempt_outcome = match &outcome {
            Ok(response) => Outcome::Status(response.status()),
            Err(error) => Outcome::Error(error.kind()),
        };
        self.trace_attempt(attempt_outcome, timings, decision);
        if decision.backoff().is_some() && !decision.is_charged {
            self.uncharged += 1;
        }
        self.attempts.push(Attempt::new(attempt_outcome, timings));
        self.wire_time += self.earlier_hop_timings().wire() + stats.counted_wire_time;
        if let Some(hop_state) = &mut self.hop_state {
            hop_state.timings = Timings::default();
        }
        self.result = Some(outcome);
        decision
    }

    fn decide(
        &mut self,
        outcome: &mut Result<Response, Error>,
        maybe_sent: bool,
        withdraw_retry: &(dyn Fn() -> bool + Sync),
    ) -> HopDecision {
        let handler_decision = self.body_sink.take_decision();
        if let Some(decision) = handler_decision.filter(|_| outcome.is_ok()) {
            return decision;
        }
        if self.body_sink.handler_started() {
            return HopDecision::DONE;
        }
        if self.options.retry.classify.is_some()
            && let Err(error) = outcome
        {
            error.set_url(self.hop_request().target().clone());
            error.set_maybe_sent(self.maybe_sent);
        }
        let decided =
            self.retry_context(withdraw_retry)
                .decide(outcome, maybe_sent, fastrand::f64());
        decided.unwrap_or_else(|panicked| {
            *outcome = Err(panicked);
            HopDecision::DONE
        })
    }

    /// Gives back what an attempt has read, unless it is the result.
    pub(super) fn end_reservation(&mut self, decision: HopDecision) {
        let is_last = decision.next == NextStep::Done
            || (decision.has_next_attempt() && self.is_out_of_time());
        let is_kept = is_last && matches!(self.result, Some(Ok(_)));
        if let Some(reservation) = &mut self.reservation {
            let again = decision
                .backoff()
                .map(|wait| instant_after(Instant::now(), wait));
            reservation.end_attempt(is_kept, is_last, again);
        }
    }

    /// What of it is counted until its result is taken.
    pub(crate) fn take_reservation(&mut self) -> Option<Reservation> {
        self.reservation.take()
    }

    /// Where the time went, once it has come to its end.
    pub(crate) fn timings(&self) -> Timings {
        match &self.result {
            Some(Ok(response)) => response.timings(),
            Some(Err(error)) => error.timings(),
            None => Timings::default(),
        }
    }

    /// The attempts, once it has come to its end.
    pub(crate) fn attempts(&self) -> Option<&AttemptList> {
        match self.result.as_ref()? {
            Ok(response) => Some(response.attempt_list()),
            Err(error) => Some(error.attempt_list()),
        }
    }

    /// The status of the response, once it has come to its end.
    pub(crate) fn status(&self) -> Option<StatusCode> {
        Some(self.result.as_ref()?.as_ref().ok()?.status())
    }

    /// How many bytes its body has, if it came to a response.
    pub(super) fn bytes(&self) -> Option<u64> {
        let response = self.result.as_ref()?.as_ref().ok()?;
        let elsewhere = response.saved_bytes().or(self.body_sink.handler_bytes());
        Some(elsewhere.unwrap_or(response.bytes().len() as u64))
    }

    /// The response, once it has come to its end.
    pub(crate) fn take_response(&mut self) -> Result<Response, Error> {
        let cancelled = || Err(Error::from_kind(ErrorKind::Cancelled));
        self.result.take().unwrap_or_else(cancelled)
    }

    /// What the handler returned, once it has come to its end.
    pub(crate) fn take_handler_output<R: 'static>(&mut self) -> Result<R, Error> {
        self.take_response()?;
        let output = self.body_sink.take_handler_output();
        match output.and_then(|output| output.downcast().ok()) {
            Some(output) => Ok(*output),
            None => Err(Error::from_kind(ErrorKind::Cancelled)),
        }
    }

    /// The end of a job that was to be tried again for what the server answered, and could not be.
    fn unread_body_error(&self, response: Response, reason: ErrorKind) -> Error {
        let kind = match self.is_out_of_time() {
            true => ErrorKind::TotalTimeout,
            false => reason,
        };
        let reason = format!("before it was tried again after {}", response.status());
        let mut error = Error::from_kind(kind).with_detail(reason);
        error.set_url(self.hop_request().target().clone());
        error.set_maybe_sent(self.maybe_sent);
        error.set_response(response);
        error
    }

    /// Says so if it is the body that keeps the request from being sent again.
    fn with_body_hint(&self, error: Error) -> Error {
        match error.kind().is_transient() && self.hop_request().body().is_consumed() {
            true => error.append_detail("its body is a stream, which cannot be sent again"),
            false => error,
        }
    }

    /// The end: the result gets all that is known of the attempts. Without one, `reason` is the result.
    pub(super) fn finish(&mut self, reason: ErrorKind) {
        if self.result.is_none() && self.earlier_hop_timings() != Timings::default() {
            // It ended between two hops.
            self.attempts.push(Attempt::new(
                Outcome::Error(reason),
                self.earlier_hop_timings(),
            ));
        }
        let mut result = self
            .result
            .take()
            .unwrap_or_else(|| Err(Error::from_kind(reason)));
        let attempts = std::mem::take(&mut self.attempts);
        let redirects: Box<[Redirect]> = match &mut self.hop_state {
            Some(hop_state) => std::mem::take(&mut hop_state.redirects).into(),
            None => Box::default(),
        };
        match &mut result {
            Ok(response) => {
                response.set_attempts(attempts);
                response.set_redirects(redirects);
            }
            Err(error) => {
                error.set_url(self.hop_request().target().clone());
                error.set_attempts(attempts);
                error.set_redirects(redirects);
                error.set_maybe_sent(self.maybe_sent);
            }
        }
        self.result = Some(match result {
            Ok(response) if self.body_sink.lacks_handler_output() => {
                Err(self.unread_body_error(response, reason))
            }
            result => result,
        });
    }

    fn trace_attempt(&self, outcome: Outcome, timings: Timings, decision: HopDecision) {
        let attempt = self.attempts.len() + 1;
        let record = || {
            tracing::debug!(
                target: "fanout::attempt",
                attempt,
                %outcome,
                waited = ?timings.queued(),
                wire = ?timings.wire(),
                again_in = decision.backoff().map(tracing::field::debug),
                "attempt ended"
            );
        };
        match &self.span {
            Some(span) => span.in_scope(record),
            None => record(),
        }
    }
}

/// A lane's key, cheap to hold while the job itself is moved.
pub(super) struct JobLane {
    pub(super) url: Arc<Url>,
    custom_key: Option<Arc<str>>,
    pub(super) host_settings: Option<Arc<Host>>,
}

impl JobLane {
    pub(super) fn key(&self) -> &str {
        match &self.custom_key {
            Some(key) => key,
            None => origin(&self.url),
        }
    }
}

impl schedule::Schedulable for Box<Job> {
    fn is_abandoned(&self) -> bool {
        self.result_slot
            .as_ref()
            .is_some_and(|result_slot| result_slot.is_abandoned())
    }

    fn priority_level(&self) -> PriorityLevel {
        match self.request.priority() {
            Priority::High => PriorityLevel::High,
            Priority::Normal => PriorityLevel::Normal,
            Priority::Low => PriorityLevel::Low,
        }
    }
}

/// A span is made where the request is handed in, so that it is a child of the caller's own.
fn span(index: usize, request: &Request) -> Option<Box<tracing::Span>> {
    let span = tracing::debug_span!(
        target: "fanout::request",
        "request",
        index,
        method = %request.method(),
        url = request.url_str(),
    );
    (!span.is_disabled()).then(|| Box::new(span))
}

/// Where the result of a single fetch goes.
pub(super) struct ResultSlot {
    abandoned: AtomicBool,
    /// Where its job was started, if it was: a place among the running, which may be another's by now.
    active_key: AtomicUsize,
    slot: Mutex<(Option<Box<Job>>, Option<Waker>)>,
}

impl ResultSlot {
    const NOT_STARTED: usize = usize::MAX;

    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            abandoned: AtomicBool::new(false),
            active_key: AtomicUsize::new(Self::NOT_STARTED),
            slot: Mutex::new((None, None)),
        })
    }

    pub(super) fn set_active_key(&self, active_key: usize) {
        self.active_key.store(active_key, Ordering::Relaxed);
    }

    pub(super) fn active_key(&self) -> Option<usize> {
        Some(self.active_key.load(Ordering::Relaxed))
            .filter(|active_key| *active_key != Self::NOT_STARTED)
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Relaxed)
    }

    /// SingleFetch this without the engine's lock: it drops the reader's waker, so that nobody does under it.
    pub(super) fn abandon(&self) {
        self.abandoned.store(true, Ordering::Relaxed);
        let mut slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        let _reader = (slot.0.take(), slot.1.take());
        drop(slot);
    }

    pub(super) fn complete(&self, job: Box<Job>) -> Option<Waker> {
        let mut slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        slot.0 = Some(job);
        slot.1.take()
    }

    pub(super) fn poll(&self, cx: &Context<'_>) -> Poll<Box<Job>> {
        let mut slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        match slot.0.take() {
            Some(job) => Poll::Ready(job),
            None => {
                slot.1 = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}
