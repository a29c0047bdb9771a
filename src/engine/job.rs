//! A job: one input of a batch on its way to its result.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::StatusCode;
use tokio::time::Instant;

use super::trail::Trail;
use super::{Manners, Rules, after};
use crate::exchange::verdict::{Case, Last, Next, Verdict};
use crate::exchange::{Buffer, Charge, ReadBody, Reading};
use url::Url;

use crate::limits::{Host, Priority, Retry, Timeouts};
use crate::request::origin;
use crate::schedule::{self, BatchId, Level, Time};
use crate::timings::Attempts;
use crate::{Attempt, Error, ErrorKind, Outcome, Redirect, Request, Response, Timings};

/// What all jobs of a batch have in common.
pub(crate) struct Terms {
    pub(crate) manners: Arc<Manners>,
    pub(crate) retry: Retry,
    pub(crate) timeouts: Timeouts,
    pub(crate) deadline: Option<Time>,
    /// Who reads the bodies, if they are not kept.
    pub(crate) handler: Option<Arc<dyn ReadBody>>,
    /// What they are counted in, if it is bounded.
    pub(crate) buffer: Option<Arc<Buffer>>,
}

/// What a hop took.
pub(super) struct Tally {
    pub(super) timings: Timings,
    /// What of its time on the wire the timeouts count.
    pub(super) counted: Duration,
    /// Whether any of it may have reached the server.
    pub(super) sent: bool,
}

