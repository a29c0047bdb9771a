//! The health of a route, as observed in one exchange (one request and its response).

/// The health of a route, as observed in one exchange (one request and its response).
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) enum RouteHealth {
    /// The host or its proxy responded.
    Healthy,
    /// The response reported an overload, or the exchange failed after connecting.
    Overloaded,
    /// No connection to the host was established, directly or through the proxy.
    Unreachable,
}

/// The part of the outcome of an exchange that concerns the route.
#[derive(Copy, Clone, Debug)]
pub(crate) struct RouteObservation {
    pub(crate) health: RouteHealth,
    /// The time from the established connection to the response head. `None` if no response head
    /// was received.
    pub(crate) response_head_latency_nanos: Option<u64>,
}
