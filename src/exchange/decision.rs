//! What comes of an attempt: its result, or another try.

use std::time::Duration;

use http::StatusCode;

use crate::limits::{Retry, RetryDecision};
use crate::{Error, ErrorKind, Request, Response};

/// What comes next.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) enum NextStep {
    Done,
    /// Another attempt, no sooner than after this.
    Retry(Duration),
    /// A last attempt at the end of the batch.
    FinalRound,
    /// The next hop of the same attempt, as soon as its host may start.
    NextHop,
    /// Another hop of the same attempt to the same place, with a new token.
    RenewToken,
}

/// The decision on a hop.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) struct HopDecision {
    pub(crate) next: NextStep,
    /// The host retry_after to be left alone for this long.
    pub(crate) host_pause: Option<Duration>,
    /// Whether going again is_charged as a retry.
    pub(crate) is_charged: bool,
}

impl HopDecision {
    pub(crate) const DONE: Self = Self {
        next: NextStep::Done,
        host_pause: None,
        is_charged: false,
    };

    pub(crate) fn backoff(self) -> Option<Duration> {
        match self.next {
            NextStep::Retry(wait) => Some(wait),
            NextStep::Done | NextStep::FinalRound | NextStep::NextHop | NextStep::RenewToken => {
                None
            }
        }
    }

    /// Whether there is another attempt.
    pub(crate) fn has_next_attempt(self) -> bool {
        matches!(self.next, NextStep::Retry(_) | NextStep::FinalRound)
    }
}

/// What an attempt is judged by, besides what it came to.
#[derive(Copy, Clone)]
pub(crate) struct RetryContext<'a> {
    /// That of the present hop.
    pub(crate) request: &'a Request,
    pub(crate) retry: &'a Retry,
    /// How often it was tried again.
    pub(crate) retries: u32,
    /// How often it was put off by the server, which is not among them.
    pub(crate) throttled: u32,
    pub(crate) final_round: FinalRound,
    /// Takes what a retry costs out of the host's budget; false if it is not there.
    pub(crate) withdraw_retry: &'a (dyn Fn() -> bool + Sync),
}

/// Where an item is with the last round of its batch.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) enum FinalRound {
    /// There is none for it.
    NotPlanned,
    Planned,
    /// This is it.
    Running,
}

impl RetryContext<'_> {
    /// Judges what an attempt came to. `sent` tells whether any of it may have reached the server, and `random` is in
    /// [0, 1).
    ///
    /// # Errors
    ///
    /// If the user's own classifier panics.
    pub(crate) fn decide(
        self,
        outcome: &Result<Response, Error>,
        sent: bool,
        random: f64,
    ) -> Result<HopDecision, Error> {
        let retry = self.retry;
        let signals = RetrySignals::from_outcome(outcome);
        let pause = signals
            .retry_after
            .filter(|pause| *pause <= retry.max_retry_after);
        let done = HopDecision {
            host_pause: pause,
            ..HopDecision::DONE
        };
        let decision = self.retry_decision(outcome, &signals, sent)?;
        if decision == RetryDecision::Done || self.request.body().is_consumed() {
            return Ok(done);
        }
        let is_free = signals.is_deferred && self.throttled < retry.max_throttled_attempts;
        let is_exhausted =
            retry.max_retries == 0 || (!is_free && self.retries >= retry.max_retries);
        if is_exhausted
            || self.final_round == FinalRound::Running
            || !(is_free || (self.withdraw_retry)())
        {
            let next = match self.final_round {
                FinalRound::Planned if retry.max_retries > 0 => NextStep::FinalRound,
                _ => NextStep::Done,
            };
            return Ok(HopDecision { next, ..done });
        }
        let prior_attempts = match signals.is_throttled {
            true => self.retries + self.throttled,
            false => self.retries,
        };
        let wait = match decision {
            RetryDecision::RetryAfter(wait) => wait,
            _ => retry.backoff(prior_attempts + 1, signals.is_throttled, random),
        };
        Ok(HopDecision {
            next: NextStep::Retry(wait.max(pause.unwrap_or_default())),
            host_pause: pause,
            is_charged: !is_free,
        })
    }

    /// Whether it is worth another attempt, were there no bound on them.
    fn retry_decision(
        self,
        outcome: &Result<Response, Error>,
        signals: &RetrySignals,
        sent: bool,
    ) -> Result<RetryDecision, Error> {
        // A server that asks for more patience than we have is answered with patience: its response is the result.
        let too_long = signals.retry_after > Some(self.retry.max_retry_after);
        // What was surely never sent may be sent, whatever it is (RFC 9110 §9.2.2).
        let is_safe_to_resend = !sent || self.request.is_idempotent();
        let default_decision = match signals.is_transient && is_safe_to_resend && !too_long {
            true => RetryDecision::Retry,
            false => RetryDecision::Done,
        };
        match &self.retry.classify {
            Some(classify) if !is_final_error(outcome) => classify.call(outcome, default_decision),
            _ => Ok(default_decision),
        }
    }
}

/// What an outcome says of itself.
struct RetrySignals {
    is_transient: bool,
    /// The server has too much to do.
    is_throttled: bool,
    /// It did not look at the request, and wants it later.
    is_deferred: bool,
    /// How long it asks to be left alone.
    retry_after: Option<Duration>,
}

impl RetrySignals {
    fn from_outcome(outcome: &Result<Response, Error>) -> Self {
        let response = match outcome {
            Ok(response) => response,
            Err(error) => {
                return Self {
                    is_transient: error.kind().is_transient(),
                    is_throttled: false,
                    is_deferred: false,
                    retry_after: None,
                };
            }
        };
        let status = response.status();
        let retry_after = match allows_retry_after(status) {
            true => response.retry_after(),
            false => None,
        };
        Self {
            is_transient: is_transient(status),
            is_throttled: is_throttling_status(status),
            is_deferred: status == StatusCode::TOO_MANY_REQUESTS
                || (status == StatusCode::SERVICE_UNAVAILABLE && retry_after.is_some()),
            retry_after,
        }
    }
}

/// Whether nothing can come after it, whoever says so.
fn is_final_error(outcome: &Result<Response, Error>) -> bool {
    use ErrorKind::{Cancelled, Deadline, Panicked, TotalTimeout};
    outcome
        .as_ref()
        .is_err_and(|error| matches!(error.kind(), Cancelled | Deadline | Panicked | TotalTimeout))
}

fn is_transient(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 425 | 429 | 500 | 502 | 503 | 504)
}

pub(crate) fn is_throttling_status(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
    )
}

/// `Retry-After` says when to come back with these (RFC 9110 §10.2.3, RFC 6585 §4); with a redirect it says something
/// about the redirect.
fn allows_retry_after(status: StatusCode) -> bool {
    status.is_server_error()
        || status == StatusCode::TOO_MANY_REQUESTS
        || status == StatusCode::REQUEST_TIMEOUT
}
