//! Follows the rate limit that a host announces in its response headers: how many more requests the
//! host accepts until it resets its counter.
//!
//! An announcement covers the requests that the host received before its response. Requests that
//! started later are subtracted from the announced number. The difference determines when queued
//! requests start:
//!
//! - If the difference covers all queued requests, they start at once.
//! - If the difference does not cover all queued requests, the starts are spread evenly over the
//!   time until the reset.
//! - If the difference is zero, nothing starts before the reset. After the reset, one request
//!   *rechecks* the limit: all other requests wait for its response.
//!
//! A lane waits until the reset, but for at most [`MAX_NANOS_UNTIL_RESET`].

use super::super::admission::Admission;
use super::super::time::Time;

/// The maximum time until the reset. A later reset is moved to this time.
const MAX_NANOS_UNTIL_RESET: u64 = 300_000_000_000;
/// Two announced resets that differ by at most this time count as the same reset, because hosts
/// round the time to whole seconds.
const RESET_RESOLUTION_NANOS: u64 = 1_000_000_000;
/// The maximum time for which other requests wait for the request that rechecks the limit.
const RECHECK_TIMEOUT_NANOS: u64 = 2_000_000_000;

/// The rate limit that a host announced in a response.
#[derive(Copy, Clone, Debug)]
pub(crate) struct RateLimitAnnouncement {
    /// The number of further requests that the host accepts until the reset.
    pub(crate) remaining_requests: u64,
    /// The time from the announcement to the reset.
    pub(crate) nanos_until_reset: u64,
    /// The `Slot::start_seq` of the request whose response contained the announcement.
    pub(crate) announcing_start_seq: u64,
}

#[derive(Clone, Debug, Default)]
pub(super) struct ServerLimit {
    remaining_requests: u64,
    reset_at: Time,
    /// The minimum time between two starts.
    min_start_interval_nanos: u64,
    last_start_at: Time,
    /// The sequence number of the last request whose response announced a limit or lifted the
    /// limit.
    latest_response_start_seq: u64,
    /// The number of starts in the lane so far.
    lane_start_count: u64,
    pending_recheck: Option<LimitRecheck>,
    /// Whether a recheck has shown that the host no longer has a limit. A lifted limit refuses no
    /// starts. It is kept to ignore outdated announcements.
    is_limit_lifted: bool,
}

/// The request that rechecks the limit: the first request after the reset.
#[derive(Copy, Clone, Debug)]
struct LimitRecheck {
    started_at: Time,
    recheck_start_seq: u64,
}

impl ServerLimit {
    /// Applies an announcement. Ignores it if the response to a later request has announced a limit
    /// or lifted the limit.
    ///
    /// `start_count` is the number of starts in the lane so far. `queued` is the number of queued
    /// requests.
    pub(super) fn apply_announcement(
        &mut self,
        announcement: RateLimitAnnouncement,
        start_count: u64,
        queued: u64,
        now: Time,
    ) {
        let RateLimitAnnouncement {
            remaining_requests,
            nanos_until_reset,
            announcing_start_seq: start_seq,
        } = announcement;
        if start_seq < self.latest_response_start_seq {
            return;
        }
        let mut reset_at = now.plus_nanos(nanos_until_reset.min(MAX_NANOS_UNTIL_RESET));
        let is_same_reset = self.reset_at > now
            && reset_at.nanos_since(self.reset_at) <= RESET_RESOLUTION_NANOS
            && self.reset_at.nanos_since(reset_at) <= RESET_RESOLUTION_NANOS;
        if is_same_reset {
            reset_at = reset_at.min(self.reset_at);
        }
        self.latest_response_start_seq = start_seq;
        self.remaining_requests = remaining_requests.saturating_sub(start_count - start_seq);
        self.reset_at = if nanos_until_reset == 0 {
            // Servers round to whole seconds. Zero means that the reset is less than a second away.
            now.plus_nanos(RESET_RESOLUTION_NANOS)
        } else {
            reset_at
        };
        self.min_start_interval_nanos = match self.remaining_requests {
            0 => 0,
            remaining_requests if queued <= remaining_requests => 0,
            remaining_requests => self.reset_at.nanos_since(now) / (remaining_requests + 1),
        };
        self.lane_start_count = start_count;
        self.pending_recheck = None;
        self.is_limit_lifted = false;
    }

    pub(super) fn check_admission(&self, now: Time) -> Admission {
        if now < self.reset_at {
            let next = self.last_start_at.plus_nanos(self.min_start_interval_nanos);
            if self.remaining_requests == 0 {
                return Admission::RefusedUntil(self.reset_at);
            }
            if now < next {
                return Admission::RefusedUntil(next.min(self.reset_at));
            }
        }
        let recheck_ends =
            |recheck: LimitRecheck| recheck.started_at.plus_nanos(RECHECK_TIMEOUT_NANOS);
        match self.pending_recheck.map(recheck_ends) {
            Some(end) if now < end => Admission::RefusedUntilEventOrInstant(end),
            _ => Admission::Granted,
        }
    }

    /// Records a start that [`Self::check_admission`] has granted at `now`.
    pub(super) fn record_start(&mut self, now: Time) {
        self.lane_start_count += 1;
        self.last_start_at = now;
        if now < self.reset_at {
            self.remaining_requests -= 1;
        } else if !self.is_limit_lifted {
            self.pending_recheck.get_or_insert(LimitRecheck {
                started_at: now,
                recheck_start_seq: self.lane_start_count,
            });
        }
    }

