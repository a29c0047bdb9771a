//! Limits the number of requests in flight. The limit is fixed or adaptive.

use super::adaptive::{AdaptiveLimit, ConcurrencyBounds};
use super::health::RouteObservation;
use super::time::Time;

#[derive(Clone, Debug)]
pub(super) struct ConcurrencyLimit {
    limit: usize,
    in_flight: usize,
    /// Boxed, because most gates have a fixed limit.
    adaptive_limit: Option<Box<AdaptiveLimit>>,
}

impl ConcurrencyLimit {
    /// Creates a fixed limit, or with `bounds` an adaptive limit that starts at `limit`.
    pub(super) fn new(limit: usize, bounds: Option<ConcurrencyBounds>) -> Self {
        let adaptive_limit = bounds.map(|bounds| Box::new(AdaptiveLimit::new(limit, bounds)));
        Self {
            limit,
            in_flight: 0,
            adaptive_limit,
        }
    }

    #[cfg(test)]
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// Changes the limit. If the limit falls, requests already in flight continue.
    pub(super) fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    pub(super) fn is_full(&self) -> bool {
        self.in_flight >= self.limit
    }

    pub(super) fn record_start(&mut self) {
        self.in_flight += 1;
    }

    /// Records the end of a request. Returns true if the limit was reached before and is not
    /// reached now.
    pub(super) fn record_end(&mut self) -> bool {
        let was_full = self.is_full();
        self.in_flight -= 1;
        was_full && !self.is_full()
    }

    /// Adapts the limit to the outcome of a request. `start_seq` is the number of the request's
    /// start, and `start_count` is the number of starts so far. Returns true if the limit was full
    /// and now has room.
    pub(super) fn record_observation(
        &mut self,
        observation: &RouteObservation,
        start_seq: u64,
        start_count: u64,
        now: Time,
    ) -> bool {
        let was_full = self.is_full();
        if let Some(adaptive) = &mut self.adaptive_limit {
            self.limit =
                adaptive.record_observation(observation, start_seq, start_count, was_full, now);
        }
        was_full && !self.is_full()
    }

    /// Whether a new limit would behave the same, or the learned limit is out of date.
    pub(super) fn is_evictable(&self, now: Time) -> bool {
        let is_stale = |adaptive: &AdaptiveLimit| adaptive.is_stale(now);
        self.in_flight == 0 && self.adaptive_limit.as_deref().is_none_or(is_stale)
    }
}

#[cfg(test)]
mod tests {
    use super::super::health::RouteHealth;
    use super::*;

    #[test]
    fn limit_is_full_until_a_request_leaves() {
        let mut limit = ConcurrencyLimit::new(2, None);
        limit.record_start();
        assert!(!limit.is_full());
        limit.record_start();
        assert!(limit.is_full());
        assert!(limit.record_end(), "this made room");
        assert!(!limit.record_end(), "there was room already");
        assert!(limit.is_evictable(Time::default()));
    }

    #[test]
    fn lowered_limit_makes_room_only_below_it() {
        let mut limit = ConcurrencyLimit::new(3, None);
        for _ in 0..3 {
            limit.record_start();
        }
        limit.set_limit(1);
        assert!(!limit.record_end());
        assert!(!limit.record_end());
        assert!(limit.record_end());
    }

    #[test]
    fn grown_adaptive_limit_makes_room() {
        let bounds = ConcurrencyBounds { min: 1, max: 100 };
        let mut limit = ConcurrencyLimit::new(16, Some(bounds));
        let healthy = RouteObservation {
            health: RouteHealth::Healthy,
            latency: Some(1_000),
        };
        for _ in 0..16 {
            limit.record_start();
        }
        let mut made_room = false;
        for start_seq in 1..=16 {
            assert!(!made_room);
            made_room = limit.record_observation(&healthy, start_seq, 16, Time::default());
        }
        assert!(made_room && limit.limit() == 32);
    }
}
