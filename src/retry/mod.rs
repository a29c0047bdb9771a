//! Decides what follows a hop: nothing, a retry, the next hop, or a renewed token.
//!
//! ```text
//!                             ┌─► NextHop       follow a redirect in the same attempt
//!   outcome ─► HopContext ────┼─► RenewToken    repeat the hop with a renewed bearer token
//!                             ├─► Retry         start another attempt after a backoff
//!                             ├─► FinalRound    start a last attempt at the end of the batch
//!                             └─► Done          deliver the outcome
//! ```
//!
//! The module is pure: it does no I/O, takes no lock and reads no clock. Two inputs of a decision
//! belong to the engine and are applied to the result: [`HopContext::without_retry_budget`] if the
//! host's retry budget is empty, and [`HopDecision::without_wire_time`] if the total timeout is
//! used up.

mod signals;
#[cfg(test)]
mod tests;

use std::time::Duration;

use http::StatusCode;
use http::header::HeaderMap;

pub(crate) use signals::is_throttling_status;

use crate::error::{Error, ErrorKind};
use crate::exchange::redirect;
use crate::limits::{Retry, RetryDecision};
use crate::request::Request;
use crate::response::Response;
use signals::RetrySignals;

/// What the engine does after a hop.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) enum NextStep {
    /// Deliver the outcome.
    Done,
    /// Start another attempt after this backoff.
    Retry(Duration),
    /// Start the job's last attempt in the final round of its batch.
    FinalRound,
    /// Follow a redirect: the next hop of the same attempt.
    NextHop,
    /// Repeat the hop with a renewed bearer token, in the same attempt.
    RenewToken,
}

/// The decision on a hop.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) struct HopDecision {
    pub(crate) next: NextStep,
    /// How long the host asked to receive no requests.
    pub(crate) host_pause: Option<Duration>,
    /// Whether a retry counts towards the retry limit and is paid from the retry budget.
    pub(crate) is_charged: bool,
}

impl HopDecision {
    pub(crate) const DONE: Self = Self::uncharged(NextStep::Done);

    const fn uncharged(next: NextStep) -> Self {
        Self {
            next,
            host_pause: None,
            is_charged: false,
        }
    }

    pub(crate) fn backoff(self) -> Option<Duration> {
        match self.next {
            NextStep::Retry(backoff) => Some(backoff),
            NextStep::Done | NextStep::FinalRound | NextStep::NextHop | NextStep::RenewToken => {
                None
            }
        }
    }

    /// Whether the attempt goes on with another hop.
    pub(crate) fn continues_attempt(self) -> bool {
        matches!(self.next, NextStep::NextHop | NextStep::RenewToken)
    }

    /// Whether another attempt follows.
    pub(crate) fn starts_attempt(self) -> bool {
        matches!(self.next, NextStep::Retry(_) | NextStep::FinalRound)
    }

    /// The decision for a job that has no wire time left: another attempt would time out at once.
    pub(crate) fn without_wire_time(self) -> Self {
        if self.starts_attempt() {
            Self {
                next: NextStep::Done,
                ..self
            }
        } else {
            self
        }
    }
}

/// Where a job stands with respect to the final round of its batch.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) enum FinalRound {
    /// The batch has no final round.
    NotPlanned,
    Planned,
    /// The current attempt belongs to the final round.
    Running,
}

/// The state of a job that the decision depends on, besides the outcome of the hop.
#[derive(Copy, Clone)]
pub(crate) struct HopContext<'a> {
    /// The request of the hop.
    pub(crate) request: &'a Request,
    pub(crate) retry: &'a Retry,
    pub(crate) follows_redirects: bool,
    /// Whether the hop carried a bearer token that may be renewed.
    pub(crate) can_renew_token: bool,
    /// Whether a handler has started to read the response. It cannot read another one.
    pub(crate) handler_started: bool,
    /// Whether any byte of the hop's request may have reached the server.
    pub(crate) maybe_sent: bool,
    /// The number of retries that count towards the retry limit.
    pub(crate) charged_retries: u32,
    /// The number of retries that do not, because the server deferred the request.
    pub(crate) uncharged_retries: u32,
    pub(crate) final_round: FinalRound,
}

