//! Follows the rate limit that a host announces in its response headers: how many more requests the
//! host accepts until it resets its counter.
//!
//! An announcement covers the requests that the host received before it sent the announcement.
//! Requests that started later are subtracted from the announced number. The rest determines when
//! queued requests start:
//!
//! - If the rest suffices for all queued requests, they start at once.
//! - If the rest does not suffice, some requests must wait for the reset anyway, so the remaining
//!   starts are spread evenly over the time until the reset.
//! - If the rest is zero, nothing starts before the reset. After the reset, one request *rechecks*
//!   the limit and the others wait for its response.
//!
//! A lane waits until the reset at the latest. A reset is taken to be at most [`MAX_RESET`] away.

use super::super::admission::Admission;
use super::super::time::Time;

/// The longest time for which an announcement is followed, in nanoseconds.
const MAX_RESET: u64 = 300_000_000_000;
/// The largest difference between two announcements of the same reset, in nanoseconds: hosts
/// announce the reset in whole seconds.
const RESET_RESOLUTION: u64 = 1_000_000_000;
/// The longest time for which other requests wait for the request that rechecks the limit, in
/// nanoseconds.
const RECHECK_TIMEOUT: u64 = 2_000_000_000;

/// The rate limit that a host announced in a response.
#[derive(Copy, Clone, Debug)]
pub(crate) struct LimitAnnouncement {
    /// The number of further requests that the host accepts until the reset.
    pub(crate) remaining: u64,
    /// The time until the reset, in nanoseconds.
    pub(crate) reset_after: u64,
    /// The `Slot::start_seq` of the request whose response contained the announcement.
    pub(crate) start_seq: u64,
}

#[derive(Clone, Debug, Default)]
pub(super) struct ServerLimit {
    remaining: u64,
    reset_at: Time,
    /// The least time between two starts, in nanoseconds.
    min_interval: u64,
    last_start: Time,
    /// The start number of the request whose response announced this limit.
    announced_to_seq: u64,
    /// The instant at which the request that rechecks the limit has started.
    recheck_started: Option<Time>,
}

impl ServerLimit {
    /// Applies an announcement, unless the response to a later request has already announced a
    /// limit.
    ///
    /// `start_count` is the number of starts in the lane so far, `queued` the number of queued
    /// requests.
    pub(super) fn observe(
        &mut self,
        announcement: LimitAnnouncement,
        start_count: u64,
        queued: u64,
        now: Time,
    ) {
        let LimitAnnouncement {
            remaining,
            reset_after,
            start_seq,
        } = announcement;
        if start_seq < self.announced_to_seq {
            return;
        }
        let mut reset_at = now.plus_nanos(reset_after.min(MAX_RESET));
        let is_same_reset = self.reset_at > now
            && reset_at.nanos_since(self.reset_at) <= RESET_RESOLUTION
            && self.reset_at.nanos_since(reset_at) <= RESET_RESOLUTION;
        if is_same_reset {
            reset_at = reset_at.min(self.reset_at);
        }
        self.announced_to_seq = start_seq;
        self.remaining = remaining.saturating_sub(start_count - start_seq);
        self.reset_at = if reset_after == 0 {
            // The host has rounded the time until the reset down to whole seconds.
            now.plus_nanos(RESET_RESOLUTION)
        } else {
            reset_at
        };
        self.min_interval = match self.remaining {
            0 => 0,
            remaining if queued <= remaining => 0,
            remaining => self.reset_at.nanos_since(now) / (remaining + 1),
        };
        self.recheck_started = None;
    }

    pub(super) fn check(&self, now: Time) -> Admission {
        if now < self.reset_at {
            let next = self.last_start.plus_nanos(self.min_interval);
            if self.remaining == 0 {
                return Admission::NotBefore(self.reset_at);
            }
            if now < next {
                return Admission::NotBefore(next.min(self.reset_at));
            }
        }
        match self.recheck_started {
            Some(started) if now < started.plus_nanos(RECHECK_TIMEOUT) => {
                Admission::NoLaterThan(started.plus_nanos(RECHECK_TIMEOUT))
            }
            _ => Admission::Granted,
        }
    }

    /// Records a start that [`Self::check`] has granted at `now`.
    pub(super) fn enter(&mut self, now: Time) {
        self.last_start = now;
        if now < self.reset_at {
            self.remaining -= 1;
        } else {
            self.recheck_started.get_or_insert(now);
        }
    }

    /// Whether the request with start number `start_seq` was sent as or after the recheck.
    pub(super) fn is_rechecked_by(&self, start_seq: u64) -> bool {
        self.recheck_started.is_some() && start_seq > self.announced_to_seq
    }

    pub(super) fn is_expired(&self, now: Time) -> bool {
        self.reset_at <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    const fn at_ms(ms: u64) -> Time {
        Time::from_nanos(ms * MS)
    }

    /// The limit after the first of `start_count` requests got a response at time zero.
    fn announced(remaining: u64, reset_ms: u64, start_count: u64, queued: u64) -> ServerLimit {
        let mut limit = ServerLimit::default();
        let announcement = LimitAnnouncement {
            remaining,
            reset_after: reset_ms * MS,
            start_seq: 1,
        };
        limit.observe(announcement, start_count, queued, at_ms(0));
        limit
    }

    #[test]
    fn queued_requests_that_fit_start_at_once() {
        let mut limit = announced(2, 5_000, 1, 2);
        for _ in 0..2 {
            assert_eq!(limit.check(at_ms(0)), Admission::Granted);
            limit.enter(at_ms(0));
        }
        assert_eq!(limit.check(at_ms(0)), Admission::NotBefore(at_ms(5_000)));
    }

    #[test]
    fn queued_requests_that_do_not_fit_are_spread_until_the_reset() {
        let mut limit = announced(4, 5_000, 1, 100);
        limit.enter(at_ms(500));
        assert_eq!(limit.check(at_ms(500)), Admission::NotBefore(at_ms(1_500)));
        assert_eq!(limit.check(at_ms(1_500)), Admission::Granted);
    }

    #[test]
    fn starts_since_the_announced_one_are_subtracted() {
        let limit = announced(3, 5_000, 4, 0);
        assert_eq!(limit.check(at_ms(0)), Admission::NotBefore(at_ms(5_000)));
    }

    #[test]
    fn one_request_rechecks_after_the_reset() {
        let mut limit = announced(0, 5_000, 1, 9);
        assert_eq!(limit.check(at_ms(5_000)), Admission::Granted);
        limit.enter(at_ms(5_000));
        let refused = Admission::NoLaterThan(at_ms(7_000));
        assert_eq!(limit.check(at_ms(5_000)), refused);
        assert!(limit.is_rechecked_by(2) && !limit.is_rechecked_by(1));
        assert_eq!(limit.check(at_ms(7_000)), Admission::Granted);
    }

    #[test]
    fn announcement_to_an_earlier_start_is_ignored() {
        let mut limit = announced(0, 5_000, 1, 9);
        let earlier = LimitAnnouncement {
            remaining: 50,
            reset_after: MS,
            start_seq: 0,
        };
        limit.observe(earlier, 1, 9, at_ms(0));
        assert_eq!(limit.check(at_ms(0)), Admission::NotBefore(at_ms(5_000)));
    }

    #[test]
    fn reset_is_followed_for_five_minutes_at_most() {
        let limit = announced(0, 3_600_000, 1, 9);
        assert!(!limit.is_expired(at_ms(299_999)) && limit.is_expired(at_ms(300_000)));
    }
}
