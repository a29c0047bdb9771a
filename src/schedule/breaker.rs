//! A circuit breaker for a host or proxy that cannot be reached (M. Nygard, *Release It!*).
//!
//! The breaker opens after a number of consecutive failures to connect. An open breaker refuses all
//! starts for a cooldown. After the cooldown, one request starts as the *probe*, and the breaker is
//! half-open: all other starts are refused until the probe ends. A response to the probe closes the
//! breaker. A failure of the probe opens the breaker for another cooldown.

use std::num::NonZeroU32;

use super::admission::{Admission, RouteAdmission};
use super::health::RouteHealth;
use super::time::Time;

/// The parameters of a circuit breaker.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) struct BreakerConfig {
    /// The number of consecutive failures to connect that opens the breaker. `None`: the breaker
    /// never opens.
    pub(crate) failure_threshold: Option<NonZeroU32>,
    /// The time for which an open breaker refuses all starts.
    pub(crate) cooldown_nanos: u64,
    /// The maximum time for which requests stay queued during an outage. Requests that would wait
    /// longer are rejected.
    pub(crate) max_wait_nanos: u64,
}

impl BreakerConfig {
    pub(crate) const DISABLED: Self = Self {
        failure_threshold: None,
        cooldown_nanos: 0,
        max_wait_nanos: 0,
    };
}

/// Identifies one probe of a breaker. The id tells a late outcome of an earlier probe from the
/// outcome of the current probe.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(super) struct ProbeId(NonZeroU32);

#[derive(Copy, Clone, Debug)]
enum BreakerState {
    Closed,
    /// Nothing starts before this instant. The next request to start is the probe.
    Open(Time),
    /// The probe with this id is in flight. No other request starts.
    HalfOpen(ProbeId),
}

#[derive(Debug)]
pub(super) struct CircuitBreaker {
    breaker_config: BreakerConfig,
    breaker_state: BreakerState,
    consecutive_connect_failures: u32,
    last_connect_failure_at: Time,
    /// The instant of the last change from closed to open.
    outage_began_at: Time,
    /// Whether queued requests are rejected while the breaker is open or half-open.
    rejects_queued_jobs: bool,
    /// The sequence number of the last probe. The number may wrap around.
    last_probe_number: u32,
}

impl CircuitBreaker {
    pub(super) fn new(breaker_config: BreakerConfig) -> Self {
        Self {
            breaker_config,
            breaker_state: BreakerState::Closed,
            consecutive_connect_failures: 0,
            last_connect_failure_at: Time::default(),
            outage_began_at: Time::default(),
            rejects_queued_jobs: false,
            last_probe_number: 0,
        }
    }

    pub(super) fn check_admission(&self, now: Time) -> RouteAdmission {
        match self.breaker_state {
            BreakerState::Closed => RouteAdmission::Granted,
            BreakerState::Open(until) if until <= now => RouteAdmission::Granted,
            BreakerState::Open(_) | BreakerState::HalfOpen(_) if self.rejects_queued_jobs => {
                RouteAdmission::RejectJob
            }
            // A response to a request in flight closes the breaker, so the wait may end before
            // `until`.
            BreakerState::Open(until) => {
                RouteAdmission::MustWait(Admission::RefusedUntilEventOrInstant(until))
            }
            BreakerState::HalfOpen(_) => RouteAdmission::MustWait(Admission::RefusedUntilEvent),
        }
    }

    pub(super) fn refuses_start(&self, now: Time) -> bool {
        self.check_admission(now) != RouteAdmission::Granted
    }

    /// The instant from which a probe may start. `None` unless the breaker is open.
    pub(super) fn open_until(&self) -> Option<Time> {
        match self.breaker_state {
            BreakerState::Open(until) => Some(until),
            BreakerState::Closed | BreakerState::HalfOpen(_) => None,
        }
    }

    /// Records the start of a request that [`Self::check_admission`] has granted. If the breaker is
    /// open, the request is the probe: returns its id and makes the breaker half-open.
    pub(super) fn start_probe_if_open(&mut self) -> Option<ProbeId> {
        let BreakerState::Open(_) = self.breaker_state else {
            return None;
        };
        self.last_probe_number = self.last_probe_number.wrapping_add(1);
        let probe = ProbeId(NonZeroU32::new(self.last_probe_number).unwrap_or(NonZeroU32::MIN));
        self.breaker_state = BreakerState::HalfOpen(probe);
        Some(probe)
    }

    fn is_current_probe(&self, probe: Option<ProbeId>) -> bool {
        matches!(self.breaker_state, BreakerState::HalfOpen(current) if Some(current) == probe)
    }

    /// Records the outcome of an exchange. Returns true if queued requests must be checked again.
    ///
    /// For a request that started before the breaker opened, a response closes the breaker, and a
    /// failure has no effect.
    pub(super) fn record_observed_health(
        &mut self,
        probe: Option<ProbeId>,
        health: RouteHealth,
        now: Time,
    ) -> bool {
        let Some(threshold) = self.breaker_config.failure_threshold else {
            return false;
        };
        let is_counted =
            matches!(self.breaker_state, BreakerState::Closed) || self.is_current_probe(probe);
        match health {
            RouteHealth::Healthy => self.close_breaker(),
            RouteHealth::Overloaded if is_counted => self.close_breaker(),
            RouteHealth::Unreachable if is_counted => {
                self.record_connect_failure(threshold.get(), now)
            }
            RouteHealth::Overloaded | RouteHealth::Unreachable => false,
        }
    }

