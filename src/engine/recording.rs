//! What a job records of each hop and each attempt, and how its result is completed.

use tokio::time::Instant;

use super::hop_stats::HopStats;
use super::instant_after;
use super::job::Job;
use super::limits::EngineLimits;
use crate::body_budget::AttemptEnd;
use crate::error::{Error, ErrorKind};
use crate::exchange::decision::{HopDecision, NextStep, RetryContext};
use crate::response::{Redirect, Response};
use crate::timings::{Attempt, Outcome, Timings};

impl Job {
    /// Records the outcome of a hop, and decides what comes next.
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

    /// Records the job's last attempt. It calls no user code, such as a tracing subscriber's,
    /// because it may run while the thread is panicking.
    pub(super) fn record_end(&mut self, error: Error, stats: &HopStats) {
        self.maybe_sent |= stats.maybe_sent;
        self.push_attempt(Outcome::Error(error.kind()), stats);
        self.result = Some(Err(error));
    }

    fn record_attempt(
        &mut self,
        outcome: Result<Response, Error>,
        stats: HopStats,
        withdraw_retry: &(dyn Fn() -> bool + Sync),
    ) -> HopDecision {
        let mut outcome = outcome.map_err(|error| self.with_body_hint(error));
        let decision = self.decide(&mut outcome, stats.maybe_sent, withdraw_retry);
        let attempt_outcome = match &outcome {
            Ok(response) => Outcome::Status(response.status()),
            Err(error) => Outcome::Error(error.kind()),
        };
        self.trace_attempt(attempt_outcome, self.attempt_timings(&stats), decision);
        if decision.backoff().is_some() && !decision.is_charged {
            self.uncharged_retries += 1;
        }
        self.counted_wire_time += self.earlier_hop_timings().wire() + stats.counted_wire_time;
        self.push_attempt(attempt_outcome, &stats);
        self.result = Some(outcome);
        decision
    }

    fn attempt_timings(&self, stats: &HopStats) -> Timings {
        self.earlier_hop_timings() + stats.timings
    }

    fn push_attempt(&mut self, outcome: Outcome, last_hop: &HopStats) {
        let timings = self.attempt_timings(last_hop);
        self.attempts.push(Attempt::new(outcome, timings));
        if let Some(hop) = &mut self.hop_state {
            hop.timings = Timings::default();
        }
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

    /// What a retry decision needs to know of this job.
    pub(super) fn retry_context<'a>(
        &'a self,
        withdraw_retry: &'a (dyn Fn() -> bool + Sync),
    ) -> RetryContext<'a> {
        RetryContext {
            request: self.hop_request(),
            retry: &self.options.retry,
            retries: self.attempts.len() as u32 - self.uncharged_retries,
            throttled: self.uncharged_retries,
            final_round: self.final_round,
            withdraw_retry,
        }
    }

    /// Returns to the body budget what the attempt reserved, unless its body is the result.
    pub(super) fn end_reservation(&mut self, decision: HopDecision) {
        let is_last = decision.next == NextStep::Done
            || (decision.has_next_attempt() && self.is_out_of_time());
        if let Some(reservation) = &mut self.reservation {
            let backoff = decision.backoff();
            let backoff_end = backoff.map(|backoff| instant_after(Instant::now(), backoff));
            reservation.end_attempt(match self.result {
                _ if !is_last => AttemptEnd::Again { backoff_end },
                Some(Ok(_)) => AttemptEnd::Body,
                _ => AttemptEnd::NoBody,
            });
        }
    }

    /// Completes the result with the attempts, the redirects and the URL. Without a result, it is
    /// an error of the kind `reason`.
    pub(super) fn finish(&mut self, reason: ErrorKind) {
        let earlier_hops = self.earlier_hop_timings();
        if self.result.is_none() && earlier_hops != Timings::default() {
            // The job ended between two hops.
            self.attempts
                .push(Attempt::new(Outcome::Error(reason), earlier_hops));
        }
        let mut result = match self.result.take() {
            Some(result) => result,
            None => Err(Error::from_kind(reason)),
        };
        let attempts = std::mem::take(&mut self.attempts);
        let redirects: Box<[Redirect]> = match &mut self.hop_state {
            Some(hop) => std::mem::take(&mut hop.redirects).into(),
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

    /// The error of a job that ended while it waited for a retry, so that no handler has read its
    /// last response.
    fn unread_body_error(&self, response: Response, reason: ErrorKind) -> Error {
        let kind = if self.is_out_of_time() {
            ErrorKind::TotalTimeout
        } else {
            reason
        };
        let detail = format!(
            "while waiting for a retry after status {}",
            response.status()
        );
        let mut error = Error::from_kind(kind).with_detail(detail);
        error.set_url(self.hop_request().target().clone());
        error.set_maybe_sent(self.maybe_sent);
        error.set_response(response);
        error
    }

    /// Adds to a transient error that the request body prevents a retry, if it does.
    fn with_body_hint(&self, error: Error) -> Error {
        if error.kind().is_transient() && self.hop_request().body().is_consumed() {
            error.append_detail("the request body is a stream, which cannot be sent again")
        } else {
            error
        }
    }

    fn trace_attempt(&self, outcome: Outcome, timings: Timings, decision: HopDecision) {
        let attempt = self.attempts.len() + 1;
        let record = || {
            tracing::debug!(
                target: "fanout::attempt",
                attempt,
                %outcome,
                queued = ?timings.queued(),
                wire = ?timings.wire(),
                retry_in = decision.backoff().map(tracing::field::debug),
                "attempt ended"
            );
        };
        match &self.span {
            Some(span) => span.in_scope(record),
            None => record(),
        }
    }
}
