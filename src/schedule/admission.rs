//! The result of checking a gate or a route.

use super::time::Time;

/// Whether a request may start now, and if not, when the gate must be checked again.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(super) enum Admission {
    Granted,
    /// Refused until an event, for example until a request settles or a hold is released.
    Blocked,
    /// Refused until this instant. No event permits the start earlier.
    NotBefore(Time),
    /// Refused until an event occurs, but no longer than until this instant.
    NoLaterThan(Time),
}

/// Whether a route lets a request start now.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(super) enum RouteAdmission {
    Granted,
    Wait(Admission),
    /// The request is rejected, because it would have to wait longer than
    /// [`BreakerConfig::max_wait`](super::BreakerConfig::max_wait).
    Reject,
}
