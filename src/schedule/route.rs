//! Routes: the ways to reach the host of a lane, directly or through a proxy.
//!
//! A route has the state that is learned from connections: the circuit breaker, the adaptive
//! concurrency limit, and the protocol that the scout (the first request) finds. A dead proxy
//! therefore delays only requests that use it. The lane has the limits that protect the host:
//! rates, fixed concurrency limits, pauses and the retry budget.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::admission::{Admission, RouteAdmission};
use super::block_reason::BlockReason;
use super::breaker::CircuitBreaker;
use super::concurrency::ConcurrencyLimit;
use super::limits::LaneLimits;
use super::parking::ParkingLot;
use super::scout::ScoutGate;
use super::time::Time;

/// Identifies a route.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) struct RouteKey<'a> {
    /// The key of the lane.
    pub(crate) lane_key: &'a str,
    /// The key of the proxy. `None`: the route is direct.
    pub(crate) proxy_key: Option<&'a str>,
}

impl<'a> RouteKey<'a> {
    /// The route without a proxy.
    #[cfg(test)]
    pub(super) const fn direct(lane: &'a str) -> Self {
        Self {
            lane_key: lane,
            proxy_key: None,
        }
    }
}

/// The state of one route: a way to reach a host, directly or through one proxy.
pub(super) struct Route {
    pub(super) lane: usize,
    /// The key of the proxy. `None`: the route is direct.
    pub(super) proxy_key: Option<Arc<str>>,
    pub(super) breaker: CircuitBreaker,
    pub(super) scout_gate: ScoutGate,
    /// The adaptive concurrency limit that is learned on this route. Unlimited if the lane has no
    /// adaptive limit.
    pub(super) concurrency_limit: ConcurrencyLimit,
    /// The queues that this route has refused.
    pub(super) parking_lot: ParkingLot,
    /// The number of queues of this route in all batches.
    pub(super) queue_count: usize,
    /// Whether this route is in the list of eviction candidates.
    pub(super) is_eviction_candidate: bool,
}

impl Route {
    pub(super) fn new(lane: usize, proxy: Option<Arc<str>>, limits: &LaneLimits) -> Self {
        Self {
            lane,
            proxy_key: proxy,
            breaker: CircuitBreaker::new(limits.breaker),
            scout_gate: ScoutGate::new(limits.scout_timeout_nanos),
            concurrency_limit: limits.gate_limits.adaptive_limit_or_unlimited(),
            parking_lot: ParkingLot::default(),
            queue_count: 0,
            is_eviction_candidate: false,
        }
    }

    /// Checks whether a request may start now.
    pub(super) fn check_admission(&self, now: Time) -> RouteAdmission {
        match self.breaker.check_admission(now) {
            RouteAdmission::Granted => {}
            refusal => return refusal,
        }
        if self.concurrency_limit.is_limit_reached() {
            return RouteAdmission::MustWait(Admission::RefusedUntilEvent);
        }
        match self.scout_gate.check_admission(now) {
            Admission::Granted => RouteAdmission::Granted,
            refusal => RouteAdmission::MustWait(refusal),
        }
    }

    /// Returns the instant before which nothing starts on the route, because the breaker is open
    /// and no request in flight can close it. `None` in all other cases.
    pub(super) fn unavailable_until(&self) -> Option<Time> {
        self.breaker
            .open_until()
            .filter(|_| self.concurrency_limit.in_flight() == 0)
    }

    /// Returns the reason why the route refuses a start, or `None` if the route grants a start.
    pub(super) fn block_reason(&self, now: Time) -> Option<BlockReason> {
        if self.breaker.refuses_start(now) {
            return Some(BlockReason::Breaker);
        }
        (self.check_admission(now) != RouteAdmission::Granted).then_some(BlockReason::Concurrency)
    }

    /// Whether the route may be removed: a new route would grant the same starts, or the learned
    /// state is out of date.
    pub(super) fn is_evictable(&self, now: Time) -> bool {
        self.concurrency_limit.is_evictable(now) && self.breaker.is_evictable(now)
    }
}

/// Maps the routes of one lane to slab indices.
#[derive(Debug, Default)]
pub(super) struct RouteMap {
    index_of_direct_route: Option<usize>,
    /// The slab indices of proxied routes, by the key of the proxy. An empty map allocates nothing.
    indices_by_proxy_key: BTreeMap<Arc<str>, usize>,
}

impl RouteMap {
    pub(super) fn index_of(&self, proxy: Option<&str>) -> Option<usize> {
        match proxy {
            None => self.index_of_direct_route,
            Some(proxy) => self.indices_by_proxy_key.get(proxy).copied(),
        }
    }

    pub(super) fn insert_route(&mut self, proxy: Option<Arc<str>>, index: usize) {
        match proxy {
            None => self.index_of_direct_route = Some(index),
            Some(proxy) => {
                self.indices_by_proxy_key.insert(proxy, index);
            }
        }
    }

    pub(super) fn remove_route(&mut self, proxy: Option<&str>) {
        match proxy {
            None => self.index_of_direct_route = None,
            Some(proxy) => {
                self.indices_by_proxy_key.remove(proxy);
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn len(&self) -> usize {
        usize::from(self.index_of_direct_route.is_some()) + self.indices_by_proxy_key.len()
    }

    pub(super) fn indices(&self) -> impl Iterator<Item = usize> {
        self.index_of_direct_route
            .into_iter()
            .chain(self.indices_by_proxy_key.values().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn direct_and_proxied_routes_have_their_own_entries() {
        let mut map = RouteMap::default();
        map.insert_route(None, 1);
        map.insert_route(Some("p".into()), 2);
        map.insert_route(Some("q".into()), 3);
        assert_eq!(
            (map.index_of(None), map.index_of(Some("p"))),
            (Some(1), Some(2))
        );
        assert_eq!(map.index_of(Some("r")), None);
        assert_eq!((map.len(), map.indices().sum::<usize>()), (3, 6));
        map.remove_route(None);
        map.remove_route(Some("p"));
        map.remove_route(Some("r"));
        assert_eq!(map.indices().collect::<Vec<_>>(), [3]);
        map.remove_route(Some("q"));
        assert!(map.is_empty());
    }
}
