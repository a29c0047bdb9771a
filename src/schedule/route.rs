//! Routes: the ways to reach the host of a lane, directly or through a proxy.
//!
//! A route has the state that is learned from connections: the circuit breaker, an adaptive
//! concurrency limit and the scout. A dead proxy therefore delays no request that does not use it.
//! The lane has the limits that protect the host: rates, fixed concurrency limits, pauses and the
//! retry budget.

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

/// The key of a route.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) struct RouteKey<'a> {
    /// The key of the lane.
    pub(crate) lane_key: &'a str,
    /// The key of the proxy. `None`: the connection is direct.
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

/// The state of one route.
pub(super) struct Route {
    pub(super) lane: usize,
    /// The key of the proxy. `None`: the connection is direct.
    pub(super) proxy_key: Option<Arc<str>>,
    pub(super) breaker: CircuitBreaker,
    pub(super) scout: ScoutGate,
    /// The adaptive limit of the lane, as learned on this route. Otherwise unlimited.
    pub(super) concurrency_limit: ConcurrencyLimit,
    /// The queues that this route has refused.
    pub(super) parking_lot: ParkingLot,
    /// The number of queues of this route, over all batches.
    pub(super) queue_count: usize,
    /// Whether it is in the list of eviction candidates.
    pub(super) is_eviction_candidate: bool,
}

impl Route {
    pub(super) fn new(lane: usize, proxy: Option<Arc<str>>, limits: LaneLimits) -> Self {
        Self {
            lane,
            proxy_key: proxy,
            breaker: CircuitBreaker::new(limits.breaker),
            scout: ScoutGate::new(limits.scout_timeout),
            concurrency_limit: limits.gate_limits.adaptive_concurrency_limit(),
            parking_lot: ParkingLot::default(),
            queue_count: 0,
            is_eviction_candidate: false,
        }
    }

    /// Whether a request may start now.
    pub(super) fn check(&self, now: Time) -> RouteAdmission {
        match self.breaker.check(now) {
            RouteAdmission::Granted => {}
            refusal => return refusal,
        }
        if self.concurrency_limit.is_full() {
            return RouteAdmission::Wait(Admission::Blocked);
        }
        match self.scout.check(now) {
            Admission::Granted => RouteAdmission::Granted,
            refusal => RouteAdmission::Wait(refusal),
        }
    }

    /// The instant before which nothing starts on the route, because its breaker is open and no
    /// request in flight can close it.
    pub(super) fn unavailable_until(&self) -> Option<Time> {
        self.breaker
            .open_until()
            .filter(|_| self.concurrency_limit.in_flight() == 0)
    }

    /// Why the route refuses a start; `None` if it grants it.
    pub(super) fn block_reason(&self, now: Time) -> Option<BlockReason> {
        if self.breaker.is_blocking(now) {
            return Some(BlockReason::Breaker);
        }
        (self.check(now) != RouteAdmission::Granted).then_some(BlockReason::Concurrency)
    }

    /// Whether a new route would behave the same, or what was learned is out of date.
    pub(super) fn is_evictable(&self, now: Time) -> bool {
        self.concurrency_limit.is_evictable(now) && self.breaker.is_evictable(now)
    }
}

/// A map from the routes of one lane to slab indices.
#[derive(Debug, Default)]
pub(super) struct RouteMap {
    direct: Option<usize>,
    /// By the key of the proxy. An empty map allocates nothing.
    proxied: BTreeMap<Arc<str>, usize>,
}

impl RouteMap {
    pub(super) fn get(&self, proxy: Option<&str>) -> Option<usize> {
        match proxy {
            None => self.direct,
            Some(proxy) => self.proxied.get(proxy).copied(),
        }
    }

    pub(super) fn insert(&mut self, proxy: Option<Arc<str>>, index: usize) {
        match proxy {
            None => self.direct = Some(index),
            Some(proxy) => {
                self.proxied.insert(proxy, index);
            }
        }
    }

    pub(super) fn remove(&mut self, proxy: Option<&str>) {
        match proxy {
            None => self.direct = None,
            Some(proxy) => {
                self.proxied.remove(proxy);
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn len(&self) -> usize {
        usize::from(self.direct.is_some()) + self.proxied.len()
    }

    pub(super) fn values(&self) -> impl Iterator<Item = usize> {
        self.direct
            .into_iter()
            .chain(self.proxied.values().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn direct_and_proxied_routes_have_their_own_entries() {
        let mut map = RouteMap::default();
        map.insert(None, 1);
        map.insert(Some("p".into()), 2);
        map.insert(Some("q".into()), 3);
        assert_eq!((map.get(None), map.get(Some("p"))), (Some(1), Some(2)));
        assert_eq!(map.get(Some("r")), None);
        assert_eq!((map.len(), map.values().sum::<usize>()), (3, 6));
        map.remove(None);
        map.remove(Some("p"));
        map.remove(Some("r"));
        assert_eq!(map.values().collect::<Vec<_>>(), [3]);
        map.remove(Some("q"));
        assert!(map.is_empty());
    }
}
