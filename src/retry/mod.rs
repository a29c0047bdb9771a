//! Decides what follows a hop (one request and its response): nothing, a retry, the next hop, or a
//! renewed token.
//!
//! ```text
//!                             ┌─► NextHop       follow a redirect in the same attempt
//!   outcome ─► HopContext ────┼─► RenewToken    repeat the hop with a renewed bearer token
//!                             ├─► Retry         start another attempt after a backoff
//!                             ├─► FinalRound    start a last attempt at the end of the batch
//!                             └─► Deliver       deliver the outcome
//! ```
//!
//! The module is pure: it does no I/O, takes no lock and reads no clock. The engine corrects a
//! decision for two conditions that this module does not see: with
//! [`HopContext::replace_retry_for_lack_of_budget`] if the host's retry budget is empty, and with
//! [`HopDecision::replace_retry_for_lack_of_time`] if the total timeout is used up.

mod signals;
#[cfg(test)]
mod tests;

use std::time::Duration;

use http::StatusCode;
use http::header::HeaderMap;

pub(crate) use signals::is_overload_status;

use crate::error::{Error, ErrorKind};
use crate::exchange::redirect;
use crate::limits::{Retry, RetryDecision};
use crate::request::Request;
use crate::response::Response;
use signals::RetrySignals;

/// The step that follows a hop.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) enum NextStep {
    /// Deliver the outcome.
    Deliver,
    /// Start another attempt after this backoff.
    Retry(Duration),
    /// Start the job's last attempt in the final round of its batch.
    FinalRound,
    /// Follow a redirect: the next hop of the same attempt.
    NextHop,
    /// Repeat the hop with a renewed bearer token, in the same attempt.
    RenewToken,
}

/// The step that follows a hop, and how long requests to its host are paused.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) struct HopDecision {
    pub(crate) next_step: NextStep,
    /// The time during which no request to the host starts, from a header such as `Retry-After`.
    pub(crate) host_pause: Option<Duration>,
    /// Whether a retry counts towards the retry limit and is withdrawn from the retry budget.
    pub(crate) is_charged_retry: bool,
}

impl HopDecision {
    pub(crate) const DELIVER: Self = Self::uncharged_decision(NextStep::Deliver);

    const fn uncharged_decision(next_step: NextStep) -> Self {
        Self {
            next_step,
            host_pause: None,
            is_charged_retry: false,
        }
    }

    pub(crate) fn backoff(self) -> Option<Duration> {
        match self.next_step {
            NextStep::Retry(backoff) => Some(backoff),
            NextStep::Deliver | NextStep::FinalRound | NextStep::NextHop | NextStep::RenewToken => {
                None
            }
        }
    }

    /// Whether another hop of the same attempt follows.
    pub(crate) fn continues_attempt(self) -> bool {
        matches!(self.next_step, NextStep::NextHop | NextStep::RenewToken)
    }

    /// Whether another attempt follows.
    pub(crate) fn starts_another_attempt(self) -> bool {
        matches!(self.next_step, NextStep::Retry(_) | NextStep::FinalRound)
    }

    /// Replaces another attempt by [`NextStep::Deliver`], for a job whose total timeout is used up:
    /// another attempt would time out at once.
    pub(crate) fn replace_retry_for_lack_of_time(self) -> Self {
        if self.starts_another_attempt() {
            Self {
                next_step: NextStep::Deliver,
                ..self
            }
        } else {
            self
        }
    }
}

/// Whether a job may have a last attempt in the final round of its batch, after all other jobs.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) enum FinalRoundState {
    /// The batch has no final round.
    NoFinalRound,
    FinalRoundPlanned,
    /// The current attempt belongs to the final round.
    InFinalRound,
}

/// The state of a job on which the decision depends, besides the outcome of the hop.
#[derive(Copy, Clone)]
pub(crate) struct HopContext<'a> {
    /// The request of the hop.
    pub(crate) request: &'a Request,
    pub(crate) retry_policy: &'a Retry,
    pub(crate) follows_redirects: bool,
    /// Whether a 403 may be a sign of a rate limit.
    pub(crate) respect_rate_limit_headers: bool,
    /// Whether the hop carried a bearer token that may be renewed.
    pub(crate) can_renew_token: bool,
    /// Whether the user's handler has started to read the response. A started handler cannot read
    /// another response.
    pub(crate) has_handler_started: bool,
    /// Whether any byte of the hop's request may have reached the server.
    pub(crate) maybe_sent: bool,
    /// The number of retries that count towards the retry limit.
    pub(crate) charged_retry_count: u32,
    /// The number of retries that do not count towards the retry limit, because the server
    /// throttled the request.
    pub(crate) uncharged_retry_count: u32,
    pub(crate) final_round_state: FinalRoundState,
}

/// Whether a response with this status ends its job, whatever the [`HopContext`].
pub(crate) fn is_final_status(status: StatusCode, retry_policy: &Retry) -> bool {
    status.is_success() && retry_policy.classify.is_none()
}

