//! The timeouts that can end an exchange.

use std::time::Duration;

use super::job::Job;
use crate::error::{Error, ErrorKind};
use crate::hop_clock::{HopClock, Phase};
use crate::limits::Timeouts;
use crate::schedule::Time;

/// The instants at which the timeouts that can end the current exchange expire.
///
/// Timeouts count wire time (time queued or paused is not counted), so each exchange computes the
/// expiries anew. Only the batch's deadline is a fixed instant.
pub(super) struct ExchangeTimeouts<'a> {
    configured_timeouts: &'a Timeouts,
    attempt_timeout: Option<Duration>,
    /// The earlier expiry of the attempt timeout and the total timeout, before paused time is
    /// added.
    attempt_or_total_expiry: Option<(Time, ErrorKind)>,
    deadline: Option<(Time, ErrorKind)>,
}

impl<'a> ExchangeTimeouts<'a> {
    #[inline]
    pub(super) fn new(job: &'a Job, started_at: Time) -> Self {
        let timeouts = &job.options.timeouts;
        let attempt_timeout = job
            .request
            .timeout()
            .or(job.options.default_attempt_timeout);
        let expiry = |limit: Option<Duration>, spent: Duration, kind| {
            limit.map(|limit| (started_at + limit.saturating_sub(spent), kind))
        };
        let hop_time = job.earlier_hop_timings().wire();
        let attempt = expiry(attempt_timeout, hop_time, ErrorKind::RequestTimeout);
        let total = expiry(
            timeouts.total,
            job.wire_time_for_total_timeout(),
            ErrorKind::TotalTimeout,
        );
        let deadline = job.options.deadline;
        Self {
            configured_timeouts: timeouts,
            attempt_timeout,
            attempt_or_total_expiry: earliest_expiry([attempt, total]),
            deadline: deadline.map(|deadline| (deadline, ErrorKind::Deadline)),
        }
    }

    /// The error of an expired timeout, with the configured limit as its detail.
    pub(super) fn timeout_error(&self, kind: ErrorKind) -> Error {
        let limit = match kind {
            ErrorKind::ConnectTimeout => self.configured_timeouts.connect,
            ErrorKind::ResponseHeadTimeout => self.configured_timeouts.response_head,
            ErrorKind::BodyIdleTimeout => self.configured_timeouts.body_idle,
            ErrorKind::TotalTimeout => self.configured_timeouts.total,
            ErrorKind::RequestTimeout => self.attempt_timeout,
            _ => None,
        };
        match limit {
            Some(limit) => Error::from_kind(kind).with_detail(format!("{limit:?} on the wire")),
            None => Error::from_kind(kind),
        }
    }

    /// When the next timeout expires, and the kind of the timeout's error.
    pub(super) fn next_timeout(&self, clock: &HopClock) -> Option<(Time, ErrorKind)> {
        if clock.is_paused() {
            return self.deadline;
        }
        let phase = clock.phase();
        let timestamps = clock.timestamps();
        let (since, limit, kind) = match phase {
            // Until the connection is established, `connected_at` is the time at which connecting
            // began.
            Phase::Connect => (
                timestamps.connected_at,
                self.configured_timeouts.connect,
                ErrorKind::ConnectTimeout,
            ),
            Phase::ResponseHead => (
                timestamps.last_activity_at,
                self.configured_timeouts.response_head,
                ErrorKind::ResponseHeadTimeout,
            ),
            Phase::Body | Phase::Streaming => (
                timestamps.last_activity_at,
                self.configured_timeouts.body_idle,
                ErrorKind::BodyIdleTimeout,
            ),
        };
        let in_phase = limit.map(|limit| (Time::from_nanos(since) + limit, kind));
        // The request timeout and the total timeout do not limit how long a file or handler takes
        // to stream the body.
        let attempt_or_total_expiry = self
            .attempt_or_total_expiry
            .filter(|_| phase != Phase::Streaming);
        let wire = attempt_or_total_expiry.map(|(at, kind)| (at + clock.total_pause_time(), kind));
        earliest_expiry([in_phase, wire, self.deadline])
    }
}

fn earliest_expiry<const N: usize>(
    expiries: [Option<(Time, ErrorKind)>; N],
) -> Option<(Time, ErrorKind)> {
    expiries.into_iter().flatten().min_by_key(|(at, _)| *at)
}
