//! A circuit breaker for a host or proxy that cannot be reached (M. Nygard, *Release It!*).
//!
//! After a number of consecutive failures the breaker opens, and nothing starts for a cooldown.
//! After it, the next request is the *probe*. While the probe is in flight the breaker is half-open
//! and nothing else starts. A response closes the breaker, a failure opens it for another cooldown.

use std::num::NonZeroU32;

use super::admission::{Admission, RouteAdmission};
use super::health::RouteHealth;
use super::time::Time;

/// The parameters of a circuit breaker. Times are in nanoseconds.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) struct BreakerConfig {
    /// The number of consecutive failures that opens the breaker. `None`: it never opens.
    pub(crate) failure_threshold: Option<NonZeroU32>,
    /// How long an open breaker refuses all starts.
    pub(crate) cooldown: u64,
    /// The longest time for which requests wait after the breaker has opened. If they had to wait
    /// longer, they are rejected instead.
    pub(crate) max_wait: u64,
}

impl BreakerConfig {
    pub(crate) const DISABLED: Self = Self {
        failure_threshold: None,
        cooldown: 0,
        max_wait: 0,
    };
}

/// Identifies one probe of a breaker, so that a late outcome of an earlier probe is not counted.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(super) struct ProbeId(NonZeroU32);

#[derive(Copy, Clone, Debug)]
enum BreakerState {
    Closed,
    /// Nothing starts before this instant. The next start is the probe.
    Open(Time),
    /// This probe is in flight, alone.
    HalfOpen(ProbeId),
}

#[derive(Debug)]
pub(super) struct CircuitBreaker {
    config: BreakerConfig,
    state: BreakerState,
    consecutive_failures: u32,
    last_failure_at: Time,
    /// When the breaker last opened from the closed state.
    opened_at: Time,
    /// Whether queued requests are rejected while the breaker is not closed.
    rejects_queued_jobs: bool,
    /// The number of the last probe. It may wrap around.
    last_probe_number: u32,
}

impl CircuitBreaker {
    pub(super) fn new(config: BreakerConfig) -> Self {
        Self {
            config,
            state: BreakerState::Closed,
            consecutive_failures: 0,
            last_failure_at: Time::default(),
            opened_at: Time::default(),
            rejects_queued_jobs: false,
            last_probe_number: 0,
        }
    }

    pub(super) fn check(&self, now: Time) -> RouteAdmission {
        match self.state {
            BreakerState::Closed => RouteAdmission::Granted,
            BreakerState::Open(until) if until <= now => RouteAdmission::Granted,
            BreakerState::Open(_) | BreakerState::HalfOpen(_) if self.rejects_queued_jobs => {
                RouteAdmission::Reject
            }
            // A request that is still in flight may get a response, which closes the breaker.
            BreakerState::Open(until) => RouteAdmission::Wait(Admission::NoLaterThan(until)),
            BreakerState::HalfOpen(_) => RouteAdmission::Wait(Admission::Blocked),
        }
    }

    pub(super) fn is_blocking(&self, now: Time) -> bool {
        self.check(now) != RouteAdmission::Granted
    }

    /// The instant from which the next probe may start, while the breaker is open.
    pub(super) fn open_until(&self) -> Option<Time> {
        match self.state {
            BreakerState::Open(until) => Some(until),
            BreakerState::Closed | BreakerState::HalfOpen(_) => None,
        }
    }

    /// Records a start. [`Self::check`] has granted it. Returns an id if this request is the probe.
    pub(super) fn record_start(&mut self) -> Option<ProbeId> {
        let BreakerState::Open(_) = self.state else {
            return None;
        };
        self.last_probe_number = self.last_probe_number.wrapping_add(1);
        let probe = ProbeId(NonZeroU32::new(self.last_probe_number).unwrap_or(NonZeroU32::MIN));
        self.state = BreakerState::HalfOpen(probe);
        Some(probe)
    }

    fn is_current_probe(&self, probe: Option<ProbeId>) -> bool {
        matches!(self.state, BreakerState::HalfOpen(current) if Some(current) == probe)
    }

    /// Records the outcome of an exchange. Returns true if requests that wait for the breaker are
    /// to check again.
    ///
    /// A request that was in flight when the breaker opened can close it by a response, but cannot
    /// keep it open longer by a failure.
    pub(super) fn record_health(
        &mut self,
        probe: Option<ProbeId>,
        health: RouteHealth,
        now: Time,
    ) -> bool {
        let Some(threshold) = self.config.failure_threshold else {
            return false;
        };
        let is_counted = matches!(self.state, BreakerState::Closed) || self.is_current_probe(probe);
        match health {
            RouteHealth::Healthy => self.close(),
            RouteHealth::Overloaded if is_counted => self.close(),
            RouteHealth::Unreachable if is_counted => self.record_failure(threshold.get(), now),
            RouteHealth::Overloaded | RouteHealth::Unreachable => false,
        }
    }

