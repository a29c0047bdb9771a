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
//! A lane waits until the reset at the latest. A reset is taken to be at most
//! [`MAX_TIME_UNTIL_RESET`] away.

use super::super::admission::Admission;
use super::super::time::Time;

/// The longest time for which an announcement is followed, in nanoseconds.
const MAX_TIME_UNTIL_RESET: u64 = 300_000_000_000;
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
    min_start_interval: u64,
    last_start_at: Time,
    /// The start number of the request whose response announced or lifted this limit.
    announcement_start_seq: u64,
    /// The number of starts in the lane so far.
    start_count: u64,
    recheck: Option<Recheck>,
    /// Whether a recheck has shown that the host no longer has a limit. The limit then only records
    /// which announcements are out of date.
    is_lifted: bool,
}

/// The first request after the reset.
#[derive(Copy, Clone, Debug)]
struct Recheck {
    started_at: Time,
    start_seq: u64,
}

impl ServerLimit {
    /// Applies an announcement, unless the response to a later request has already announced a
    /// limit or shown that there is none.
    ///
    /// `start_count` is the number of starts in the lane so far, `queued` the number of queued
    /// requests.
    pub(super) fn apply_announcement(
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
        if start_seq < self.announcement_start_seq {
            return;
        }
        let mut reset_at = now.plus_nanos(reset_after.min(MAX_TIME_UNTIL_RESET));
        let is_same_reset = self.reset_at > now
            && reset_at.nanos_since(self.reset_at) <= RESET_RESOLUTION
            && self.reset_at.nanos_since(reset_at) <= RESET_RESOLUTION;
        if is_same_reset {
            reset_at = reset_at.min(self.reset_at);
        }
        self.announcement_start_seq = start_seq;
        self.remaining = remaining.saturating_sub(start_count - start_seq);
        self.reset_at = if reset_after == 0 {
            // The host has rounded the time until the reset down to whole seconds.
            now.plus_nanos(RESET_RESOLUTION)
        } else {
            reset_at
        };
        self.min_start_interval = match self.remaining {
            0 => 0,
            remaining if queued <= remaining => 0,
            remaining => self.reset_at.nanos_since(now) / (remaining + 1),
        };
        self.start_count = start_count;
        self.recheck = None;
        self.is_lifted = false;
    }

    pub(super) fn check(&self, now: Time) -> Admission {
        if now < self.reset_at {
            let next = self.last_start_at.plus_nanos(self.min_start_interval);
            if self.remaining == 0 {
                return Admission::NotBefore(self.reset_at);
            }
            if now < next {
                return Admission::NotBefore(next.min(self.reset_at));
            }
        }
        let recheck_ends = |recheck: Recheck| recheck.started_at.plus_nanos(RECHECK_TIMEOUT);
        match self.recheck.map(recheck_ends) {
            Some(end) if now < end => Admission::NoLaterThan(end),
            _ => Admission::Granted,
        }
    }

    /// Records a start that [`Self::check`] has granted at `now`.
    pub(super) fn record_start(&mut self, now: Time) {
        self.start_count += 1;
        self.last_start_at = now;
        if now < self.reset_at {
            self.remaining -= 1;
        } else if !self.is_lifted {
            self.recheck.get_or_insert(Recheck {
                started_at: now,
                start_seq: self.start_count,
            });
        }
    }

    /// Lifts the limit if the request with start number `start_seq` is the recheck or started
    /// later. Called if its response announced no limit. Returns true if the limit was lifted.
    pub(super) fn lift_if_rechecked_by(&mut self, start_seq: u64) -> bool {
        let is_rechecked = self
            .recheck
            .is_some_and(|recheck| start_seq >= recheck.start_seq);
        if is_rechecked {
            self.recheck = None;
            self.is_lifted = true;
            self.announcement_start_seq = start_seq;
        }
        is_rechecked
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
        limit.apply_announcement(announcement, start_count, queued, at_ms(0));
        limit
    }

    #[test]
    fn queued_requests_that_fit_start_at_once() {
        let mut limit = announced(2, 5_000, 1, 2);
        for _ in 0..2 {
            assert_eq!(limit.check(at_ms(0)), Admission::Granted);
            limit.record_start(at_ms(0));
        }
        assert_eq!(limit.check(at_ms(0)), Admission::NotBefore(at_ms(5_000)));
    }

    #[test]
    fn queued_requests_that_do_not_fit_are_spread_until_the_reset() {
        let mut limit = announced(4, 5_000, 1, 100);
        limit.record_start(at_ms(500));
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
        limit.record_start(at_ms(5_000));
        let refused = Admission::NoLaterThan(at_ms(7_000));
        assert_eq!(limit.check(at_ms(5_000)), refused);
        assert_eq!(limit.check(at_ms(7_000)), Admission::Granted);
        assert!(!limit.lift_if_rechecked_by(1));
        assert!(limit.lift_if_rechecked_by(2));
        assert_eq!(limit.check(at_ms(5_000)), Admission::Granted);
    }

    #[test]
    fn response_to_a_start_before_the_reset_lifts_no_limit() {
        let mut limit = announced(1, 5_000, 2, 9);
        limit.record_start(at_ms(5_000));
        assert!(!limit.lift_if_rechecked_by(2), "started before the reset");
        let refused = Admission::NoLaterThan(at_ms(7_000));
        assert_eq!(limit.check(at_ms(5_000)), refused);
        assert!(limit.lift_if_rechecked_by(3));
        limit.record_start(at_ms(5_000));
        let granted = Admission::Granted;
        assert_eq!(limit.check(at_ms(5_000)), granted, "no second recheck");
    }

    #[test]
    fn announcement_to_a_start_before_the_lifting_one_is_ignored() {
        let mut limit = announced(0, 5_000, 3, 9);
        limit.record_start(at_ms(5_000));
        assert!(limit.lift_if_rechecked_by(4));
        let outdated = LimitAnnouncement {
            remaining: 0,
            reset_after: 5_000 * MS,
            start_seq: 3,
        };
        limit.apply_announcement(outdated, 4, 9, at_ms(5_000));
        assert_eq!(limit.check(at_ms(5_000)), Admission::Granted);
        let current = LimitAnnouncement {
            start_seq: 4,
            ..outdated
        };
        limit.apply_announcement(current, 4, 9, at_ms(5_000));
        let refused = Admission::NotBefore(at_ms(10_000));
        assert_eq!(limit.check(at_ms(5_000)), refused);
    }

    #[test]
    fn announcement_to_an_earlier_start_is_ignored() {
        let mut limit = announced(0, 5_000, 1, 9);
        let earlier = LimitAnnouncement {
            remaining: 50,
            reset_after: MS,
            start_seq: 0,
        };
        limit.apply_announcement(earlier, 1, 9, at_ms(0));
        assert_eq!(limit.check(at_ms(0)), Admission::NotBefore(at_ms(5_000)));
    }

    #[test]
    fn reset_is_followed_for_five_minutes_at_most() {
        let limit = announced(0, 3_600_000, 1, 9);
        assert!(!limit.is_expired(at_ms(299_999)) && limit.is_expired(at_ms(300_000)));
    }
}