impl HopContext<'_> {
    /// Whether another hop follows a response with this head, so that the body of the response is
    /// not needed.
    pub(crate) fn leads_to_next_hop(&self, status: StatusCode, headers: &HeaderMap) -> bool {
        self.next_hop_step(status, || headers).is_some()
    }

    /// The step to another hop of the same attempt, or `None`. `headers` is called for a redirect
    /// status only, because it unpacks the headers of a complete response.
    fn next_hop_step<'h>(
        &self,
        status: StatusCode,
        headers: impl FnOnce() -> &'h HeaderMap,
    ) -> Option<NextStep> {
        if self.follows_redirects
            && redirect::is_redirect(status)
            && redirect::has_location(headers())
        {
            return Some(NextStep::NextHop);
        }
        let renews_token = status == StatusCode::UNAUTHORIZED
            && self.can_renew_token
            && !self.request.body().is_stream_already_taken();
        renews_token.then_some(NextStep::RenewToken)
    }

    /// Decides what follows a hop with this outcome. `random` scales the backoff and is in
    /// `[0, 1)`.
    ///
    /// # Errors
    ///
    /// Returns [`ErrorKind::Panicked`] if the user's [`Retry::classify`] callback panics.
    pub(crate) fn decide_next_step(
        &self,
        outcome: &Result<Response, Error>,
        random: f64,
    ) -> Result<HopDecision, Error> {
        if self.has_handler_started {
            return Ok(HopDecision::DELIVER);
        }
        if let Ok(response) = outcome
            && let Some(next_step) = self.next_hop_step(response.status(), || response.headers())
        {
            return Ok(HopDecision::uncharged_decision(next_step));
        }
        let retry = self.retry_policy;
        let signals = RetrySignals::from_outcome(outcome, self.respect_rate_limit_headers);
        let host_pause = signals
            .retry_after
            .filter(|pause| *pause <= retry.max_retry_after);
        let without_retry = |next_step| HopDecision {
            host_pause,
            ..HopDecision::uncharged_decision(next_step)
        };
        let decision = self.retry_decision(outcome, &signals)?;
        if decision == RetryDecision::Done || self.request.body().is_stream_already_taken() {
            return Ok(without_retry(NextStep::Deliver));
        }
        let is_charged_retry =
            !signals.is_throttled || self.uncharged_retry_count >= retry.max_throttled_attempts;
        let is_exhausted = retry.max_retries == 0
            || (is_charged_retry && self.charged_retry_count >= retry.max_retries);
        if is_exhausted || self.final_round_state == FinalRoundState::InFinalRound {
            return Ok(without_retry(self.step_if_no_retry_left()));
        }
        let backoff = match decision {
            RetryDecision::RetryAfter(delay) => delay,
            RetryDecision::Retry | RetryDecision::Done => {
                let mut earlier_retries = self.charged_retry_count;
                if signals.is_overloaded {
                    earlier_retries += self.uncharged_retry_count;
                }
                retry.random_backoff(earlier_retries + 1, signals.is_overloaded, random)
            }
        };
        Ok(HopDecision {
            next_step: NextStep::Retry(backoff.max(host_pause.unwrap_or_default())),
            host_pause,
            is_charged_retry,
        })
    }

    /// Replaces a charged retry by the final round or [`NextStep::Deliver`], because the host's
    /// retry budget is empty.
    pub(crate) fn replace_retry_for_lack_of_budget(&self, decision: HopDecision) -> HopDecision {
        HopDecision {
            next_step: self.step_if_no_retry_left(),
            is_charged_retry: false,
            ..decision
        }
    }

    /// The step of a job whose outcome is worth a retry, but that has no retry left.
    fn step_if_no_retry_left(&self) -> NextStep {
        if self.final_round_state == FinalRoundState::FinalRoundPlanned
            && self.retry_policy.max_retries > 0
        {
            NextStep::FinalRound
        } else {
            NextStep::Deliver
        }
    }

    /// Whether the outcome is worth a retry, regardless of the retries left.
    fn retry_decision(
        &self,
        outcome: &Result<Response, Error>,
        signals: &RetrySignals,
    ) -> Result<RetryDecision, Error> {
        let waits_too_long = signals.retry_after > Some(self.retry_policy.max_retry_after);
        // A request that was not processed can be sent again (RFC 9110 §9.2.2).
        let is_safe_to_resend = !self.maybe_sent
            || self.request.is_idempotent()
            || (signals.is_unprocessed && self.retry_policy.retry_unprocessed_posts);
        let is_worth_retry = signals
            .server_retry_decision
            .unwrap_or(signals.is_transient && is_safe_to_resend);
        let default_decision = if is_worth_retry && !waits_too_long {
            RetryDecision::Retry
        } else {
            RetryDecision::Done
        };
        match &self.retry_policy.classify {
            Some(classifier) if !is_final_error(outcome) => {
                classifier.call_user_function(outcome, default_decision)
            }
            _ => Ok(default_decision),
        }
    }
}

/// Whether an outcome is an error after which nothing is retried, so the user's callback is not
/// called.
fn is_final_error(outcome: &Result<Response, Error>) -> bool {
    use ErrorKind::{Cancelled, Deadline, Panicked, TotalTimeout};
    outcome
        .as_ref()
        .is_err_and(|error| matches!(error.kind(), Cancelled | Deadline | Panicked | TotalTimeout))
}
