//! Limits how often requests start.
//!
//! The algorithm is the generic cell rate algorithm (GCRA) in its virtual scheduling form
//! (ITU-T Recommendation I.371). Its state is one instant, the *theoretical arrival time*
//! (TAT) of the next request. A request that starts at `t` moves the TAT to
//! `max(TAT, t) + emission interval`, and a request may start as soon as
//! `t >= TAT - burst tolerance`.
//!
//! Timers fire late, and a start that the rate permits may wait for a slot. Plain GCRA would lose
//! the starts of these delays: a timer with a resolution of one millisecond would cut a rate of
//! 100/s by a tenth, and a slot that becomes free every 50 ms would cut a rate of 40/s by half. If
//! a request was waiting during a delay, later starts therefore make up for the delay, up to a
//! bound.

use super::super::admission::Admission;
use super::super::time::Time;

/// The maximum delay that later starts make up for, in intervals between two starts.
///
/// A window of any length sees at most `burst + rate × length + MAX_STARTS_MADE_UP_FOR` starts.
/// Above 1,000 starts per second, the starts of `TIMER_DELAY_ALWAYS_MADE_UP_FOR_NANOS` replace the
/// last term. Without delays, a window sees at most `burst + rate × length` starts.
const MAX_STARTS_MADE_UP_FOR: u64 = 2;

/// The timer delay that later starts make up for at every rate. At low rates, they make up for half
/// of the interval between two starts.
const TIMER_DELAY_ALWAYS_MADE_UP_FOR_NANOS: u64 = 2_000_000;

/// The parameters of GCRA.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) struct GcraRate {
    /// The time between two starts at the nominal rate (`T` in I.371).
    pub(crate) emission_interval_nanos: u64,
    /// The time by which a burst may precede the nominal rate (`τ` in I.371).
    pub(crate) burst_tolerance_nanos: u64,
}

impl GcraRate {
    fn max_timer_delay_made_up_for_nanos(self) -> u64 {
        (self.emission_interval_nanos / 2).max(TIMER_DELAY_ALWAYS_MADE_UP_FOR_NANOS)
    }

    /// The maximum delay that later starts make up for. The delay of a timer and the wait for a
    /// slot add up.
    fn max_total_delay_made_up_for_nanos(self) -> u64 {
        (MAX_STARTS_MADE_UP_FOR * self.emission_interval_nanos)
            .max(TIMER_DELAY_ALWAYS_MADE_UP_FOR_NANOS)
    }
}

/// Grants starts at a rate. The rate can be changed or removed.
#[derive(Clone, Debug)]
pub(super) struct RateLimiter {
    /// The rate of starts. `None`: unlimited.
    rate: Option<GcraRate>,
    /// The theoretical arrival time (TAT) of the next start.
    theoretical_arrival_time: Time,
    /// The instant of the next start, as last returned by [`Self::check_admission`]. `None` after
    /// the timer for this instant has fired.
    awaited_start_at: Option<Time>,
    /// Whether a request has been waiting for the next start. If not, a late start is no delay to
    /// make up for.
    has_waiting_request: bool,
}

impl RateLimiter {
    pub(super) fn new(rate: Option<GcraRate>) -> Self {
        Self {
            rate,
            theoretical_arrival_time: Time::default(),
            awaited_start_at: None,
            has_waiting_request: false,
        }
    }

    pub(super) fn check_admission(&mut self, now: Time) -> Admission {
        let Some(rate) = self.rate else {
            return Admission::Granted;
        };
        // The TAT is further ahead only if the clock went back, for example because another
        // runtime's paused test clock was advanced.
        let max_ahead = rate
            .burst_tolerance_nanos
            .saturating_add(rate.emission_interval_nanos);
        self.theoretical_arrival_time =
            self.theoretical_arrival_time.min(now.plus_nanos(max_ahead));
        let earliest = self
            .theoretical_arrival_time
            .minus_nanos(rate.burst_tolerance_nanos);
        if now < earliest {
            self.awaited_start_at = Some(earliest);
            self.has_waiting_request = true;
            return Admission::RefusedUntil(earliest);
        }
        self.make_up_for_late_timer(now);
        Admission::Granted
    }

