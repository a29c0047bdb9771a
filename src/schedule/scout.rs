//! Lets the first request of a route, the *scout*, start alone. A route is a host and the proxy to
//! it.
//!
//! The scout finds out which protocol the origin supports, for example whether one HTTP/2
//! connection can carry all requests. Other requests of the route wait for the scout, but no longer
//! than a timeout.

use super::admission::Admission;
use super::time::Time;

#[derive(Copy, Clone, Debug)]
pub(super) struct ScoutGate {
    /// The maximum time for which other requests wait for the scout.
    scout_timeout_nanos: u64,
    scout_state: ScoutState,
}

#[derive(Copy, Clone, Debug)]
enum ScoutState {
    /// The next request is the scout.
    NextRequestIsScout,
    /// The scout is in flight. Other requests wait until it has shown the protocol, but no longer
    /// than until this instant.
    ScoutInFlight(Time),
    /// All requests start without waiting.
    NotNeeded,
}

impl ScoutGate {
    /// `timeout` is in nanoseconds. If it is zero, there is no scout.
    pub(super) fn new(timeout: u64) -> Self {
        let scout_state = if timeout == 0 {
            ScoutState::NotNeeded
        } else {
            ScoutState::NextRequestIsScout
        };
        Self {
            scout_timeout_nanos: timeout,
            scout_state,
        }
    }

    pub(super) fn check_admission(self, now: Time) -> Admission {
        match self.scout_state {
            ScoutState::ScoutInFlight(until) if now < until => {
                Admission::RefusedUntilEventOrInstant(until)
            }
            _ => Admission::Granted,
        }
    }

    /// Records the start of a request. If the request is the scout, returns the instant until which
    /// other requests wait for it.
    pub(super) fn record_start(&mut self, now: Time) -> Option<Time> {
        if let ScoutState::NextRequestIsScout = self.scout_state {
            let until = now.plus_nanos(self.scout_timeout_nanos);
            self.scout_state = ScoutState::ScoutInFlight(until);
            Some(until)
        } else {
            self.scout_state = ScoutState::NotNeeded;
            None
        }
    }

    /// Makes the next request the scout.
    pub(super) fn make_next_request_scout(&mut self) {
        *self = Self::new(self.scout_timeout_nanos);
    }

    /// Lets other requests start. Called if the scout has found the protocol or has ended.
    pub(super) fn end_wait_for_scout(&mut self) {
        self.scout_state = ScoutState::NotNeeded;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(nanos: u64) -> Time {
        Time::from_nanos(nanos)
    }

    #[test]
    fn first_start_is_alone_until_it_finishes() {
        let mut scout = ScoutGate::new(300);
        assert_eq!(scout.check_admission(at(0)), Admission::Granted);
        assert_eq!(scout.record_start(at(0)), Some(at(300)));
        assert_eq!(
            scout.check_admission(at(299)),
            Admission::RefusedUntilEventOrInstant(at(300))
        );
        scout.end_wait_for_scout();
        assert_eq!(scout.check_admission(at(20)), Admission::Granted);
        assert_eq!(scout.record_start(at(20)), None);
    }

    #[test]
    fn others_start_after_the_timeout_without_another_scout() {
        let mut scout = ScoutGate::new(300);
        let _ = scout.record_start(at(0));
        assert_eq!(scout.check_admission(at(300)), Admission::Granted);
        assert_eq!(scout.record_start(at(300)), None);
    }

    #[test]
    fn restart_makes_the_next_request_the_scout() {
        let mut scout = ScoutGate::new(300);
        let _ = scout.record_start(at(0));
        scout.make_next_request_scout();
        assert_eq!(scout.check_admission(at(50)), Admission::Granted);
        assert_eq!(scout.record_start(at(50)), Some(at(350)));
    }

    #[test]
    fn zero_timeout_means_no_scout() {
        let mut scout = ScoutGate::new(0);
        assert_eq!(scout.record_start(at(0)), None);
        assert_eq!(scout.check_admission(at(0)), Admission::Granted);
    }
}
