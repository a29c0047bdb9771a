//! What comes of an attempt: its result, or another try.

use std::time::Duration;

use http::StatusCode;

use crate::limits::{Decision, Retry};
use crate::{Error, ErrorKind, Request, Response};

/// What comes next.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) enum Next {
    Done,
    /// Another attempt, no sooner than after this.
    Retry(Duration),
    /// A last attempt at the end of the batch.
    Last,
    /// The next hop of the same attempt, as soon as its host may start.
    Hop,
    /// Another hop of the same attempt to the same place, with a new token.
    Renew,
}

/// The verdict on a hop.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) struct Verdict {
    pub(crate) next: Next,
    /// The host asked to be left alone for this long.
    pub(crate) pause: Option<Duration>,
    /// Whether going again counts as a retry.
    pub(crate) counts: bool,
}

impl Verdict {
    pub(crate) const DONE: Self = Self {
        next: Next::Done,
        pause: None,
        counts: false,
    };

    pub(crate) fn retry_in(self) -> Option<Duration> {
        match self.next {
            Next::Retry(wait) => Some(wait),
            Next::Done | Next::Last | Next::Hop | Next::Renew => None,
        }
    }

    /// Whether there is another attempt.
    pub(crate) fn goes_again(self) -> bool {
        matches!(self.next, Next::Retry(_) | Next::Last)
    }
}

/// What an attempt is judged by, besides what it came to.
#[derive(Copy, Clone)]
pub(crate) struct Case<'a> {
    /// That of the present hop.
    pub(crate) request: &'a Request,
    pub(crate) retry: &'a Retry,
    /// How often it was tried again.
    pub(crate) retries: u32,
    /// How often it was put off by the server, which is not among them.
    pub(crate) throttled: u32,
    pub(crate) last: Last,
    /// Takes what a retry costs out of the host's budget; false if it is not there.
    pub(crate) pay: &'a (dyn Fn() -> bool + Sync),
}

/// Where an item is with the last round of its batch.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) enum Last {
    /// There is none for it.
    Never,
    ToCome,
    /// This is it.
    Now,
}

impl Case<'_> {
    /// Judges what an attempt came to. `sent` tells whether any of it may have reached the server, and `random` is in
    /// [0, 1).
    ///
    /// # Errors
    ///
    /// If the user's own classifier panics.
    pub(crate) fn judge(
        self,
        outcome: &Result<Response, Error>,
        sent: bool,
        random: f64,
    ) -> Result<Verdict, Error> {
        let retry = self.retry;
        let seen = Seen::of(outcome);
        let pause = seen.asked.filter(|pause| *pause <= retry.max_retry_after);
        let done = Verdict {
            pause,
            ..Verdict::DONE
        };
        let decision = self.decide(outcome, &seen, sent)?;
        if decision == Decision::Done || self.request.content().is_spent() {
            return Ok(done);
        }
        let is_free = seen.is_put_off && self.throttled < retry.max_throttled;
        let is_over = retry.max_retries == 0 || (!is_free && self.retries >= retry.max_retries);
        if is_over || self.last == Last::Now || !(is_free || (self.pay)()) {
            let next = match self.last {
                Last::ToCome if retry.max_retries > 0 => Next::Last,
                _ => Next::Done,
            };
            return Ok(Verdict { next, ..done });
        }
        let before = match seen.is_throttling {
            true => self.retries + self.throttled,
            false => self.retries,
        };
        let wait = match decision {
            Decision::RetryAfter(wait) => wait,
            _ => retry.backoff(before + 1, seen.is_throttling, random),
        };
        Ok(Verdict {
            next: Next::Retry(wait.max(pause.unwrap_or_default())),
            pause,
            counts: !is_free,
        })
    }

    /// Whether it is worth another attempt, were there no bound on them.
    fn decide(
        self,
        outcome: &Result<Response, Error>,
        seen: &Seen,
        sent: bool,
    ) -> Result<Decision, Error> {
        // A server that asks for more patience than we have is answered with patience: its response is the result.
        let too_long = seen.asked > Some(self.retry.max_retry_after);
        // What was surely never sent may be sent, whatever it is (RFC 9110 §9.2.2).
        let is_safe = !sent || self.request.is_repeatable();
        let usual = match seen.is_transient && is_safe && !too_long {
            true => Decision::Retry,
            false => Decision::Done,
        };
        match &self.retry.classify {
            Some(classify) if !has_ended(outcome) => classify.ask(outcome, usual),
            _ => Ok(usual),
        }
    }
}

/// What an outcome says of itself.
struct Seen {
    is_transient: bool,
    /// The server has too much to do.
    is_throttling: bool,
    /// It did not look at the request, and wants it later.
    is_put_off: bool,
    /// How long it asks to be left alone.
    asked: Option<Duration>,
}

impl Seen {
    fn of(outcome: &Result<Response, Error>) -> Self {
        let response = match outcome {
            Ok(response) => response,
            Err(error) => {
                return Self {
                    is_transient: error.kind().is_transient(),
                    is_throttling: false,
                    is_put_off: false,
                    asked: None,
                };
            }
        };
        let status = response.status();
        let asked = match asks_for_patience(status) {
            true => response.retry_after(),
            false => None,
        };
        Self {
            is_transient: is_transient(status),
            is_throttling: is_throttling(status),
            is_put_off: status == StatusCode::TOO_MANY_REQUESTS
                || (status == StatusCode::SERVICE_UNAVAILABLE && asked.is_some()),
            asked,
        }
    }
}

/// Whether nothing can come after it, whoever says so.
fn has_ended(outcome: &Result<Response, Error>) -> bool {
    use ErrorKind::{Cancelled, Deadline, Panicked, TotalTimeout};
    outcome
        .as_ref()
        .is_err_and(|error| matches!(error.kind(), Cancelled | Deadline | Panicked | TotalTimeout))
}

fn is_transient(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 425 | 429 | 500 | 502 | 503 | 504)
}

pub(crate) fn is_throttling(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
    )
}

/// `Retry-After` says when to come back with these (RFC 9110 §10.2.3, RFC 6585 §4); with a redirect it says something
/// about the redirect.
fn asks_for_patience(status: StatusCode) -> bool {
    status.is_server_error()
        || status == StatusCode::TOO_MANY_REQUESTS
        || status == StatusCode::REQUEST_TIMEOUT
}
