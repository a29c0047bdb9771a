//! The clocks of an attempt: which runs, and which runs out first.
//!
//! They count time on the wire, so they are made anew when an attempt starts; only the batch's deadline is an instant on
//! the wall.

use std::time::Duration;

use super::Job;
use crate::limits::Timeouts;
use crate::schedule::Time;
use crate::wire::{Phase, Progress};
use crate::{Error, ErrorKind};

/// The instants at which this attempt's clocks run out.
pub(super) struct Clocks<'a> {
    timeouts: &'a Timeouts,
    attempt: Option<Duration>,
    /// Those that run from its start, as long as the peer is waited for: the earliest of them.
    wire: Option<(Time, ErrorKind)>,
    /// By the clock on the wall.
    deadline: Option<(Time, ErrorKind)>,
}

impl<'a> Clocks<'a> {
    pub(super) fn new(job: &'a Job, started: Time) -> Self {
        let timeouts = &job.terms.timeouts;
        let request = job
            .request
            .attempt_timeout()
            .map(|limit| limit.saturating_sub(job.hops().wire()))
            .map(|left| (started + left, ErrorKind::RequestTimeout));
        let left = timeouts.total.map(|total| total.saturating_sub(job.wire()));
        let total = left.map(|left| (started + left, ErrorKind::TotalTimeout));
        let deadline = job
            .terms
            .deadline
            .map(|deadline| (deadline, ErrorKind::Deadline));
        Self {
            timeouts,
            attempt: job.request.attempt_timeout(),
            wire: [request, total]
                .into_iter()
                .flatten()
                .min_by_key(|(at, _)| *at),
            deadline,
        }
    }

    /// The error of the clock that ran out, which names it and says what it was set to.
    pub(super) fn ran_out(&self, clock: ErrorKind) -> Error {
        let limit = match clock {
            ErrorKind::ConnectTimeout => self.timeouts.connect,
            ErrorKind::FirstByteTimeout => self.timeouts.first_byte,
            ErrorKind::BodyIdleTimeout => self.timeouts.body_idle,
            ErrorKind::TotalTimeout => self.timeouts.total,
            ErrorKind::RequestTimeout => self.attempt,
            _ => None,
        };
        match limit {
            Some(limit) => Error::of(clock).because(format!("{limit:?} on the wire")),
            None => Error::of(clock),
        }
    }

    /// The next to run out, and the error it would be.
    pub(super) fn next(&self, progress: &Progress) -> Option<(Time, ErrorKind)> {
        if progress.is_held() {
            return self.deadline;
        }
        let phase = progress.phase();
        let marks = progress.marks();
        let (since, limit, kind) = match phase {
            // Until it is connected this reads as the instant at which connecting began.
            Phase::Connect => (
                marks.connected,
                self.timeouts.connect,
                ErrorKind::ConnectTimeout,
            ),
            Phase::Head => (
                marks.touched,
                self.timeouts.first_byte,
                ErrorKind::FirstByteTimeout,
            ),
            Phase::Body | Phase::Stream => (
                marks.touched,
                self.timeouts.body_idle,
                ErrorKind::BodyIdleTimeout,
            ),
        };
        let in_phase = limit.map(|limit| (Time::from_nanos(since) + limit, kind));
        let wire = self.wire.filter(|_| phase != Phase::Stream);
        let wire = wire.map(|(at, clock)| (at + progress.held(), clock));
        [in_phase, wire, self.deadline]
            .into_iter()
            .flatten()
            .min_by_key(|(at, _)| *at)
    }
}