impl Terms {
    /// The same, with bodies read by a handler.
    pub(super) fn read_by(&self, handler: Arc<dyn ReadBody>) -> Self {
        Self {
            manners: Arc::clone(&self.manners),
            retry: self.retry.clone(),
            timeouts: self.timeouts.clone(),
            deadline: self.deadline,
            handler: Some(handler),
            buffer: None,
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
    pub(super) lane: Option<Arc<str>>,
    /// What is particular to its host, if that was asked for as it was met.
    pub(super) host: Option<Arc<Host>>,
    /// What came back: at the end the result, between two attempts what the last one came to.
    pub(crate) result: Option<Result<Response, Error>>,
    pub(super) terms: Arc<Terms>,
    /// Since when it waits in the schedule.
    pub(super) since: Time,
    /// Time on the wire in the attempts so far, as far as it counts.
    wire: Duration,
    pub(super) reply: Option<Arc<Reply>>,
    /// Where it is, if not where the request says.
    pub(super) trail: Option<Box<Trail>>,
    /// Where its body goes. A worker has it in hand during an exchange.
    pub(super) reading: Reading,
    /// Its part in what the batch holds, if that is bounded.
    pub(super) charge: Option<Charge>,
    span: Option<Box<tracing::Span>>,
    attempts: Attempts,
    maybe_sent: bool,
    /// How many of the attempts cost no retry.
    throttled: u32,
    pub(super) last: Last,
}

impl Job {
    pub(super) fn new(
        index: usize,
        request: Request,
        batch: BatchId,
        terms: Arc<Terms>,
    ) -> Box<Self> {
        Box::new(Self {
            index,
            span: span(index, &request),
            reading: Reading::of(&request, terms.handler.as_ref()),
            charge: terms
                .buffer
                .as_ref()
                .map(|buffer| Charge::new(buffer, index)),
            request,
            tag: 0,
            batch,
            lane: None,
            host: None,
            result: None,
            terms,
            since: Time::default(),
            wire: Duration::ZERO,
            reply: None,
            trail: None,
            attempts: Attempts::default(),
            maybe_sent: false,
            throttled: 0,
            last: Last::Never,
        })
    }

    /// The key of the lane it belongs to; none if its URL is not one.
    pub(super) fn lane(&self) -> Option<Lane> {
        let url = self.hop().shared_url()?;
        Some(Lane {
            url: Arc::clone(url),
            name: self.lane.clone(),
            host: self.host.clone(),
        })
    }

    /// The same, borrowed.
    pub(super) fn lane_key(&self) -> Option<&str> {
        match &self.lane {
            Some(name) => Some(name),
            None => self.hop().shared_url().map(|url| origin(url)),
        }
    }

    /// Whether the time it may spend on the wire is spent.
    pub(super) fn is_out_of_time(&self) -> bool {
        self.terms
            .timeouts
            .total
            .is_some_and(|total| total <= self.wire())
    }

    pub(super) fn span(&self) -> Option<&tracing::Span> {
        self.span.as_deref()
    }

    /// What its present attempt is judged by.
    pub(super) fn case<'a>(&'a self, pay: &'a (dyn Fn() -> bool + Sync)) -> Case<'a> {
        Case {
            request: self.hop(),
            retry: &self.terms.retry,
            retries: self.attempts.len() as u32 - self.throttled,
            throttled: self.throttled,
            last: self.last,
            pay,
        }
    }

    /// Time on the wire so far, hops of the present attempt included.
    pub(super) fn wire(&self) -> Duration {
        self.wire + self.hops().wire()
    }

    /// What the hops before the present one took, in the present attempt.
    pub(super) fn hops(&self) -> Timings {
        self.trail
            .as_ref()
            .map_or(Timings::default(), |trail| trail.timings)
    }

    /// Books what a hop came to, and judges it.
    pub(super) fn book(
        &mut self,
        rules: &Rules,
        outcome: Result<Response, Error>,
        tally: Tally,
        pay: &(dyn Fn() -> bool + Sync),
    ) -> Verdict {
        self.maybe_sent |= tally.sent;
        let outcome = match outcome {
            Ok(response) => match self.follow(rules, &response, tally.timings) {
                Ok(true) => {
                    return Verdict {
                        next: Next::Hop,
                        ..Verdict::DONE
                    };
                }
                Ok(false) if self.renews(&response, tally.timings) => {
                    return Verdict {
                        next: Next::Renew,
                        ..Verdict::DONE
                    };
                }
                Ok(false) => Ok(response),
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        };
        self.book_attempt(outcome, tally, pay)
    }

    /// Books an attempt that nothing comes after. It runs no code of others, as a subscriber's: it may be called while
    /// one of them panics.
    pub(super) fn book_end(&mut self, error: Error, tally: &Tally) {
        let timings = self.hops() + tally.timings;
        self.attempts
            .push(Attempt::new(Outcome::Error(error.kind()), timings));
        if let Some(trail) = &mut self.trail {
            trail.timings = Timings::default();
        }
        self.maybe_sent |= tally.sent;
        self.result = Some(Err(error));
    }

    fn book_attempt(
        &mut self,
        outcome: Result<Response, Error>,
        tally: Tally,
        pay: &(dyn Fn() -> bool + Sync),
    ) -> Verdict {
        let timings = self.hops() + tally.timings;
        let mut outcome = outcome.map_err(|error| self.explained(error));
        let verdict = self.judge(&mut outcome, tally.sent, pay);
        let came_to = match &outcome {
            Ok(response) => Outcome::Status(response.status()),
            Err(error) => Outcome::Error(error.kind()),
        };
        self.trace_attempt(came_to, timings, verdict);
        if verdict.retry_in().is_some() && !verdict.counts {
            self.throttled += 1;
        }
        self.attempts.push(Attempt::new(came_to, timings));
        self.wire += self.hops().wire() + tally.counted;
        if let Some(trail) = &mut self.trail {
            trail.timings = Timings::default();
        }
        self.result = Some(outcome);
        verdict
    }

    fn judge(
        &mut self,
        outcome: &mut Result<Response, Error>,
        sent: bool,
        pay: &(dyn Fn() -> bool + Sync),
    ) -> Verdict {
        let settled = self.reading.take_verdict();
        if let Some(verdict) = settled.filter(|_| outcome.is_ok()) {
            return verdict;
        }
        if self.reading.is_given() {
            return Verdict::DONE;
        }
        if self.terms.retry.classify.is_some()
            && let Err(error) = outcome
        {
            error.set_url(self.hop().target().clone());
            error.set_maybe_sent(self.maybe_sent);
        }
        let judged = self.case(pay).judge(outcome, sent, fastrand::f64());
        judged.unwrap_or_else(|panicked| {
            *outcome = Err(panicked);
            Verdict::DONE
        })
    }

    /// Gives back what an attempt has read, unless it is the result.
    pub(super) fn end_charge(&mut self, verdict: Verdict) {
        let is_last = verdict.next == Next::Done || (verdict.goes_again() && self.is_out_of_time());
        let is_kept = is_last && matches!(self.result, Some(Ok(_)));
        if let Some(charge) = &mut self.charge {
            let again = verdict.retry_in().map(|wait| after(Instant::now(), wait));
            charge.end(is_kept, is_last, again);
        }
    }

    /// What of it is counted until its result is taken.
    pub(crate) fn take_charge(&mut self) -> Option<Charge> {
        self.charge.take()
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
    pub(crate) fn attempts(&self) -> Option<&Attempts> {
        match self.result.as_ref()? {
            Ok(response) => Some(response.kept_attempts()),
            Err(error) => Some(error.kept_attempts()),
        }
    }

    /// The status of the response, once it has come to its end.
    pub(crate) fn status(&self) -> Option<StatusCode> {
        Some(self.result.as_ref()?.as_ref().ok()?.status())
    }

    /// How many bytes its body has, if it came to a response.
    pub(super) fn bytes(&self) -> Option<u64> {
        let response = self.result.as_ref()?.as_ref().ok()?;
        let elsewhere = response.saved_bytes().or(self.reading.bytes());
        Some(elsewhere.unwrap_or(response.bytes().len() as u64))
    }

    /// The response, once it has come to its end.
    pub(crate) fn take_response(&mut self) -> Result<Response, Error> {
        let lost = || Err(Error::of(ErrorKind::Cancelled));
        self.result.take().unwrap_or_else(lost)
    }

    /// What the handler returned, once it has come to its end.
    pub(crate) fn take_output<R: 'static>(&mut self) -> Result<R, Error> {
        self.take_response()?;
        let output = self.reading.take_output();
        match output.and_then(|output| output.downcast().ok()) {
            Some(output) => Ok(*output),
            None => Err(Error::of(ErrorKind::Cancelled)),
        }
    }

    /// The end of a job that was to be tried again for what the server answered, and could not be.
    fn unread(&self, response: Response, reason: ErrorKind) -> Error {
        let kind = match self.is_out_of_time() {
            true => ErrorKind::TotalTimeout,
            false => reason,
        };
        let reason = format!("before it was tried again after {}", response.status());
        let mut error = Error::of(kind).because(reason);
        error.set_url(self.hop().target().clone());
        error.set_maybe_sent(self.maybe_sent);
        error.set_response(response);
        error
    }

    /// Says so if it is the body that keeps the request from being sent again.
    fn explained(&self, error: Error) -> Error {
        match error.kind().is_transient() && self.hop().content().is_spent() {
            true => error.and("its body is a stream, which cannot be sent again"),
            false => error,
        }
    }

    /// The end: the result gets all that is known of the attempts. Without one, `reason` is the result.
    pub(super) fn finish(&mut self, reason: ErrorKind) {
        if self.result.is_none() && self.hops() != Timings::default() {
            // It ended between two hops.
            self.attempts
                .push(Attempt::new(Outcome::Error(reason), self.hops()));
        }
        let mut result = self.result.take().unwrap_or_else(|| Err(Error::of(reason)));
        let attempts = std::mem::take(&mut self.attempts);
        let redirects: Box<[Redirect]> = match &mut self.trail {
            Some(trail) => std::mem::take(&mut trail.redirects).into(),
            None => Box::default(),
        };
        match &mut result {
            Ok(response) => {
                response.set_attempts(attempts);
                response.set_redirects(redirects);
            }
            Err(error) => {
                error.set_url(self.hop().target().clone());
                error.set_attempts(attempts);
                error.set_redirects(redirects);
                error.set_maybe_sent(self.maybe_sent);
            }
        }
        self.result = Some(match result {
            Ok(response) if self.reading.is_unread() => Err(self.unread(response, reason)),
            result => result,
        });
    }

    fn trace_attempt(&self, outcome: Outcome, timings: Timings, verdict: Verdict) {
        let attempt = self.attempts.len() + 1;
        let record = || {
            tracing::debug!(
                target: "fanout::attempt",
                attempt,
                %outcome,
                waited = ?timings.queued(),
                wire = ?timings.wire(),
                again_in = verdict.retry_in().map(tracing::field::debug),
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
pub(super) struct Lane {
    pub(super) url: Arc<Url>,
    name: Option<Arc<str>>,
    pub(super) host: Option<Arc<Host>>,
}

impl Lane {
    pub(super) fn as_str(&self) -> &str {
        match &self.name {
            Some(name) => name,
            None => origin(&self.url),
        }
    }
}

impl schedule::Job for Box<Job> {
    fn is_abandoned(&self) -> bool {
        self.reply
            .as_ref()
            .is_some_and(|reply| reply.is_abandoned())
    }

    fn level(&self) -> Level {
        match self.request.urgency() {
            Priority::High => Level::High,
            Priority::Normal => Level::Normal,
            Priority::Low => Level::Low,
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
        url = request.as_str(),
    );
    (!span.is_disabled()).then(|| Box::new(span))
}

/// Where the result of a single fetch goes.
pub(super) struct Reply {
    abandoned: AtomicBool,
    /// Where its job was started, if it was: a place among the running, which may be another's by now.
    place: AtomicUsize,
    slot: Mutex<(Option<Box<Job>>, Option<Waker>)>,
}

impl Reply {
    const NOWHERE: usize = usize::MAX;

    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            abandoned: AtomicBool::new(false),
            place: AtomicUsize::new(Self::NOWHERE),
            slot: Mutex::new((None, None)),
        })
    }

    pub(super) fn started_at(&self, place: usize) {
        self.place.store(place, Ordering::Relaxed);
    }

    pub(super) fn place(&self) -> Option<usize> {
        Some(self.place.load(Ordering::Relaxed)).filter(|place| *place != Self::NOWHERE)
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Relaxed)
    }

    /// Call this without the engine's lock: it drops the reader's waker, so that nobody does under it.
    pub(super) fn abandon(&self) {
        self.abandoned.store(true, Ordering::Relaxed);
        let mut slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        let _reader = (slot.0.take(), slot.1.take());
        drop(slot);
    }

    pub(super) fn fill(&self, job: Box<Job>) -> Option<Waker> {
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