    /// Lets later starts make up for the delay of a late timer, if the instant of the awaited start
    /// has passed. The start may still wait for a slot.
    pub(super) fn make_up_for_late_timer(&mut self, now: Time) {
        if let Some(rate) = self.rate
            && self
                .awaited_start_at
                .is_some_and(|announced| announced <= now)
        {
            self.awaited_start_at = None;
            self.theoretical_arrival_time = self
                .theoretical_arrival_time
                .max(now.minus_nanos(rate.max_timer_delay_made_up_for_nanos()));
        }
    }

    /// Records a start that [`Self::check_admission`] has granted at `now`. `has_waiting_request`
    /// tells whether another request is ready to start.
    pub(super) fn record_start(&mut self, now: Time, has_waiting_request: bool) {
        let Some(rate) = self.rate else {
            return;
        };
        let max_total_delay_made_up_for_nanos = if self.has_waiting_request {
            rate.max_total_delay_made_up_for_nanos()
        } else {
            0
        };
        self.theoretical_arrival_time = self
            .theoretical_arrival_time
            .max(now.minus_nanos(max_total_delay_made_up_for_nanos))
            .plus_nanos(rate.emission_interval_nanos);
        self.has_waiting_request = has_waiting_request;
    }

    /// Returns one start to the rate. Called if the request of a recorded start is not going to be
    /// sent.
    pub(super) fn return_start(&mut self) {
        if let Some(rate) = self.rate {
            self.theoretical_arrival_time = self
                .theoretical_arrival_time
                .minus_nanos(rate.emission_interval_nanos);
        }
    }

    /// Forgets the delay of the next start, so that later starts do not make up for it. Called if a
    /// cause other than the rate or a missing slot, such as a pause, delays the start.
    pub(super) fn discard_delay_to_make_up_for(&mut self) {
        self.awaited_start_at = None;
        self.has_waiting_request = false;
    }

    /// Changes the rate. Earlier starts count against the new rate, so there is no new burst.
    pub(super) fn set_rate(&mut self, rate: Option<GcraRate>) {
        self.rate = rate;
        self.awaited_start_at = None;
        self.has_waiting_request = false;
    }

    /// Whether the rate refuses a start. Unlike [`Self::check_admission`], changes no state.
    pub(super) fn refuses_start(&self, now: Time) -> bool {
        self.rate.is_some_and(|rate| {
            now < self
                .theoretical_arrival_time
                .minus_nanos(rate.burst_tolerance_nanos)
        })
    }

