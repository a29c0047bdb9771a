//! The clocks of an attempt: which runs, and which runs out first.
//!
//! They count time on the wire, so they are made anew when an attempt starts; only the batch's deadline is an instant on
//! the wall.

use std::time::Duration;

use super::Job;
use crate::limits::Timeouts;
use crate::schedule::Time;
use crate::wire::{AttemptClock, Phase};
use crate::{Error, ErrorKind};

/// The instants at which this attempt's clocks run out.
pub(super) struct AttemptTimeouts<'a> {
    timeouts: &'a Timeouts,
    attempt_timeout: Option<Duration>,
    /// Those that run from its start, as long as the peer is waited for: the earliest of them.
    wire_expiry: Option<(Time, ErrorKind)>,
    /// By the clock on the wall.
    deadline: Option<(Time, ErrorKind)>,
}

impl<'a> AttemptTimeouts<'a> {
    pub(super) fn new(job: &'a Job, started: Time) -> Self {
        let timeouts = &job.options.timeouts;
        let request = job
            .request
            .timeout()
            .map(|limit| limit.saturating_sub(job.earlier_hop_timings().wire()))
            .map(|left| (started + left, ErrorKind::RequestTimeout));
        let left = timeouts
            .total
            .map(|total| total.saturating_sub(job.wire_time()));
        let total = left.map(|left| (started + left, ErrorKind::TotalTimeout));
        let deadline = job
            .options
            .deadline
            .map(|deadline| (deadline, ErrorKind::Deadline));
        Self {
            timeouts,
            attempt_timeout: job.request.timeout(),
            wire_expiry: [request, total]
                .into_iter()
                .flatten()
                .min_by_key(|(at, _)| *at),
            deadline,
        }
    }

    /// The error of the clock that ran out, which names it and says what it was set to.
    pub(super) fn timeout_error(&self, kind: ErrorKind) -> Error {
        let limit = match kind {
            ErrorKind::ConnectTimeout => self.timeouts.connect,
            ErrorKind::ResponseHeadTimeout => self.timeouts.response_head,
            ErrorKind::BodyIdleTimeout => self.timeouts.body_idle,
            ErrorKind::TotalTimeout => self.timeouts.total,
            ErrorKind::RequestTimeout => self.attempt_timeout,
            _ => None,
        };
        match limit {
            Some(limit) => Error::from_kind(kind).with_detail(format!("{limit:?} on the wire")),
            None => Error::from_kind(kind),
        }
    }

    /// The next to run out, and the error it would be.
    pub(super) fn next_timeout(&self, attempt_clock: &AttemptClock) -> Option<(Time, ErrorKind)> {
        if attempt_clock.is_paused() {
            return self.deadline;
        }
        let phase = attempt_clock.phase();
        let timestamps = attempt_clock.timestamps();
        let (since, limit, kind) = match phase {
            // Until it is connected this reads as the instant at which connecting began.
            Phase::Connect => (
                timestamps.connected,
                self.timeouts.connect,
                ErrorKind::ConnectTimeout,
            ),
            Phase::ResponseHead => (
                timestamps.last_activity,
                self.timeouts.response_head,
                ErrorKind::ResponseHeadTimeout,
            ),
            Phase::Body | Phase::Streaming => (
                timestamps.last_activity,
                self.timeouts.body_idle,
                ErrorKind::BodyIdleTimeout,
            ),
        };
        let in_phase = limit.map(|limit| (Time::from_nanos(since) + limit, kind));
        let wire = self.wire_expiry.filter(|_| phase != Phase::Streaming);
        let wire = wire.map(|(at, kind)| (at + attempt_clock.paused_for(), kind));
        [in_phase, wire, self.deadline]
            .into_iter()
            .flatten()
            .min_by_key(|(at, _)| *at)
    }
}
