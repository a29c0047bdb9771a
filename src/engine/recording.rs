//! Records the hops and attempts of a job, and completes the job's result.

use std::sync::Arc;

use tokio::time::Instant;

use super::Engine;
use super::decision::HeadDecisions;
use super::hop_stats::HopStats;
use super::instant_after;
use super::job::Job;
use crate::body_budget::ExchangeEnd;
use crate::error::{Error, ErrorKind};
use crate::response::{Redirect, Response};
use crate::retry::{HopDecision, NextStep, is_final_status};
use crate::schedule::LaneId;
use crate::timings::{Attempt, Outcome, Timings};

impl Job {
    /// Decides what follows a hop that ended with `outcome`, and records the hop.
    pub(super) fn decide_and_record_hop(
        &mut self,
        engine: &Arc<Engine>,
        lane: LaneId,
        mut outcome: Result<Response, Error>,
        stats: HopStats,
        head_decisions: HeadDecisions,
    ) -> HopDecision {
        self.maybe_sent |= stats.maybe_sent;
        let charged_retry_count = self.charged_retry_count();
        self.body_sink
            .renew_retries_if_file_grew(charged_retry_count);
        let HeadDecisions {
            hop_decision,
            policy_stops_redirect,
            redirect_refusal,
        } = head_decisions;
        let maybe_sent = stats.maybe_sent;
        let mut decision = match hop_decision {
            Some(decision) if outcome.is_ok() => decision,
            _ => self.decide_after_hop(
                engine,
                lane,
                &mut outcome,
                maybe_sent,
                policy_stops_redirect,
            ),
        };
        if decision.next_step == NextStep::NextHop {
            outcome = outcome
                .and_then(|response| self.prepare_redirect_hop(engine, response, redirect_refusal));
            if outcome.is_err() {
                decision = self.decide_after_hop(engine, lane, &mut outcome, maybe_sent, false);
            }
        }
        if decision.continues_attempt() {
            if let Some(hop) = &mut self.hop_state {
                hop.earlier_hop_timings += stats.timings;
                hop.is_reauthorized |= decision.next_step == NextStep::RenewToken;
            }
            return decision;
        }
        self.record_attempt(outcome, &stats, decision)
    }

    /// Records `error` as the outcome of the job's last attempt. No user code, such as a tracing
    /// subscriber, is called, because the thread may be panicking.
    pub(super) fn record_final_error(&mut self, error: Error, stats: &HopStats) {
        self.maybe_sent |= stats.maybe_sent;
        let timings = self.earlier_hop_timings() + stats.timings;
        self.push_attempt(Outcome::Error(error.kind()), timings);
        self.result = Some(Err(error));
    }

    /// Ends a queued job with `error`. A job with the result of an earlier attempt keeps that
    /// result.
    pub(super) fn end_before_start(&mut self, error: Error) {
        if self.result.is_some() {
            return;
        }
        if self.earlier_hop_timings() == Timings::default() {
            self.result = Some(Err(error));
        } else {
            self.record_final_error(error, &HopStats::default());
        }
    }

    fn record_attempt(
        &mut self,
        outcome: Result<Response, Error>,
        stats: &HopStats,
        decision: HopDecision,
    ) -> HopDecision {
        let attempt_outcome = match &outcome {
            Ok(response) => Outcome::Status(response.status()),
            Err(error) => Outcome::Error(error.kind()),
        };
        let earlier_hops = self.earlier_hop_timings();
        let timings = earlier_hops + stats.timings;
        self.trace_attempt(attempt_outcome, timings, decision);
        if decision.backoff().is_some() && !decision.is_charged_retry {
            self.uncharged_retry_count += 1;
        }
        self.earlier_attempts_wire_time_for_total_timeout +=
            earlier_hops.wire() + stats.wire_time_for_total_timeout;
        self.push_attempt(attempt_outcome, timings);
        self.result = Some(outcome);
        if decision.starts_another_attempt() && self.has_total_timeout_expired() {
            decision.replace_retry_for_lack_of_time()
        } else {
            decision
        }
    }

    fn push_attempt(&mut self, outcome: Outcome, timings: Timings) {
        self.attempts.push_attempt(Attempt::new(outcome, timings));
        if let Some(hop) = &mut self.hop_state {
            hop.earlier_hop_timings = Timings::default();
        }
    }

