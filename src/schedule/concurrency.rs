//! Limits the number of requests in flight. The limit is fixed or adaptive.

use super::adaptive::{AdaptiveConcurrencyLimit, ConcurrencyBounds};
use super::health::RouteObservation;
use super::time::Time;

#[derive(Clone, Debug)]
pub(super) struct ConcurrencyLimit {
    max_in_flight: usize,
    in_flight: usize,
    /// Boxed to save memory, because most limits are fixed.
    adaptive_limit: Option<Box<AdaptiveConcurrencyLimit>>,
}

impl ConcurrencyLimit {
    /// Creates a limit that is fixed at `limit`, or with `bounds`, an adaptive limit that begins at
    /// `limit`.
    pub(super) fn new(limit: usize, bounds: Option<ConcurrencyBounds>) -> Self {
        let adaptive_limit =
            bounds.map(|bounds| Box::new(AdaptiveConcurrencyLimit::new(limit, bounds)));
        Self {
            max_in_flight: limit,
            in_flight: 0,
            adaptive_limit,
        }
    }

    #[cfg(test)]
    pub(super) fn max_in_flight(&self) -> usize {
        self.max_in_flight
    }

    /// Changes the limit. If the limit falls, requests already in flight continue.
    pub(super) fn set_max_in_flight(&mut self, max_in_flight: usize) {
        self.max_in_flight = max_in_flight;
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    pub(super) fn is_limit_reached(&self) -> bool {
        self.in_flight >= self.max_in_flight
    }

    pub(super) fn record_start(&mut self) {
        self.in_flight += 1;
    }

    /// Records the end of a request. Returns true if this makes room for another request.
    pub(super) fn record_end(&mut self) -> bool {
        let was_full = self.is_limit_reached();
        self.in_flight -= 1;
        was_full && !self.is_limit_reached()
    }

    /// Adapts the limit to the outcome of an exchange. `start_seq` is the sequence number of the
    /// exchange, and `start_count` is the number of exchanges started so far. Returns true if this
    /// makes room for another request.
    pub(super) fn record_exchange_outcome(
        &mut self,
        observation: &RouteObservation,
        start_seq: u64,
        start_count: u64,
        now: Time,
    ) -> bool {
        let was_full = self.is_limit_reached();
        if let Some(adaptive) = &mut self.adaptive_limit {
            self.max_in_flight = adaptive.record_exchange_outcome(
                observation,
                start_seq,
                start_count,
                was_full,
                now,
            );
        }
        was_full && !self.is_limit_reached()
    }

    /// Whether the limit may be removed: no request is in flight, and an adaptive limit is out of
    /// date.
    pub(super) fn is_evictable(&self, now: Time) -> bool {
        let has_expired =
            |adaptive: &AdaptiveConcurrencyLimit| adaptive.has_learned_limit_expired(now);
        self.in_flight == 0 && self.adaptive_limit.as_deref().is_none_or(has_expired)
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
        assert!(!limit.is_limit_reached());
        limit.record_start();
        assert!(limit.is_limit_reached());
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
        limit.set_max_in_flight(1);
        assert!(!limit.record_end());
        assert!(!limit.record_end());
        assert!(limit.record_end());
    }

    #[test]
    fn grown_adaptive_limit_makes_room() {
        let bounds = ConcurrencyBounds {
            min_limit: 1,
            max_limit: 100,
        };
        let mut limit = ConcurrencyLimit::new(16, Some(bounds));
        let healthy = RouteObservation {
            health: RouteHealth::Healthy,
            response_head_latency_nanos: Some(1_000),
        };
        for _ in 0..16 {
            limit.record_start();
        }
        let mut made_room = false;
        for start_seq in 1..=16 {
            assert!(!made_room);
            made_room = limit.record_exchange_outcome(&healthy, start_seq, 16, Time::default());
        }
        assert!(made_room && limit.max_in_flight() == 32);
    }
}