impl HopContext<'_> {
    /// Whether another hop replaces a response with this head. Nobody reads the body of such a
    /// response.
    pub(crate) fn is_replaced(&self, status: StatusCode, headers: &HeaderMap) -> bool {
        self.next_hop(status, || headers).is_some()
    }

    /// The step to another hop of the same attempt. `headers` is called for a redirect status only,
    /// because the headers of a complete response must be unpacked.
    fn next_hop<'h>(
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
            && !self.request.body().is_consumed();
        renews_token.then_some(NextStep::RenewToken)
    }

    /// Decides what follows a hop with this outcome. `random` scales the backoff and is in
    /// `[0, 1)`.
    ///
    /// # Errors
    ///
    /// If the user's [`Retry::classify`] callback panics.
    pub(crate) fn decide(
        &self,
        outcome: &Result<Response, Error>,
        random: f64,
    ) -> Result<HopDecision, Error> {
        if self.handler_started {
            return Ok(HopDecision::DONE);
        }
        if let Ok(response) = outcome
            && let Some(next) = self.next_hop(response.status(), || response.headers())
        {
            return Ok(HopDecision::uncharged(next));
        }
        let retry = self.retry;
        let signals = RetrySignals::of(outcome);
        let host_pause = signals
            .retry_after
            .filter(|pause| *pause <= retry.max_retry_after);
        let end = |next| HopDecision {
            host_pause,
            ..HopDecision::uncharged(next)
        };
        let decision = self.classify(outcome, &signals)?;
        if decision == RetryDecision::Done || self.request.body().is_consumed() {
            return Ok(end(NextStep::Done));
        }
        let is_charged =
            !signals.is_deferred || self.uncharged_retries >= retry.max_throttled_attempts;
        let is_exhausted =
            retry.max_retries == 0 || (is_charged && self.charged_retries >= retry.max_retries);
        if is_exhausted || self.final_round == FinalRound::Running {
            return Ok(end(self.step_without_retry()));
        }
        let backoff = match decision {
            RetryDecision::RetryAfter(delay) => delay,
            RetryDecision::Retry | RetryDecision::Done => {
                let mut earlier_retries = self.charged_retries;
                if signals.is_throttled {
                    earlier_retries += self.uncharged_retries;
                }
                retry.backoff(earlier_retries + 1, signals.is_throttled, random)
            }
        };
        Ok(HopDecision {
            next: NextStep::Retry(backoff.max(host_pause.unwrap_or_default())),
            host_pause,
            is_charged,
        })
    }

    /// The decision for a charged retry that the host's retry budget cannot pay.
    pub(crate) fn without_retry_budget(&self, decision: HopDecision) -> HopDecision {
        HopDecision {
            next: self.step_without_retry(),
            is_charged: false,
            ..decision
        }
    }

    /// The step of a job that should be retried but has no retry left.
    fn step_without_retry(&self) -> NextStep {
        if self.final_round == FinalRound::Planned && self.retry.max_retries > 0 {
            NextStep::FinalRound
        } else {
            NextStep::Done
        }
    }

    /// Whether the outcome is worth a retry, regardless of how many are left.
    fn classify(
        &self,
        outcome: &Result<Response, Error>,
        signals: &RetrySignals,
    ) -> Result<RetryDecision, Error> {
        let waits_too_long = signals.retry_after > Some(self.retry.max_retry_after);
        // A request that never reached the server can be sent again (RFC 9110 §9.2.2).
        let is_safe_to_resend = !self.maybe_sent || self.request.is_idempotent();
        let default_decision = if signals.is_transient && is_safe_to_resend && !waits_too_long {
            RetryDecision::Retry
        } else {
            RetryDecision::Done
        };
        match &self.retry.classify {
            Some(classifier) if !is_final_error(outcome) => {
                classifier.call(outcome, default_decision)
            }
            _ => Ok(default_decision),
        }
    }
}

/// Whether an outcome is final whatever the user's callback says.
fn is_final_error(outcome: &Result<Response, Error>) -> bool {
    use ErrorKind::{Cancelled, Deadline, Panicked, TotalTimeout};
    outcome
        .as_ref()
        .is_err_and(|error| matches!(error.kind(), Cancelled | Deadline | Panicked | TotalTimeout))
}