    /// Decides what follows a hop. `policy_stops_redirect` tells whether the redirect policy has
    /// stopped a redirect, so that the redirect response is the result. A panic of the user's
    /// `Retry::classify` callback becomes the outcome.
    #[inline]
    fn decide_after_hop(
        &self,
        engine: &Arc<Engine>,
        lane: LaneId,
        outcome: &mut Result<Response, Error>,
        maybe_sent: bool,
        policy_stops_redirect: bool,
    ) -> HopDecision {
        if let Ok(response) = outcome
            && is_final_status(response.status(), &self.options.retry)
        {
            return HopDecision::DELIVER;
        }
        if let Err(error) = outcome {
            self.add_consumed_body_hint(error);
            if self.options.retry.classify.is_some() {
                // The callback may read the error's URL and `maybe_sent`, so both are set before
                // the call.
                error.set_url(self.hop_request().url_or_invalid_text().clone());
                error.set_maybe_sent(self.maybe_sent);
            }
        }
        let mut context = self.hop_context(maybe_sent);
        if policy_stops_redirect {
            context.follows_redirects = false;
        }
        engine
            .decide_after_hop(&context, lane, outcome)
            .unwrap_or_else(|panicked| {
                *outcome = Err(panicked);
                HopDecision::DELIVER
            })
    }

    /// Returns the attempt's reserved bytes to the body budget, unless the attempt's response is
    /// the result.
    pub(super) fn release_body_reservation_unless_result(&mut self, decision: HopDecision) {
        if let Some(body_reservation) = &mut self.body_reservation {
            let backoff = decision.backoff();
            let backoff_end = backoff.map(|backoff| instant_after(Instant::now(), backoff));
            body_reservation.record_exchange_end(match self.result {
                _ if decision.next_step != NextStep::Deliver => {
                    ExchangeEnd::RequestContinues { backoff_end }
                }
                Some(Ok(_)) => ExchangeEnd::ResultIsResponse,
                _ => ExchangeEnd::ResultIsError,
            });
        }
    }

    /// Completes the job's result with the attempts, the redirects and the URL, unless the result
    /// is complete. A job without a result gets an error of the kind that `reason` returns.
    pub(super) fn complete_result_with_history(&mut self, reason: impl Fn(&Self) -> ErrorKind) {
        if std::mem::replace(&mut self.is_result_complete, true) {
            return;
        }
        let mut result = match self.result.take() {
            Some(result) => result,
            None => {
                let reason = reason(self);
                self.record_attempt_ended_between_hops(reason);
                Err(Error::from_kind(reason))
            }
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
                error.set_url(self.hop_request().url_or_invalid_text().clone());
                error.set_attempts(attempts);
                error.set_redirects(redirects);
                error.set_maybe_sent(self.maybe_sent);
            }
        }
        self.result = Some(match result {
            Ok(response) if self.body_sink.lacks_handler_output() => {
                Err(self.error_of_job_without_handler_output(response, reason(self)))
            }
            result => result,
        });
    }

    /// Records the attempt of a job that ends between two hops.
    fn record_attempt_ended_between_hops(&mut self, reason: ErrorKind) {
        let earlier_hops = self.earlier_hop_timings();
        if earlier_hops != Timings::default() {
            self.attempts
                .push_attempt(Attempt::new(Outcome::Error(reason), earlier_hops));
        }
    }

    /// The error of a job that ended while waiting for a retry, when no handler had read the last
    /// response.
    fn error_of_job_without_handler_output(&self, response: Response, reason: ErrorKind) -> Error {
        let kind = if self.has_total_timeout_expired() {
            ErrorKind::TotalTimeout
        } else {
            reason
        };
        let detail = format!(
            "while waiting for a retry after status {}",
            response.status()
        );
        let mut error = Error::from_kind(kind).with_detail(detail);
        error.set_url(self.hop_request().url_or_invalid_text().clone());
        error.set_maybe_sent(self.maybe_sent);
        error.set_rejected_response(response);
        error
    }

    /// Adds a hint to a transient error if the request body is a consumed stream, which cannot be
    /// sent again.
    fn add_consumed_body_hint(&self, error: &mut Error) {
        if error.kind().is_transient() && self.hop_request().body().is_stream_already_taken() {
            error.append_detail("the request body is a stream, which cannot be sent again");
        }
    }

    fn trace_attempt(&self, outcome: Outcome, timings: Timings, decision: HopDecision) {
        let attempt = self.attempts.attempt_count() + 1;
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
