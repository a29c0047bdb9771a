//! The time a request spent queued and in each phase on the wire, and the outcome of each attempt.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign};
use std::time::Duration;

use http::StatusCode;

use crate::error::ErrorKind;

/// The time a request spent queued (in the schedule) and in each phase on the wire.
///
/// The timings of an [`Attempt`] are those of that attempt. The timings of a
/// [`Response`](crate::Response) or an [`Error`](crate::Error) are the sum over all attempts, so
/// [`total`](Timings::total) is the whole time of the request.
///
/// ```
/// # fn show(response: &fanout::Response) {
/// let timings = response.timings();
/// println!("queued for {:?}, then {:?} on the wire", timings.queued(), timings.wire());
/// # }
/// ```
#[derive(Copy, Clone, Default, PartialEq, Eq)]
pub struct Timings {
    queued_nanos: u64,
    connect_nanos: u64,
    response_head_nanos: u64,
    body_nanos: u64,
}

impl Timings {
    pub(crate) fn new(
        queued: Duration,
        connect: Duration,
        response_head: Duration,
        body: Duration,
    ) -> Self {
        Self {
            queued_nanos: saturating_nanos(queued),
            connect_nanos: saturating_nanos(connect),
            response_head_nanos: saturating_nanos(response_head),
            body_nanos: saturating_nanos(body),
        }
    }

    /// The time spent queued: waiting for a concurrency slot, a rate limit, a backoff or a paused
    /// host.
    pub fn queued(&self) -> Duration {
        Duration::from_nanos(self.queued_nanos)
    }

    /// The time to resolve the host name, connect and complete the TLS handshake. Zero if an
    /// existing connection was reused.
    pub fn connect(&self) -> Duration {
        Duration::from_nanos(self.connect_nanos)
    }

    /// The time to send the request and receive the complete response head.
    pub fn response_head(&self) -> Duration {
        Duration::from_nanos(self.response_head_nanos)
    }

    /// The time from the end of the response head to the last byte of the body.
    pub fn body(&self) -> Duration {
        Duration::from_nanos(self.body_nanos)
    }

    /// The time on the wire: `connect + response_head + body`. Timeouts of a request count wire
    /// time only.
    pub fn wire(&self) -> Duration {
        self.connect() + self.response_head() + self.body()
    }

    /// The time from the submission of the request to its result: `queued + wire`.
    pub fn total(&self) -> Duration {
        self.queued() + self.wire()
    }
}

fn saturating_nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Add for Timings {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            queued_nanos: self.queued_nanos.saturating_add(other.queued_nanos),
            connect_nanos: self.connect_nanos.saturating_add(other.connect_nanos),
            response_head_nanos: self
                .response_head_nanos
                .saturating_add(other.response_head_nanos),
            body_nanos: self.body_nanos.saturating_add(other.body_nanos),
        }
    }
}

impl AddAssign for Timings {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sum for Timings {
    fn sum<I: Iterator<Item = Self>>(timings: I) -> Self {
        timings.fold(Self::default(), Add::add)
    }
}

impl fmt::Debug for Timings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timings")
            .field("queued", &self.queued())
            .field("connect", &self.connect())
            .field("response_head", &self.response_head())
            .field("body", &self.body())
            .finish()
    }
}

/// The outcome of one attempt.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outcome {
    /// The attempt received a complete response with this status.
    Status(StatusCode),
    /// The attempt received no complete response, and failed with this kind of error.
    Error(ErrorKind),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Status(status) => status.fmt(f),
            Outcome::Error(kind) => kind.fmt(f),
        }
    }
}

/// One attempt of a request. Each retry is another attempt; a redirect continues the same attempt.
///
/// ```
/// # fn show(response: &fanout::Response) {
/// for attempt in response.attempts() {
///     println!("{} after {:?} in the schedule", attempt.outcome(), attempt.queued());
/// }
/// # }
/// ```
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    outcome: Outcome,
    attempt_timings: Timings,
}

impl Attempt {
    pub(crate) fn new(outcome: Outcome, timings: Timings) -> Self {
        Self {
            outcome,
            attempt_timings: timings,
        }
    }

    /// The status of the response that this attempt received, or the kind of its error.
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// The time this attempt was queued: waiting for a concurrency slot, a rate limit, a backoff or
    /// a paused host.
    pub fn queued(&self) -> Duration {
        self.attempt_timings.queued()
    }

    /// The time this attempt spent queued and in each phase on the wire.
    pub fn timings(&self) -> Timings {
        self.attempt_timings
    }
}

/// The attempts of a request, oldest first. A single attempt, the common case, needs no allocation.
#[derive(Clone, Debug, Default)]
pub(crate) enum AttemptList {
    #[default]
    NoAttempt,
    OneAttempt(Attempt),
    ManyAttempts(Vec<Attempt>),
}

impl AttemptList {
    pub(crate) fn as_slice(&self) -> &[Attempt] {
        match self {
            AttemptList::NoAttempt => &[],
            AttemptList::OneAttempt(attempt) => std::slice::from_ref(attempt),
            AttemptList::ManyAttempts(attempts) => attempts,
        }
    }

    pub(crate) fn push_attempt(&mut self, attempt: Attempt) {
        match self {
            AttemptList::NoAttempt => *self = AttemptList::OneAttempt(attempt),
            AttemptList::OneAttempt(first) => {
                *self = AttemptList::ManyAttempts(vec![*first, attempt]);
            }
            AttemptList::ManyAttempts(attempts) => attempts.push(attempt),
        }
    }

    pub(crate) fn attempt_count(&self) -> usize {
        self.as_slice().len()
    }

    /// The timings summed over all attempts.
    pub(crate) fn total_timings(&self) -> Timings {
        self.as_slice().iter().map(Attempt::timings).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn wire_time_excludes_queued_time_and_total_includes_it() {
        let timings = Timings::new(ms(100), ms(1), ms(20), ms(3));
        assert_eq!(timings.wire(), ms(24));
        assert_eq!(timings.total(), ms(124));
    }

    #[test]
    fn sums_saturate() {
        let endless = Timings::new(Duration::MAX, Duration::MAX, Duration::MAX, Duration::MAX);
        assert_eq!(endless + endless, endless);
        assert!(endless.total() > endless.wire());
    }

    #[test]
    fn attempt_list_keeps_order_and_sums_timings() {
        let mut attempts = AttemptList::default();
        assert!(attempts.as_slice().is_empty());
        for n in 1..=4 {
            let timings = Timings::new(ms(n), ms(0), ms(10), ms(0));
            attempts.push_attempt(Attempt::new(Outcome::Error(ErrorKind::Closed), timings));
            assert_eq!(attempts.attempt_count() as u64, n);
        }
        let queued: Vec<_> = attempts.as_slice().iter().map(Attempt::queued).collect();
        assert_eq!(queued, [ms(1), ms(2), ms(3), ms(4)]);
        assert_eq!(attempts.total_timings().queued(), ms(10));
        assert_eq!(attempts.total_timings().wire(), ms(40));
    }
}