    fn record_failure(&mut self, threshold: u32, now: Time) -> bool {
        self.consecutive_failures = self.consecutive_failures.saturating_add(1);
        self.last_failure_at = now;
        if self.consecutive_failures < threshold {
            return false;
        }
        if let BreakerState::Closed = self.state {
            self.opened_at = now;
        }
        let until = now.plus_nanos(self.config.cooldown);
        self.rejects_queued_jobs = until.nanos_since(self.opened_at) > self.config.max_wait;
        self.state = BreakerState::Open(until);
        self.rejects_queued_jobs
    }

    /// Closes the breaker. Returns true if it was open or half-open.
    fn close(&mut self) -> bool {
        self.consecutive_failures = 0;
        !matches!(
            std::mem::replace(&mut self.state, BreakerState::Closed),
            BreakerState::Closed
        )
    }

    /// Records that a request received a response head. Returns true if it was the probe, which
    /// closes the breaker.
    pub(super) fn record_probe_response(&mut self, probe: Option<ProbeId>) -> bool {
        self.is_current_probe(probe) && self.close()
    }

    /// Records that a request has ended. If it was the probe and showed nothing, the next request
    /// is another probe.
    pub(super) fn record_request_end(&mut self, probe: Option<ProbeId>) {
        if self.is_current_probe(probe) {
            self.state = BreakerState::Open(Time::default());
        }
    }

    /// Whether the breaker behaves like a new one.
    pub(super) fn is_pristine(&self) -> bool {
        matches!(self.state, BreakerState::Closed) && self.consecutive_failures == 0
    }

    /// Whether a new breaker would behave the same, or the failures are out of date: after twice
    /// the cooldown the host may be back.
    pub(super) fn is_evictable(&self, now: Time) -> bool {
        self.is_pristine() || now.nanos_since(self.last_failure_at) / 2 >= self.config.cooldown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(nanos: u64) -> Time {
        Time::from_nanos(nanos)
    }

    /// Opens at the second failure, for 100 ns.
    fn breaker(max_wait: u64) -> CircuitBreaker {
        CircuitBreaker::new(BreakerConfig {
            failure_threshold: NonZeroU32::new(2),
            cooldown: 100,
            max_wait,
        })
    }

    #[test]
    fn breaker_opens_at_the_threshold_and_admits_one_probe_after_the_cooldown() {
        let mut breaker = breaker(100);
        assert!(!breaker.record_health(None, RouteHealth::Unreachable, at(0)));
        assert_eq!(breaker.check(at(0)), RouteAdmission::Granted);
        assert_eq!(breaker.record_start(), None);
        assert!(!breaker.record_health(None, RouteHealth::Unreachable, at(1)));
        let wait = RouteAdmission::Wait(Admission::NoLaterThan(at(101)));
        assert_eq!(breaker.check(at(100)), wait);
        assert_eq!(breaker.check(at(101)), RouteAdmission::Granted);
        let probe = breaker.record_start();
        assert!(probe.is_some());
        let wait = RouteAdmission::Wait(Admission::Blocked);
        assert_eq!(breaker.check(at(101)), wait);
        assert!(breaker.record_probe_response(probe));
        assert!(breaker.is_pristine());
    }

    #[test]
    fn failed_probe_makes_the_wait_too_long() {
        let mut breaker = breaker(100);
        for _ in 0..2 {
            breaker.record_health(None, RouteHealth::Unreachable, at(0));
        }
        let probe = breaker.record_start();
        assert!(breaker.record_health(probe, RouteHealth::Unreachable, at(100)));
        assert_eq!(breaker.check(at(100)), RouteAdmission::Reject);
        assert!(!breaker.is_evictable(at(299)) && breaker.is_evictable(at(300)));
    }

    #[test]
    fn outcome_of_an_earlier_probe_is_not_counted() {
        let mut breaker = breaker(1_000);
        for _ in 0..2 {
            breaker.record_health(None, RouteHealth::Unreachable, at(0));
        }
        let dropped = breaker.record_start();
        breaker.record_request_end(dropped);
        let current = breaker.record_start();
        assert_ne!(dropped, current);
        assert!(!breaker.record_probe_response(dropped));
        assert!(!breaker.record_health(dropped, RouteHealth::Unreachable, at(1)));
        assert!(breaker.record_probe_response(current));
    }

    #[test]
    fn disabled_breaker_never_opens() {
        let mut breaker = CircuitBreaker::new(BreakerConfig::DISABLED);
        for _ in 0..100 {
            assert!(!breaker.record_health(None, RouteHealth::Unreachable, at(0)));
        }
        assert!(!breaker.is_blocking(at(0)));
    }
}