    /// Lifts the limit if the request with the sequence number `start_seq` is the recheck or
    /// started after the recheck. Called if the response to this request announced no limit.
    /// Returns true if the limit was lifted.
    pub(super) fn lift_limit_if_rechecked_by(&mut self, start_seq: u64) -> bool {
        let is_rechecked = self
            .pending_recheck
            .is_some_and(|recheck| start_seq >= recheck.recheck_start_seq);
        if is_rechecked {
            self.pending_recheck = None;
            self.is_limit_lifted = true;
            self.latest_response_start_seq = start_seq;
        }
        is_rechecked
    }

    pub(super) fn has_reset_passed(&self, now: Time) -> bool {
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
    fn announced(
        remaining_requests: u64,
        reset_ms: u64,
        start_count: u64,
        queued: u64,
    ) -> ServerLimit {
        let mut limit = ServerLimit::default();
        let announcement = RateLimitAnnouncement {
            remaining_requests,
            nanos_until_reset: reset_ms * MS,
            announcing_start_seq: 1,
        };
        limit.apply_announcement(announcement, start_count, queued, at_ms(0));
        limit
    }

    #[test]
    fn queued_requests_that_fit_start_at_once() {
        let mut limit = announced(2, 5_000, 1, 2);
        for _ in 0..2 {
            assert_eq!(limit.check_admission(at_ms(0)), Admission::Granted);
            limit.record_start(at_ms(0));
        }
        assert_eq!(
            limit.check_admission(at_ms(0)),
            Admission::RefusedUntil(at_ms(5_000))
        );
    }

    #[test]
    fn queued_requests_that_do_not_fit_are_spread_until_the_reset() {
        let mut limit = announced(4, 5_000, 1, 100);
        limit.record_start(at_ms(500));
        assert_eq!(
            limit.check_admission(at_ms(500)),
            Admission::RefusedUntil(at_ms(1_500))
        );
        assert_eq!(limit.check_admission(at_ms(1_500)), Admission::Granted);
    }

    #[test]
    fn starts_since_the_announced_one_are_subtracted() {
        let limit = announced(3, 5_000, 4, 0);
        assert_eq!(
            limit.check_admission(at_ms(0)),
            Admission::RefusedUntil(at_ms(5_000))
        );
    }

    #[test]
    fn one_request_rechecks_after_the_reset() {
        let mut limit = announced(0, 5_000, 1, 9);
        assert_eq!(limit.check_admission(at_ms(5_000)), Admission::Granted);
        limit.record_start(at_ms(5_000));
        let refused = Admission::RefusedUntilEventOrInstant(at_ms(7_000));
        assert_eq!(limit.check_admission(at_ms(5_000)), refused);
        assert_eq!(limit.check_admission(at_ms(7_000)), Admission::Granted);
        assert!(!limit.lift_limit_if_rechecked_by(1));
        assert!(limit.lift_limit_if_rechecked_by(2));
        assert_eq!(limit.check_admission(at_ms(5_000)), Admission::Granted);
    }

    #[test]
    fn response_to_a_start_before_the_reset_lifts_no_limit() {
        let mut limit = announced(1, 5_000, 2, 9);
        limit.record_start(at_ms(5_000));
        assert!(
            !limit.lift_limit_if_rechecked_by(2),
            "started before the reset"
        );
        let refused = Admission::RefusedUntilEventOrInstant(at_ms(7_000));
        assert_eq!(limit.check_admission(at_ms(5_000)), refused);
        assert!(limit.lift_limit_if_rechecked_by(3));
        limit.record_start(at_ms(5_000));
        let granted = Admission::Granted;
        assert_eq!(
            limit.check_admission(at_ms(5_000)),
            granted,
            "no second recheck"
        );
    }

    #[test]
    fn announcement_to_a_start_before_the_lifting_one_is_ignored() {
        let mut limit = announced(0, 5_000, 3, 9);
        limit.record_start(at_ms(5_000));
        assert!(limit.lift_limit_if_rechecked_by(4));
        let outdated = RateLimitAnnouncement {
            remaining_requests: 0,
            nanos_until_reset: 5_000 * MS,
            announcing_start_seq: 3,
        };
        limit.apply_announcement(outdated, 4, 9, at_ms(5_000));
        assert_eq!(limit.check_admission(at_ms(5_000)), Admission::Granted);
        let current = RateLimitAnnouncement {
            announcing_start_seq: 4,
            ..outdated
        };
        limit.apply_announcement(current, 4, 9, at_ms(5_000));
        let refused = Admission::RefusedUntil(at_ms(10_000));
        assert_eq!(limit.check_admission(at_ms(5_000)), refused);
    }

    #[test]
    fn announcement_to_an_earlier_start_is_ignored() {
        let mut limit = announced(0, 5_000, 1, 9);
        let earlier = RateLimitAnnouncement {
            remaining_requests: 50,
            nanos_until_reset: MS,
            announcing_start_seq: 0,
        };
        limit.apply_announcement(earlier, 1, 9, at_ms(0));
        assert_eq!(
            limit.check_admission(at_ms(0)),
            Admission::RefusedUntil(at_ms(5_000))
        );
    }

    #[test]
    fn reset_is_followed_for_five_minutes_at_most() {
        let limit = announced(0, 3_600_000, 1, 9);
        assert!(!limit.has_reset_passed(at_ms(299_999)) && limit.has_reset_passed(at_ms(300_000)));
    }
}
