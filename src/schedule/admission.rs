//! The result of checking a gate or a circuit breaker.

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
