//! Limits how often requests start.
//!
//! The algorithm is the generic cell rate algorithm (GCRA) in its virtual scheduling form
//! (ITU-T Recommendation I.371). Its state is one instant, the *theoretical arrival time*
//! (TAT) of the next request. A request that starts at `t` moves the TAT to
//! `max(TAT, t) + emission interval`, and a request may start as soon as
//! `t >= TAT - burst tolerance`.
//!
//! Timers fire late. GCRA alone would count each delay against the rate: a timer with a resolution
//! of one millisecond would cut a rate of 100/s by a tenth. A start at an instant that
//! [`RateLimiter::check`] announced therefore counts as punctual if it is at most [`MAX_LATENESS`]
//! late.

use super::super::admission::Admission;
use super::super::time::Time;

/// The largest timer delay that is made up for, in nanoseconds.
///
/// A window of any length sees at most `burst + rate × (length + MAX_LATENESS)` starts. If the
/// caller's timers are punctual and no other gate delays the starts, it sees at most
/// `burst + rate × length`.
const MAX_LATENESS: u64 = 2_000_000;

/// The parameters of GCRA, in nanoseconds.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) struct GcraRate {
    /// The time between two starts at the nominal rate (`T` in I.371).
    pub(crate) emission_interval: u64,
    /// How far a burst may run ahead of the nominal rate (`τ` in I.371).
    pub(crate) burst_tolerance: u64,
}

/// Grants starts at a rate, which can be changed or removed.
#[derive(Clone, Debug)]
pub(super) struct RateLimiter {
    /// `None`: starts are not limited.
    rate: Option<GcraRate>,
    /// The theoretical arrival time of the next start.
    tat: Time,
    /// The instant that the last [`Self::check`] announced. It tells a late timer from idleness.
    announced_start: Option<Time>,
    /// How late the last announced start was. Starts queued behind it are equally late.
    lateness: u64,
}

impl RateLimiter {
    pub(super) fn new(rate: Option<GcraRate>) -> Self {
        Self {
            rate,
            tat: Time::default(),
            announced_start: None,
            lateness: 0,
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
            return Admission::NotBefore(earliest);
        }
        Admission::Granted
    }

    /// Records a start. [`Self::check`] has granted it at this `now`.
    pub(super) fn enter(&mut self, now: Time) {
        let Some(rate) = self.rate else {
            return;
        };
        match self.announced_start.take() {
            Some(announced) => self.lateness = now.nanos_since(announced).min(MAX_LATENESS),
            None if self.tat < now.minus_nanos(self.lateness) => self.lateness = 0,
            None => {}
        }
        let punctual_start = now.minus_nanos(self.lateness);
        self.tat = self
            .tat
            .max(punctual_start)
            .plus_nanos(rate.emission_interval);
    }

    /// Forgets the start that [`Self::check`] announced. Call this when something other than the
    /// rate, such as a pause, delays that start. Otherwise the delay would count as a late timer,
    /// and later starts would be allowed early to make up for it.
    pub(super) fn forget_announced_start(&mut self) {
        self.announced_start = None;
    }

    /// Changes the rate. Starts so far count at the new rate, too: the limiter does not grant a
    /// fresh burst.
    pub(super) fn set_rate(&mut self, rate: Option<GcraRate>) {
        self.rate = rate;
        self.announced_start = None;
        self.lateness = 0;
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
        limiter.enter(now);
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
    fn delay_by_something_else_is_not_made_up_for() {
        let mut limiter = limiter(1);
        start(&mut limiter, at_ms(0));
        assert_eq!(limiter.check(at_ms(0)), Admission::NotBefore(at_ms(100)));
        limiter.forget_announced_start();
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