    fn record_connect_failure(&mut self, threshold: u32, now: Time) -> bool {
        self.consecutive_connect_failures = self.consecutive_connect_failures.saturating_add(1);
        self.last_connect_failure_at = now;
        if self.consecutive_connect_failures < threshold {
            return false;
        }
        if let BreakerState::Closed = self.breaker_state {
            self.outage_began_at = now;
        }
        let until = now.plus_nanos(self.breaker_config.cooldown_nanos);
        self.rejects_queued_jobs =
            until.nanos_since(self.outage_began_at) > self.breaker_config.max_wait_nanos;
        self.breaker_state = BreakerState::Open(until);
        self.rejects_queued_jobs
    }

    /// Closes the breaker. Returns true if it was open or half-open.
    fn close_breaker(&mut self) -> bool {
        self.consecutive_connect_failures = 0;
        !matches!(
            std::mem::replace(&mut self.breaker_state, BreakerState::Closed),
            BreakerState::Closed
        )
    }

    /// Closes the breaker if the request is the current probe. Called when the request has received
    /// a response head. Returns true if the breaker was closed.
    pub(super) fn close_if_current_probe(&mut self, probe: Option<ProbeId>) -> bool {
        self.is_current_probe(probe) && self.close_breaker()
    }

    /// Permits another probe if the request is the current probe. Called when the request has
    /// ended. A probe is no longer current once its outcome is recorded.
    pub(super) fn permit_new_probe_if_undecided(&mut self, probe: Option<ProbeId>) {
        if self.is_current_probe(probe) {
            self.breaker_state = BreakerState::Open(Time::default());
        }
    }

    /// Whether the breaker is in its initial state.
    pub(super) fn is_closed_without_failures(&self) -> bool {
        matches!(self.breaker_state, BreakerState::Closed) && self.consecutive_connect_failures == 0
    }

    /// Whether the breaker may be removed: it is in its initial state, or its last failure is at
    /// least two cooldowns ago.
    pub(super) fn is_evictable(&self, now: Time) -> bool {
        self.is_closed_without_failures()
            || now.nanos_since(self.last_connect_failure_at) / 2
                >= self.breaker_config.cooldown_nanos
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(nanos: u64) -> Time {
        Time::from_nanos(nanos)
    }

    /// Opens at the second failure, for 100 ns.
    fn breaker(max_wait_nanos: u64) -> CircuitBreaker {
        CircuitBreaker::new(BreakerConfig {
            failure_threshold: NonZeroU32::new(2),
            cooldown_nanos: 100,
            max_wait_nanos,
        })
    }

    #[test]
    fn breaker_opens_at_the_threshold_and_admits_one_probe_after_the_cooldown() {
        let mut breaker = breaker(100);
        assert!(!breaker.record_observed_health(None, RouteHealth::Unreachable, at(0)));
        assert_eq!(breaker.check_admission(at(0)), RouteAdmission::Granted);
        assert_eq!(breaker.start_probe_if_open(), None);
        assert!(!breaker.record_observed_health(None, RouteHealth::Unreachable, at(1)));
        let wait = RouteAdmission::MustWait(Admission::RefusedUntilEventOrInstant(at(101)));
        assert_eq!(breaker.check_admission(at(100)), wait);
        assert_eq!(breaker.check_admission(at(101)), RouteAdmission::Granted);
        let probe = breaker.start_probe_if_open();
        assert!(probe.is_some());
        let wait = RouteAdmission::MustWait(Admission::RefusedUntilEvent);
        assert_eq!(breaker.check_admission(at(101)), wait);
        assert!(breaker.close_if_current_probe(probe));
        assert!(breaker.is_closed_without_failures());
    }

    #[test]
    fn failed_probe_makes_the_wait_too_long() {
        let mut breaker = breaker(100);
        for _ in 0..2 {
            breaker.record_observed_health(None, RouteHealth::Unreachable, at(0));
        }
        let probe = breaker.start_probe_if_open();
        assert!(breaker.record_observed_health(probe, RouteHealth::Unreachable, at(100)));
        assert_eq!(breaker.check_admission(at(100)), RouteAdmission::RejectJob);
        assert!(!breaker.is_evictable(at(299)) && breaker.is_evictable(at(300)));
    }

    #[test]
    fn outcome_of_an_earlier_probe_is_not_counted() {
        let mut breaker = breaker(1_000);
        for _ in 0..2 {
            breaker.record_observed_health(None, RouteHealth::Unreachable, at(0));
        }
        let dropped = breaker.start_probe_if_open();
        breaker.permit_new_probe_if_undecided(dropped);
        let current = breaker.start_probe_if_open();
        assert_ne!(dropped, current);
        assert!(!breaker.close_if_current_probe(dropped));
        assert!(!breaker.record_observed_health(dropped, RouteHealth::Unreachable, at(1)));
        assert!(breaker.close_if_current_probe(current));
    }

    #[test]
    fn disabled_breaker_never_opens() {
        let mut breaker = CircuitBreaker::new(BreakerConfig::DISABLED);
        for _ in 0..100 {
            assert!(!breaker.record_observed_health(None, RouteHealth::Unreachable, at(0)));
        }
        assert!(!breaker.refuses_start(at(0)));
    }
}