    /// Whether the whole burst is available, as in a new limiter.
    pub(super) fn is_whole_burst_available(&self, now: Time) -> bool {
        self.theoretical_arrival_time <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    const fn at_ms(ms: u64) -> Time {
        Time::from_nanos(ms * MS)
    }

    /// One start per 100 ms, with a burst of `burst`.
    fn limiter(burst: u64) -> RateLimiter {
        RateLimiter::new(Some(GcraRate {
            emission_interval_nanos: 100 * MS,
            burst_tolerance_nanos: (burst - 1) * 100 * MS,
        }))
    }

    #[track_caller]
    fn start(limiter: &mut RateLimiter, now: Time) {
        assert_eq!(limiter.check_admission(now), Admission::Granted);
        limiter.record_start(now, false);
    }

    #[test]
    fn burst_is_granted_at_once_and_then_one_start_per_interval() {
        let mut limiter = limiter(3);
        for _ in 0..3 {
            start(&mut limiter, at_ms(0));
        }
        assert!(limiter.refuses_start(at_ms(0)));
        assert_eq!(
            limiter.check_admission(at_ms(0)),
            Admission::RefusedUntil(at_ms(100))
        );
        start(&mut limiter, at_ms(100));
        assert_eq!(
            limiter.check_admission(at_ms(100)),
            Admission::RefusedUntil(at_ms(200))
        );
        assert!(
            !limiter.is_whole_burst_available(at_ms(399))
                && limiter.is_whole_burst_available(at_ms(400))
        );
    }

    #[test]
    fn late_timer_does_not_delay_the_following_start() {
        let mut limiter = limiter(1);
        start(&mut limiter, at_ms(0));
        assert_eq!(
            limiter.check_admission(at_ms(0)),
            Admission::RefusedUntil(at_ms(100))
        );
        start(&mut limiter, at_ms(101));
        assert_eq!(
            limiter.check_admission(at_ms(101)),
            Admission::RefusedUntil(at_ms(200))
        );
    }

    #[test]
    fn late_timer_is_made_up_for_by_half_an_interval_at_most() {
        let mut limiter = limiter(1);
        start(&mut limiter, at_ms(0));
        assert_eq!(
            limiter.check_admission(at_ms(0)),
            Admission::RefusedUntil(at_ms(100))
        );
        start(&mut limiter, at_ms(180));
        assert_eq!(
            limiter.check_admission(at_ms(180)),
            Admission::RefusedUntil(at_ms(230))
        );
        // The timer is punctual, but no slot is free until 290 ms.
        limiter.make_up_for_late_timer(at_ms(230));
        start(&mut limiter, at_ms(290));
        assert_eq!(
            limiter.check_admission(at_ms(290)),
            Admission::RefusedUntil(at_ms(330))
        );
    }

    #[test]
    fn two_starts_that_no_slot_was_free_for_are_made_up_for() {
        let mut limiter = limiter(1);
        limiter.record_start(at_ms(0), true);
        // No slot is free until 550 ms. The starts of 100, 200 and 300 ms are lost.
        for _ in 0..3 {
            assert_eq!(limiter.check_admission(at_ms(550)), Admission::Granted);
            limiter.record_start(at_ms(550), true);
        }
        assert_eq!(
            limiter.check_admission(at_ms(550)),
            Admission::RefusedUntil(at_ms(650))
        );
    }

    #[test]
    fn delay_without_a_waiting_request_is_not_made_up_for() {
        let mut limiter = limiter(1);
        limiter.record_start(at_ms(0), false);
        start(&mut limiter, at_ms(550));
        assert_eq!(
            limiter.check_admission(at_ms(550)),
            Admission::RefusedUntil(at_ms(650))
        );
    }

    #[test]
    fn delay_by_something_else_is_not_made_up_for() {
        let mut limiter = limiter(1);
        start(&mut limiter, at_ms(0));
        assert_eq!(
            limiter.check_admission(at_ms(0)),
            Admission::RefusedUntil(at_ms(100))
        );
        limiter.discard_delay_to_make_up_for();
        start(&mut limiter, at_ms(101));
        assert_eq!(
            limiter.check_admission(at_ms(101)),
            Admission::RefusedUntil(at_ms(201))
        );
    }

    #[test]
    fn clock_that_goes_back_costs_at_most_the_burst_and_one_interval() {
        let mut limiter = limiter(1);
        start(&mut limiter, at_ms(60_000));
        assert_eq!(
            limiter.check_admission(at_ms(0)),
            Admission::RefusedUntil(at_ms(100))
        );
    }

    #[test]
    fn returned_start_does_not_count_against_the_rate() {
        let mut limiter = limiter(2);
        start(&mut limiter, at_ms(0));
        start(&mut limiter, at_ms(0));
        limiter.return_start();
        start(&mut limiter, at_ms(0));
        let refused = Admission::RefusedUntil(at_ms(100));
        assert_eq!(limiter.check_admission(at_ms(0)), refused);
    }

    #[test]
    fn new_rate_grants_no_fresh_burst() {
        let mut limiter = limiter(1);
        start(&mut limiter, at_ms(0));
        limiter.set_rate(Some(GcraRate {
            emission_interval_nanos: 10 * MS,
            burst_tolerance_nanos: 0,
        }));
        assert_eq!(
            limiter.check_admission(at_ms(0)),
            Admission::RefusedUntil(at_ms(10))
        );
        limiter.set_rate(None);
        assert_eq!(limiter.check_admission(at_ms(0)), Admission::Granted);
    }
}
