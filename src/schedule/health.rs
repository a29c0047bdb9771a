//! The health of a host, as observed in one exchange (one request and its response).

/// The health of a host, as observed in one exchange (one request and its response).
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) enum Health {
    /// The host responded.
    Healthy,
    /// The host responded that it is overloaded, or the exchange failed after connecting.
    Overloaded,
    /// No connection to the host was established.
    Unreachable,
}

/// The part of an exchange's outcome that says something about its host.
#[derive(Copy, Clone, Debug)]
pub(crate) struct HostObservation {
    pub(crate) health: Health,
    /// Nanoseconds from the established connection to the response head. `None` if there was no
    /// response head.
    pub(crate) latency: Option<u64>,
}
