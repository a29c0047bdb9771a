//! The health of a host, as observed in one exchange.

/// The health of a host, as observed in one exchange.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) enum Health {
    /// The host responded.
    Healthy,
    /// The host responded that it is overloaded, or the exchange failed after connecting.
    Overloaded,
    /// No connection to the host was established.
    Unreachable,
}

/// The outcome of one exchange, reduced to what concerns its host.
#[derive(Copy, Clone, Debug)]
pub(crate) struct HostObservation {
    pub(crate) health: Health,
    /// Nanoseconds from the connection to the response head. `None` without a response head.
    pub(crate) latency: Option<u64>,
}
