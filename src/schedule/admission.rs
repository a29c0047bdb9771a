//! The decision of a gate or route whether a request may start.

use super::time::Time;

/// Whether a request may start now. A refusal states when to check again.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(super) enum Admission {
    Granted,
    /// Nothing starts until an event occurs, for example until a request ends or a hold is
    /// released.
    RefusedUntilEvent,
    /// Nothing starts before this instant, whatever event occurs.
    RefusedUntil(Time),
    /// Nothing starts until an event occurs or this instant passes, whichever is earlier.
    RefusedUntilEventOrInstant(Time),
}

/// Whether a route lets a request start now.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(super) enum RouteAdmission {
    Granted,
    MustWait(Admission),
    /// The request fails instead of waiting, because the wait would exceed
    /// [`BreakerConfig::max_wait_nanos`](super::BreakerConfig::max_wait_nanos).
    RejectJob,
}
