//! Makes the requests of a route (a host and the proxy to it) wait for the first one, the *scout*.
//!
//! The scout finds out which protocol the origin supports, for example whether one HTTP/2
//! connection can carry all requests. The other requests wait until the scout has found out, and no
//! longer than a timeout.

use super::admission::Admission;
use super::time::Time;

#[derive(Copy, Clone, Debug)]
pub(super) struct ScoutGate {
    /// The longest time for which other requests wait for the scout, in nanoseconds.
    scout_timeout: u64,
    state: ScoutState,
}

#[derive(Copy, Clone, Debug)]
enum ScoutState {
    /// No request has started yet. The next one is the scout.
    Due,
    /// The scout is in flight. Other requests wait until this instant at the latest.
    InFlight(Time),
    /// Requests start without waiting for a scout.
    Done,
}

impl ScoutGate {
    /// `timeout` is in nanoseconds. With zero, no request is a scout.
    pub(super) fn new(timeout: u64) -> Self {
        let state = if timeout == 0 {
            ScoutState::Done
        } else {
            ScoutState::Due
        };
        Self {
            scout_timeout: timeout,
            state,
        }
    }

    pub(super) fn check(self, now: Time) -> Admission {
        match self.state {
            ScoutState::InFlight(until) if now < until => Admission::NoLaterThan(until),
            _ => Admission::Granted,
        }
    }

    /// Records a start. If the request is the scout, returns the instant until which other requests
    /// wait for it.
    pub(super) fn record_start(&mut self, now: Time) -> Option<Time> {
        if let ScoutState::Due = self.state {
            let until = now.plus_nanos(self.scout_timeout);
            self.state = ScoutState::InFlight(until);
            Some(until)
        } else {
            self.state = ScoutState::Done;
            None
        }
    }

    /// Makes the next request the scout.
    pub(super) fn reassign(&mut self) {
        *self = Self::new(self.scout_timeout);
    }

    /// Lets other requests start, because the scout has found the protocol or has ended.
    pub(super) fn finish(&mut self) {
        self.state = ScoutState::Done;
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
        assert_eq!(scout.check(at(0)), Admission::Granted);
        assert_eq!(scout.record_start(at(0)), Some(at(300)));
        assert_eq!(scout.check(at(299)), Admission::NoLaterThan(at(300)));
        scout.finish();
        assert_eq!(scout.check(at(20)), Admission::Granted);
        assert_eq!(scout.record_start(at(20)), None);
    }

    #[test]
    fn others_start_after_the_timeout_without_another_scout() {
        let mut scout = ScoutGate::new(300);
        let _ = scout.record_start(at(0));
        assert_eq!(scout.check(at(300)), Admission::Granted);
        assert_eq!(scout.record_start(at(300)), None);
    }

    #[test]
    fn restart_makes_the_next_request_the_scout() {
        let mut scout = ScoutGate::new(300);
        let _ = scout.record_start(at(0));
        scout.reassign();
        assert_eq!(scout.check(at(50)), Admission::Granted);
        assert_eq!(scout.record_start(at(50)), Some(at(350)));
    }

    #[test]
    fn zero_timeout_means_no_scout() {
        let mut scout = ScoutGate::new(0);
        assert_eq!(scout.record_start(at(0)), None);
        assert_eq!(scout.check(at(0)), Admission::Granted);
    }
}
