//! Limits how often requests start.
//!
//! The algorithm is the generic cell rate algorithm (GCRA) in its virtual scheduling form
//! (ITU-T Recommendation I.371). Its state is one instant, the *theoretical arrival time*
//! (TAT) of the next request. A request that starts at `t` moves the TAT to
//! `max(TAT, t) + emission interval`, and a request may start as soon as
//! `t >= TAT - burst tolerance`.
//!
//! Starts are late: timers fire late, and a start that the rate grants may wait for a slot. GCRA
//! alone would count each delay against the rate. A timer with a resolution of one millisecond
//! would cut a rate of 100/s by a tenth, and a slot that becomes free every 50 ms would cut a rate
//! of 40/s by half. A delay in which a request was waiting is therefore made up for, up to a bound.

use super::super::admission::Admission;
use super::super::time::Time;

/// The largest wait for a slot that is made up for, in intervals between two starts.
///
/// A window of any length sees at most `burst + rate × length + MAX_MADE_UP_STARTS` starts (above
/// 1,000 starts per second: the starts of `MIN_MADE_UP_TIMER_DELAY` instead). If no start is late,
/// it sees at most `burst + rate × length`.
const MAX_MADE_UP_STARTS: u64 = 2;

/// The delay of a timer that is made up for at every rate, in nanoseconds. At a low rate, half of
/// the interval between two starts is made up for.
const MIN_MADE_UP_TIMER_DELAY: u64 = 2_000_000;

/// The parameters of GCRA, in nanoseconds.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) struct GcraRate {
    /// The time between two starts at the nominal rate (`T` in I.371).
    pub(crate) emission_interval: u64,
    /// How far a burst may run ahead of the nominal rate (`τ` in I.371).
    pub(crate) burst_tolerance: u64,
}

impl GcraRate {
    fn max_made_up_timer_delay(self) -> u64 {
        (self.emission_interval / 2).max(MIN_MADE_UP_TIMER_DELAY)
    }

    /// The largest delay of a timer and wait for a slot together.
    fn max_made_up_delay(self) -> u64 {
        (MAX_MADE_UP_STARTS * self.emission_interval).max(MIN_MADE_UP_TIMER_DELAY)
    }
}

/// Grants starts at a rate, which can be changed or removed.
#[derive(Clone, Debug)]
pub(super) struct RateLimiter {
    /// `None`: starts are not limited.
    rate: Option<GcraRate>,
    /// The theoretical arrival time of the next start.
    tat: Time,
    /// The instant of the next start, as announced by the last [`Self::check`]. `None` after the
    /// timer for this instant has fired.
    announced_start: Option<Time>,
    /// Whether a request has been waiting for the next start. It tells a late start from idleness.
    has_waiting_request: bool,
}

impl RateLimiter {
    pub(super) fn new(rate: Option<GcraRate>) -> Self {
        Self {
            rate,
            tat: Time::default(),
            announced_start: None,
            has_waiting_request: false,
        }
    }

    pub(super) fn check(&mut self, now: Time) -> Admission {
        let Some(rate) = self.rate else {
            return Admission::Granted;
        };
        // The TAT can only be further ahead if the clock went back, for example because another
        // runtime's paused test clock was advanced.
        let max_ahead = rate.burst_tolerance.saturating_add(rate.emission_interval);
        self.tat = self.tat.min(now.plus_nanos(max_ahead));
        let earliest = self.tat.minus_nanos(rate.burst_tolerance);
        if now < earliest {
            self.announced_start = Some(earliest);
            self.has_waiting_request = true;
            return Admission::NotBefore(earliest);
        }
        self.note_timer_fired(now);
        Admission::Granted
    }

    /// Records that the timer of the announced start has fired, if that instant has passed. The
    /// start may still wait for a slot.
    pub(super) fn note_timer_fired(&mut self, now: Time) {
        if let Some(rate) = self.rate
            && self
                .announced_start
                .is_some_and(|announced| announced <= now)
        {
            self.announced_start = None;
            self.tat = self
                .tat
                .max(now.minus_nanos(rate.max_made_up_timer_delay()));
        }
    }

    /// Records a start that [`Self::check`] has granted at `now`. `has_waiting_request` tells
    /// whether another request is ready to start.
    pub(super) fn record_start(&mut self, now: Time, has_waiting_request: bool) {
        let Some(rate) = self.rate else {
            return;
        };
        let max_made_up_delay = if self.has_waiting_request {
            rate.max_made_up_delay()
        } else {
            0
        };
        self.tat = self
            .tat
            .max(now.minus_nanos(max_made_up_delay))
            .plus_nanos(rate.emission_interval);
        self.has_waiting_request = has_waiting_request;
    }

    /// Forgets that a request waits for the next start. Call this when something other than the
    /// rate or a missing slot, such as a pause, delays that start. Otherwise later starts would be
    /// allowed early to make up for the delay.
    pub(super) fn forget_delayed_start(&mut self) {
        self.announced_start = None;
        self.has_waiting_request = false;
    }

