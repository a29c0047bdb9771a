//! What comes of an attempt: its result, or another try.

use std::time::Duration;

use http::StatusCode;

use crate::limits::Retry;
use crate::{Error, Request, Response};

/// What comes next.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) enum Next {
    Done,
    /// Another attempt, no sooner than after this.
    Retry(Duration),
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
}

impl Verdict {
    pub(crate) const DONE: Self = Self {
        next: Next::Done,
        pause: None,
    };

    pub(crate) fn retry_in(self) -> Option<Duration> {
        match self.next {
            Next::Retry(wait) => Some(wait),
            Next::Done | Next::Hop | Next::Renew => None,
        }
    }
}

/// Judges what attempt number `retries + 1` came to. `sent` tells whether any of it may have reached the server, and
/// `random` is in [0, 1).
pub(crate) fn judge(
    outcome: &Result<Response, Error>,
    request: &Request,
    retry: &Retry,
    retries: u32,
    sent: bool,
    random: f64,
) -> Verdict {
    let (transient, throttled, asked) = match outcome {
        Ok(response) => {
            let status = response.status();
            let asked = if asks_for_patience(status) {
                response.retry_after()
            } else {
                None
            };
            (is_transient(status), is_throttling(status), asked)
        }
        Err(error) => (error.kind().is_transient(), false, None),
    };
    let pause = asked.filter(|pause| *pause <= retry.max_retry_after);
    // A server that asks for more patience than we have is answered with patience: its response is the result.
    let too_long = asked.is_some() && pause.is_none();
    // What was surely never sent may be sent, whatever it is (RFC 9110 §9.2.2).
    let safe = !sent || request.is_repeatable();
    let spent = request.content().is_spent();
    if !transient || too_long || retries >= retry.max_retries || !safe || spent {
        return Verdict {
            next: Next::Done,
            pause,
        };
    }
    let back_off = retry.backoff(retries + 1, throttled, random);
    Verdict {
        next: Next::Retry(back_off.max(pause.unwrap_or_default())),
        pause,
    }
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