    /// Changes the rate. Starts so far count at the new rate, too: the limiter does not grant a
    /// fresh burst.
    pub(super) fn set_rate(&mut self, rate: Option<GcraRate>) {
        self.rate = rate;
        self.announced_start = None;
        self.has_waiting_request = false;
    }

    /// Whether [`Self::check`] would refuse a start. Does not announce one.
    pub(super) fn is_blocking(&self, now: Time) -> bool {
        self.rate
            .is_some_and(|rate| now < self.tat.minus_nanos(rate.burst_tolerance))
    }

    /// Whether the state equals that of a new limiter: the whole burst is available.
    pub(super) fn is_replenished(&self, now: Time) -> bool {
        self.tat <= now
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
            emission_interval: 100 * MS,
            burst_tolerance: (burst - 1) * 100 * MS,
        }))
    }

    #[track_caller]
    fn start(limiter: &mut RateLimiter, now: Time) {
        assert_eq!(limiter.check(now), Admission::Granted);
        limiter.record_start(now, false);
    }

    #[test]
    fn burst_is_granted_at_once_and_then_one_start_per_interval() {
        let mut limiter = limiter(3);
        for _ in 0..3 {
            start(&mut limiter, at_ms(0));
        }
        assert!(limiter.is_blocking(at_ms(0)));
        assert_eq!(limiter.check(at_ms(0)), Admission::NotBefore(at_ms(100)));
        start(&mut limiter, at_ms(100));
        assert_eq!(limiter.check(at_ms(100)), Admission::NotBefore(at_ms(200)));
        assert!(!limiter.is_replenished(at_ms(399)) && limiter.is_replenished(at_ms(400)));
    }

    #[test]
    fn late_timer_does_not_delay_the_following_start() {
        let mut limiter = limiter(1);
        start(&mut limiter, at_ms(0));
        assert_eq!(limiter.check(at_ms(0)), Admission::NotBefore(at_ms(100)));
        start(&mut limiter, at_ms(101));
        assert_eq!(limiter.check(at_ms(101)), Admission::NotBefore(at_ms(200)));
    }

    #[test]
    fn late_timer_is_made_up_for_by_half_an_interval_at_most() {
        let mut limiter = limiter(1);
        start(&mut limiter, at_ms(0));
        assert_eq!(limiter.check(at_ms(0)), Admission::NotBefore(at_ms(100)));
        start(&mut limiter, at_ms(180));
        assert_eq!(limiter.check(at_ms(180)), Admission::NotBefore(at_ms(230)));
        // The timer is punctual, but no slot is free until 290 ms.
        limiter.note_timer_fired(at_ms(230));
        start(&mut limiter, at_ms(290));
        assert_eq!(limiter.check(at_ms(290)), Admission::NotBefore(at_ms(330)));
    }

    #[test]
    fn two_starts_that_no_slot_was_free_for_are_made_up_for() {
        let mut limiter = limiter(1);
        limiter.record_start(at_ms(0), true);
        // No slot is free until 550 ms. The starts of 100, 200 and 300 ms are lost.
        for _ in 0..3 {
            assert_eq!(limiter.check(at_ms(550)), Admission::Granted);
            limiter.record_start(at_ms(550), true);
        }
        assert_eq!(limiter.check(at_ms(550)), Admission::NotBefore(at_ms(650)));
    }

    #[test]
    fn delay_without_a_waiting_request_is_not_made_up_for() {
        let mut limiter = limiter(1);
        limiter.record_start(at_ms(0), false);
        start(&mut limiter, at_ms(550));
        assert_eq!(limiter.check(at_ms(550)), Admission::NotBefore(at_ms(650)));
    }

    #[test]
    fn delay_by_something_else_is_not_made_up_for() {
        let mut limiter = limiter(1);
        start(&mut limiter, at_ms(0));
        assert_eq!(limiter.check(at_ms(0)), Admission::NotBefore(at_ms(100)));
        limiter.forget_delayed_start();
        start(&mut limiter, at_ms(101));
        assert_eq!(limiter.check(at_ms(101)), Admission::NotBefore(at_ms(201)));
    }

    #[test]
    fn clock_that_goes_back_costs_at_most_the_burst_and_one_interval() {
        let mut limiter = limiter(1);
        start(&mut limiter, at_ms(60_000));
        assert_eq!(limiter.check(at_ms(0)), Admission::NotBefore(at_ms(100)));
    }

    #[test]
    fn new_rate_grants_no_fresh_burst() {
        let mut limiter = limiter(1);
        start(&mut limiter, at_ms(0));
        limiter.set_rate(Some(GcraRate {
            emission_interval: 10 * MS,
            burst_tolerance: 0,
        }));
        assert_eq!(limiter.check(at_ms(0)), Admission::NotBefore(at_ms(10)));
        limiter.set_rate(None);
        assert_eq!(limiter.check(at_ms(0)), Admission::Granted);
    }
}
